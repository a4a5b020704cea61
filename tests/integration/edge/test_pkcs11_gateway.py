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


async def put_back(daemon: Daemon, copy: Path) -> Path:
    """The older disk in the place of the newest; what it has noted of the token's counter."""
    shutil.rmtree(daemon.folder.root)
    shutil.copytree(copy, daemon.folder.root)
    return daemon.folder.token / "counter.pkcs11"


async def test_an_older_disk_whose_note_is_taken_away_finds_no_other_counter(
    daemon: Daemon, tmp_path: Path
) -> None:
    await daemon.start()
    counted = (await status_of(daemon)).counter
    await daemon.stop()
    copy = tmp_path / "copy"
    shutil.copytree(daemon.folder.root, copy)
    await daemon.start()
    assert (await status_of(daemon)).mode == "open"
    await daemon.stop()
    # A file that counts would fit the older disk: the store knows that it never counted.
    note = await put_back(daemon, copy)
    note.unlink()
    (daemon.folder.token / "counter").write_text(f"{counted}\n")
    await daemon.start()
    status = await daemon.wait_for(lambda status: status.cause is not None)
    assert status.mode == "sealed"
    assert "counter-replaced: the journal was counted by pkcs11" in str(status)
    await daemon.stop()
    note = await put_back(daemon, copy)
    note.write_bytes(b"")
    await daemon.start()
    status = await daemon.wait_for(lambda status: status.cause is not None)
    assert status.mode == "sealed"
    assert (status.cause or "").startswith("counter-replaced: what was noted")
    await daemon.stop()


@pytest.mark.parametrize("trouble", ["emptied", "removed"])
async def test_a_store_that_holds_nothing_yet_takes_no_count_that_begins_anew(
    daemon: Daemon, trouble: str
) -> None:
    note = daemon.folder.token / "counter.pkcs11"
    if trouble == "emptied":
        note.write_bytes(b"")
    else:
        note.unlink()
    for _ in range(2):
        await daemon.start()
        status = await daemon.wait_for(lambda status: status.cause is not None)
        assert (status.mode, (status.cause or "")[:17]) == ("sealed", "counter-replaced:")
        await daemon.stop()
