"""Wiping a gateway: only while nothing is lost by it, and whole, whenever it is cut off."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from edge.config import Config
from edge.errors import GatewayTampered, NotProvisioned, ResetRefused
from edge.folder import Folder
from edge.gateway import Gateway
from edge.provision import Wish as Enrolment
from edge.provision import provision
from edge.reset import Standing, require_safe, reset
from edge.tamper import Mark, write_mark
from hsm.files import replace_durably
from tests.support.branch import Command
from tests.support.branch_local import PASSPHRASE, config_of, provision_light, running
from tests.support.live_issuer import LiveIssuer
from tests.support.sync_cloud import SyncCloud
from wallet.clock import SystemClock
from wallet.journal import Mode
from wallet.protocol.ids import journal_text
from wallet.store.objects import CollectedReceipt, add_receipt
from wallet.store.rotation import Step

STANDING = Standing(journal="jnl1x", size=9, acknowledged=9, reached=9, receipts=0, hosted=0)


class Ready:
    """A gateway all of which the issuer holds; nothing runs."""

    def __init__(self, folder: Path, cloud: SyncCloud) -> None:
        self.config: Config = config_of(folder)
        self.folder = Folder(folder)
        self.cloud = cloud
        self.journal = ""

    async def wipe(self, *, journal: str | None = None, step: Step = lambda _: None) -> bool:
        """Whether there was a gateway to wipe."""
        wiped = await reset(
            self.config,
            secret=PASSPHRASE,
            journal=journal or self.journal,
            forget_hosted=False,
            clock=SystemClock(),
            step=step,
        )
        return wiped is not None

    def left(self) -> set[str]:
        """What is in the folder."""
        return {path.name for path in self.folder.root.iterdir()}


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[Ready]:
    """Synchronised, so that only the issuer's own last word is not told back."""
    cloud = SyncCloud(LiveIssuer(), tmp_path)
    policy = cloud.objects
    cloud.objects = lambda journal: [*policy(journal), cloud.keys()]
    await cloud.start()
    await provision_light(tmp_path / "gateway", cloud)
    made = Ready(tmp_path / "gateway", cloud)
    async with running(made.config, cloud.issuer) as branch:
        made.journal = journal_text(branch.opened.journal.state.journal)
        assert (await branch.daemon.sync_now())[0] == "completed"
        state = branch.opened.journal.state
        assert branch.opened.journal.acknowledged < state.size
    yield made
    await cloud.stop()


async def test_a_gateway_that_the_issuer_knows_all_of_is_wiped_and_may_enrol_anew(
    ready: Ready,
) -> None:
    (ready.folder.root / "epoch-1").mkdir()
    assert await ready.wipe()
    assert ready.left() == {"audit", "epoch-1", "provision.lock"}
    await provision_light(ready.folder.root, ready.cloud)
    async with running(ready.config, ready.cloud.issuer) as branch:
        assert branch.opened.journal.mode is Mode.OPEN
        assert journal_text(branch.opened.journal.state.journal) != ready.journal


@pytest.mark.parametrize("step", ["set-aside", "keys", "erased"])
async def test_a_wipe_that_is_cut_off_opens_nothing_and_is_finished_by_asking_again(
    ready: Ready, step: str
) -> None:
    def cut(done: str) -> None:
        if done == step:
            raise OSError("the power went")

    with pytest.raises(OSError, match="the power went"):
        await ready.wipe(step=cut)
    gateway = Gateway(ready.config, secret=PASSPHRASE, clock=SystemClock())
    assert await gateway.open() is Mode.NOT_PROVISIONED
    await gateway.close()
    if step != "erased":
        wish = Enrolment(cloud=ready.cloud.url, cloud_ca="", enrolment_token="x")
        with pytest.raises(ResetRefused, match="cut off"):
            await provision(
                ready.config, wish, secret=PASSPHRASE, clock=SystemClock(), say=lambda step: None
            )
        assert not await ready.wipe()
    assert ready.left() <= {"audit", "provision.lock"}
    with pytest.raises(NotProvisioned):
        await ready.wipe()


async def test_the_box_that_was_not_meant_stays(ready: Ready) -> None:
    with pytest.raises(ResetRefused, match="not jnl1other"):
        await ready.wipe(journal="jnl1other")
    assert ready.folder.store_key.exists()


async def test_receipts_of_others_that_nobody_has_yet_keep_the_gateway(ready: Ready) -> None:
    kept = CollectedReceipt(hash=b"\x07" * 32, entry=b"\x80", receipt=b"\x80", state="kept")
    async with running(ready.config, ready.cloud.issuer) as branch:
        await branch.opened.database.write(lambda c: add_receipt(c, kept))
    with pytest.raises(ResetRefused, match="1 receipts"):
        await ready.wipe()
    async with running(ready.config, ready.cloud.issuer) as branch:
        made = await branch.daemon.courier().export()
        assert await branch.daemon.courier().written(made.exchange)
    assert await ready.wipe()


async def test_a_gateway_that_cannot_say_what_it_holds_is_not_wiped(
    ready: Ready, tmp_path: Path
) -> None:
    shutil.copytree(ready.folder.root, tmp_path / "older")
    async with running(ready.config, ready.cloud.issuer) as branch:
        for _ in range(3):
            await branch.opened.token.counter.increment()
    with pytest.raises(ResetRefused, match="frozen-rollback"):
        await ready.wipe()
    write_mark(ready.folder, Mark(time_ms=1, source="file", reason="test"))
    with pytest.raises(GatewayTampered):
        await ready.wipe()


async def test_an_exchange_of_the_key_that_is_under_way_comes_first(ready: Ready) -> None:
    (ready.folder.root / "next").mkdir()
    with pytest.raises(ResetRefused, match="under way"):
        await ready.wipe()


async def test_a_folder_without_a_gateway_has_nothing_to_wipe(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "nobody")
    folder.prepare()
    with pytest.raises(NotProvisioned):
        await reset(
            config_of(folder.root),
            secret=PASSPHRASE,
            journal="x",
            forget_hosted=False,
            clock=SystemClock(),
        )


async def test_the_command_says_what_was_wiped(ready: Ready) -> None:
    command = Command(ready.folder.root)
    command.environment["CBDC_EDGE_PASSPHRASE"] = PASSPHRASE.decode()
    code, out, errors = await command.edge("reset", "--journal", ready.journal)
    assert (code, f"{ready.journal} is wiped" in out) == (0, True), errors
    replace_durably(ready.folder.resetting, b"")
    code, out, errors = await command.edge("reset", "--journal", ready.journal)
    assert (code, "the rest of a wipe" in out) == (0, True), errors


def refusal(**changes: int) -> str:
    """What is said of a standing."""
    standing = msgspec.structs.replace(STANDING, **changes)
    with pytest.raises(ResetRefused) as caught:
        require_safe(standing, journal="jnl1x", forget_hosted=False)
    return caught.value.detail


def test_what_would_be_lost_is_named() -> None:
    assert "sticks reach up to 7" in refusal(acknowledged=5, reached=7)
    assert "3 receipts" in refusal(receipts=3)
    assert "2 hosted wallets" in refusal(hosted=2)
    require_safe(STANDING, journal="jnl1x", forget_hosted=False)
    hosting = msgspec.structs.replace(STANDING, hosted=2)
    require_safe(hosting, journal="jnl1x", forget_hosted=True)
