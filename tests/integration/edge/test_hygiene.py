"""The daemon as a process: no core, no passphrase in its environment, locked memory."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.http.hygiene import HygieneAnswer
from tests.integration.edge.conftest import Template
from tests.support.branch import Daemon
from tests.support.programs import ROOT

WAIT_S = 30
CRASHES = [signal.SIGSEGV, signal.SIGABRT]


@pytest.fixture
async def daemon(template: Template, tmp_path: Path) -> AsyncIterator[Daemon]:
    """A gateway as a process of its own."""
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    made = Daemon(folder)
    await made.start()
    yield made
    await made.kill()


def pid_of(daemon: Daemon) -> int:
    """The number of its process."""
    assert daemon.process is not None
    return daemon.process.pid


def cores() -> set[Path]:
    """Where a core would be."""
    return {path for path in ROOT.glob("core*") if path.is_file()}


@pytest.mark.parametrize("number", CRASHES)
async def test_a_daemon_that_crashes_leaves_no_core(daemon: Daemon, number: signal.Signals) -> None:
    pid, before = pid_of(daemon), cores()
    limits = Path(f"/proc/{pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]
    status = Path(f"/proc/{pid}/status").read_text()
    assert "CoreDumping:\t0" in status
    with contextlib.suppress(PermissionError):
        # Whoever may raise the limit of a running process gets nothing by it.
        infinite = resource.RLIM_INFINITY
        resource.prlimit(pid, resource.RLIMIT_CORE, (infinite, infinite))
    os.kill(pid, number)
    assert daemon.process is not None
    async with asyncio.timeout(WAIT_S):
        assert await daemon.process.wait() == -number
    assert cores() == before


async def test_the_passphrase_is_in_no_environment_once_it_was_read(daemon: Daemon) -> None:
    assert b"PATH=" in Path(f"/proc/{pid_of(daemon)}/environ").read_bytes()
    for environ in processes_of(pid_of(daemon)):
        assert b"correct horse" not in environ.read_bytes()


def processes_of(pid: int) -> list[Path]:
    """The environments of a process and of those that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{number}/environ") for number in (pid, *map(int, children))]


async def test_doctor_shows_what_is_in_force(daemon: Daemon) -> None:
    found = await daemon.local.call("GET", "/hygiene", HygieneAnswer)
    assert (found.cores, found.dumpable) == (False, False)
    _, out, _ = await daemon.command.edge("doctor", "--offline")
    assert "the daemon leaves no core file" in out
    words = {"all": "no memory of the daemon goes", "keys": "only the keys", "nothing": "may go"}
    assert words[found.locked] in out
    assert "no tamper switch is configured" in out
