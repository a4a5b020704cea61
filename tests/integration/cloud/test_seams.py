"""Where tamper, rollback, attestation and recovery meet: a new epoch, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.config import TamperConfig, TokenConfig
from edge.errors import EnrolmentFailed
from edge.folder import Folder
from edge.tamper import read_mark
from hsm.api import TokenRefused
from tests.integration.cloud.test_attested_enrolment import MAKER
from tests.support.branch_local import WAIT_S, Branch
from tests.support.hardware import NEXT_INDEX, moved, softhsm_keys, tpm_keys
from tests.support.recovery import ANNA, BERT, Box, Story, balance, exchanged, paid
from tests.support.swtpm import extend_pcr
from wallet.journal import Mode, Receipted

DRIVERS = ("software", "pkcs11", "tpm")


@contextlib.asynccontextmanager
async def keys_of(story: Story, driver: str, folder: Path) -> AsyncIterator[TokenConfig | None]:
    """The settings of a gateway with this driver; the token has a counter where one can."""
    if driver == "pkcs11":
        with softhsm_keys(folder, counting=True) as (_, keys):
            yield keys
    elif driver == "tpm":
        async with tpm_keys(story, MAKER, folder) as (_, _, keys):
            yield keys
    else:
        yield None


def next_keys(keys: TokenConfig | None) -> TokenConfig | None:
    """The settings of a new folder on the same token."""
    if keys is None:
        return None
    if keys.driver == "pkcs11":
        return moved(keys, key_label="second")
    return moved(keys, nv_index=NEXT_INDEX)


async def restated(story: Story, box: Box, *receipts: Receipted, cause: str) -> str:
    """Two officers close the epoch, holders hand in, the window passes, the statement is signed."""
    path = await story.closed(box, cause=cause)
    assert await story.hand_in(*receipts) == ["taken"] * len(receipts)
    await story.pass_window(path)
    assert (await story.stated(path))["counted"] == len(receipts)
    return path


async def new_folder(story: Story, box: Box, path: str, keys: TokenConfig | None) -> Box:
    """A folder beside the old one, on the same token."""
    if keys is None:
        folder = Folder(story.folder / "north-again")
        folder.prepare()
        shutil.copytree(Folder(box.folder).token, folder.token)
    return await story.successor(path, "north-again", keys=next_keys(keys))


async def pays_on(story: Story, again: Box, *, anna: int, bert: int) -> None:
    """The next epoch has what the statement says, pays, and settles to the cent."""
    async with again.running() as branch:
        await exchanged(branch)
        assert branch.opened.journal.state.epoch == 2
        assert (balance(branch, ANNA), balance(branch, BERT)) == (anna, bert)
        await paid(branch, BERT, ANNA, 10)
        await exchanged(branch)
        assert branch.opened.journal.acknowledged == branch.opened.journal.state.size
    found = await story.where()
    assert (found.offline, found.in_transit, found.suspense, found.loss) == (1_000, 0, 0, 0)
    assert await story.offline_in(again, 2) == 1_000


async def funded(story: Story, driver: str, keys: TokenConfig | None) -> Box:
    """A gateway with money."""
    return await story.funded(await story.gateway("north", keys=keys, level=driver))


@pytest.mark.parametrize("driver", DRIVERS)
async def test_after_a_trip_a_new_folder_on_the_same_token_goes_on_by_the_statement(
    story: Story, tmp_path: Path, driver: str
) -> None:
    async with keys_of(story, driver, tmp_path / "keys") as keys:
        box = await funded(story, driver, keys)
        lid = tmp_path / "lid"
        async with box.running(
            offline=True, tamper=TamperConfig(source="file", file=lid)
        ) as branch:
            made = await paid(branch, ANNA, BERT, 300)
            lid.touch()
            await frozen(branch)
        path = await restated(story, box, made, cause="compromised")
        again = await new_folder(story, box, path, keys)
        await pays_on(story, again, anna=700, bert=300)
        # The old folder is evidence, and stays what it is.
        lid.unlink()
        assert read_mark(Folder(box.folder)) is not None
        code, _, errors = await box.edge("key", "rotate", "database")
        assert (code, "edge-tampered" in errors) == (4, True)


async def frozen(branch: Branch) -> None:
    """Wait until its keys are dropped."""
    gateway = branch.daemon.context.gateway
    async with asyncio.timeout(WAIT_S):
        while gateway.opened is not None:
            await asyncio.sleep(0.02)
    assert gateway.mode is Mode.FROZEN_TAMPER


@pytest.mark.parametrize("driver", DRIVERS)
async def test_after_a_rollback_a_new_folder_on_the_same_token_goes_on_by_the_statement(
    story: Story, tmp_path: Path, driver: str
) -> None:
    async with keys_of(story, driver, tmp_path / "keys") as keys:
        box = await funded(story, driver, keys)
        shutil.copytree(box.folder, tmp_path / "older")
        async with box.running(offline=True) as branch:
            made = await paid(branch, ANNA, BERT, 300)
        put_back(box, tmp_path / "older", with_token=driver != "software")
        async with box.running(offline=True) as branch:
            assert branch.opened.journal.mode is Mode.FROZEN_ROLLBACK
        path = await restated(story, box, made, cause="lost")
        again = await new_folder(story, box, path, keys)
        await pays_on(story, again, anna=700, bert=300)
        async with box.running(offline=True) as branch:
            assert branch.opened.journal.mode is Mode.FROZEN_ROLLBACK


def put_back(box: Box, older: Path, *, with_token: bool) -> None:
    """An older copy of the disk. A counter in a file notices it while it is not on that disk."""
    token = Folder(box.folder).token
    if not with_token:
        shutil.rmtree(Folder(older).token)
        shutil.copytree(token, Folder(older).token)
    shutil.rmtree(box.folder)
    older.rename(box.folder)


async def test_a_new_folder_does_not_take_over_the_keys_of_another_one(
    story: Story, tmp_path: Path
) -> None:
    async with keys_of(story, "pkcs11", tmp_path / "keys") as keys:
        await funded(story, "pkcs11", keys)
        with pytest.raises(TokenRefused, match="needs another key_label"):
            await story.gateway("north-again", keys=keys, level="pkcs11")


async def test_a_tpm_s_counter_is_not_taken_over_by_another_folder(
    story: Story, tmp_path: Path
) -> None:
    async with keys_of(story, "tpm", tmp_path / "keys") as keys:
        await funded(story, "tpm", keys)
        with pytest.raises(TokenRefused, match="name another nv_index"):
            await story.gateway("north-again", keys=keys, level="tpm")


async def test_a_gateway_that_was_suspended_for_a_drift_is_recovered_once_its_box_is_in_order(
    story: Story, tmp_path: Path
) -> None:
    async with tpm_keys(story, MAKER, tmp_path / "chip") as (chip, _, keys):
        box = await funded(story, "tpm", keys)
        async with box.running() as branch:
            told = await paid(branch, ANNA, BERT, 100)
            await exchanged(branch)
            await chip.administer(extend_pcr(2))
            made = await paid(branch, ANNA, BERT, 200)
            result, detail = await branch.daemon.sync_now()
            assert (result, "frozen-by-issuer" in detail) == ("failed", True)
        # What the issuer had taken before the drift stands; the rest is claimed.
        path = await story.closed(box, cause="compromised")
        assert await story.hand_in(told, made) == ["known", "taken"]
        await story.pass_window(path)
        assert (await story.stated(path))["counted"] == 1
        # The same box as it is now is not enrolled again, whatever token it has.
        with pytest.raises(EnrolmentFailed, match="image-unknown"):
            await story.successor(path, "north-again", keys=next_keys(keys))
        chip.restart()
        again = await story.successor(path, "north-again", keys=next_keys(keys))
        await pays_on(story, again, anna=700, bert=300)
