"""A branch for tests: provisioning, the daemon and the till as processes, as people run them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from edge.errors import DaemonRefused, DaemonSilent
from edge.folder import Folder
from edge.http.types import GatewayAnswer
from edge.local_client import LocalClient
from edge.pos.terminal import Terminal
from tests.support.live_issuer import EnrolmentCloud, LiveIssuer
from tests.support.programs import PIPE, ROOT, Process, start_program

WAIT_S = 40


class Command:
    """Runs the project's commands as processes."""

    def __init__(self, folder: Path, *, prefix: tuple[str, ...] = ()) -> None:
        """`prefix`: a program that runs the command, and its arguments."""
        self.folder = folder
        self.prefix = prefix
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "CBDC_EDGE_PASSPHRASE": "correct horse",
        }

    async def edge(self, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """`cbdc-edge` on this folder: (exit code, output, errors)."""
        return await self.run("edge.cli", "--folder", str(self.folder), *arguments, stdin=stdin)

    async def run(self, module: str, *arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Any command."""
        process = await self.start(module, *arguments)
        async with asyncio.timeout(WAIT_S):
            out, errors = await process.communicate(stdin)
        return process.returncode or 0, out.decode(), errors.decode()

    async def start(self, module: str, *arguments: str) -> Process:
        """A command that goes on."""
        return await start_program(
            module, *arguments, environment=self.environment, prefix=self.prefix, stdin=PIPE
        )


class Daemon:
    """A gateway as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.command = Command(folder)
        self.folder = Folder(folder)
        self.local = LocalClient(self.folder)
        self.process: Process | None = None
        self.log = folder.parent / f"{folder.name}.log"
        self.settings: list[str] = []

    async def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it answers."""
        ports = [f"listen.{name}=0" for name in ("port", "pairing_port", "metrics_port")]
        free = (*ports, "technician.listen=127.0.0.1:0")
        flags = [part for text in (*free, *self.settings) for part in ("--set", text)]
        with self.log.open("ab") as log:
            self.process = await start_program(
                *("edge.cli", "--folder", str(self.folder.root), *flags, "run"),
                environment=self.command.environment,
                stdout=log,
                stderr=log,
            )
        if wait:
            await self.wait_for(lambda status: True)

    async def wait_for(
        self, check: Callable[[GatewayAnswer], bool], *, most_s: float = WAIT_S
    ) -> GatewayAnswer:
        """The status once it passes; fails when the process ends before."""
        async with asyncio.timeout(most_s):
            while True:
                if self.process is not None and self.process.returncode is not None:
                    raise AssertionError(f"the daemon ended: {self.log.read_text()[-4000:]}")
                with contextlib.suppress(DaemonSilent, DaemonRefused):
                    status = await self.local.call("GET", "/status", GatewayAnswer)
                    if check(status):
                        return status
                await asyncio.sleep(0.05)

    @property
    def ports(self) -> dict[str, int]:
        """Where it listens."""
        found: dict[str, int] = json.loads(self.folder.ports.read_text())
        return found

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process is None or self.process.returncode is not None:
            return -1 if self.process is None else self.process.returncode or 0
        self.process.terminate()
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def pair(self, folder: Path, *, name: str = "till") -> Terminal:
        """A terminal of this gateway, paired as people do it."""
        technician = await self.command.start(
            "edge.cli", "--folder", str(self.folder.root), "device", "pair", "--yes-if-sas", "-"
        )
        assert technician.stdout is not None and technician.stdin is not None
        async with asyncio.timeout(WAIT_S):
            line = (await technician.stdout.readline()).decode()
        code = line.split()[1]
        ports = self.ports
        command = Command(folder)
        command.environment["CBDC_POS_CODE"] = code
        till = await command.start(
            "edge.pos.cli",
            "--folder",
            str(folder),
            "pair",
            f"https://127.0.0.1:{ports['pairing_port']}",
            f"https://127.0.0.1:{ports['port']}",
            "--name",
            name,
        )
        assert till.stdout is not None
        async with asyncio.timeout(WAIT_S):
            sas = (await till.stdout.readline()).decode().split()[-1]
            out, errors = await technician.communicate(sas.encode() + b"\n")
            assert technician.returncode == 0, (out, errors)
            out, errors = await till.communicate()
            assert till.returncode == 0, (out, errors)
        return Terminal.load(folder)


@contextlib.asynccontextmanager
async def provisioned(
    folder: Path,
    *,
    objects: Callable[[LiveIssuer, bytes], list[bytes]] | None = None,
    settings: tuple[str, ...] = (),
) -> AsyncIterator[tuple[Daemon, EnrolmentCloud]]:
    """A gateway that was provisioned and does not run yet."""
    issuer = LiveIssuer()
    cloud = EnrolmentCloud(issuer, folder)
    if objects is not None:
        cloud.objects = lambda journal: objects(issuer, journal)
    await cloud.start()
    daemon = Daemon(folder / "gateway")
    daemon.settings = list(settings)
    try:
        code, out, errors = await daemon.command.edge(
            *[part for text in settings for part in ("--set", text)],
            "provision",
            "--cloud",
            cloud.url,
            "--cloud-ca",
            str(cloud.ca),
            "--token-file",
            str(folder / "token.txt"),
        )
        assert code == 0, (out, errors)
        yield daemon, cloud
    finally:
        await daemon.kill()
        await cloud.stop()
