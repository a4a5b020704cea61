"""A gateway on a token that has a counter: it goes on after crashes, and finds an older disk."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.http.types import GatewayAnswer
from tests.support.branch import Daemon, provisioned
from tests.support.counting_hsm import CountingHsm

DEGRADED = 3


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    """A provisioned gateway, stopped."""
    hsm = CountingHsm(tmp_path / "softhsm")
    hsm.init_token()
    pin = tmp_path / "pin"
    pin.write_text("4711\n")
    settings = ("token.driver=pkcs11", f"token.module={hsm.module_path}", "token.label=gateway")
    with hsm.in_this_process():
        async with provisioned(tmp_path, settings=(*settings, f"token.pin_file={pin}")) as made:
            yield made[0]
            await made[0].stop()


async def status_of(daemon: Daemon) -> GatewayAnswer:
    """The status once it is past its start."""
    return await daemon.wait_for(lambda status: status.mode not in ("sealed", "not-provisioned"))


async def test_a_gateway_goes_on_after_stops_and_kills(daemon: Daemon) -> None:
    counters = []
    for end in (daemon.stop, daemon.kill, daemon.kill, daemon.stop):
        await daemon.start()
        status = await status_of(daemon)
        assert (status.mode, status.counter_driver) == ("open", "pkcs11")
        counters.append(status.counter or 0)
        await end()
    assert counters == sorted(set(counters))


async def test_an_older_disk_is_found_and_told(daemon: Daemon, tmp_path: Path) -> None:
    shutil.copytree(daemon.folder.root, tmp_path / "copy")
    for _ in range(2):
        await daemon.start()
        assert (await status_of(daemon)).mode == "open"
        code, out, _ = await daemon.command.edge("doctor", "--offline")
        assert "the counter is in the hardware: pkcs11" in out
        await daemon.stop()
    shutil.rmtree(daemon.folder.root)
    (tmp_path / "copy").rename(daemon.folder.root)
    await daemon.start()
    assert (await status_of(daemon)).mode == "frozen-rollback"
    code, out, _ = await daemon.command.edge("status")
    assert (code, "frozen-rollback" in out) == (DEGRADED, True)
