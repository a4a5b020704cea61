"""Exchanging keys: whenever it is cut off, the gateway opens again and nothing is lost."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.folder import Folder
from edge.store_key import open_store, read_store_key, rotate_store_key
from hsm import software
from tests.integration.edge.conftest import Template
from tests.support.branch import Command
from tests.support.branch_local import PASSPHRASE, config_of, copied, running
from wallet.journal import Mode
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import StoreInUse, Tampered, WrongKey
from wallet.store.files import wal_path
from wallet.store.meta import put_meta

CHILD = "tests.integration.edge.rotating_child"
PROJECT = Path(__file__).parents[3]
STEPS = (
    *("sealed", "locked", "opened", "rekeyed", "folded", "checked", "remembered", "promoted"),
    "never",
)
ROUNDS = 6
FILLER = 20_000


def rotated_until(folder: Path, step: str) -> list[str]:
    """The steps that the child came to before it was gone."""
    done = subprocess.run(
        [sys.executable, "-m", CHILD, str(folder), step],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        timeout=60,
        check=False,
    )
    return done.stdout.split()


async def key_of(folder: Folder) -> bytes:
    """The key that the folder names."""
    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    key = await read_store_key(folder, token)
    await token.close()
    return key


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_after_any_step_leaves_one_key_that_opens_the_whole_store(
    template: Template, tmp_path: Path, step: str
) -> None:
    shutil.copytree(template.folder, tmp_path / "g")
    folder = Folder(tmp_path / "g")
    before = await key_of(folder)
    steps = rotated_until(folder.root, step)
    assert steps[-1] == (step if step != "never" else "promoted")
    async with running(config_of(folder.root), template.issuer) as branch:
        journal = branch.opened.journal
        assert journal.mode is Mode.OPEN
        assert len(journal.state.wallets) == 5
        assert len(await journal.entries(0, journal.state.size)) == journal.state.size
    assert not folder.next_store_key.exists()
    rotated = step not in ("sealed", "locked", "opened")
    assert (await key_of(folder) != before) == rotated
    if rotated:
        with pytest.raises(WrongKey):
            await Database.open(folder.store, key=before)


def kill_while_rewriting(folder: Folder, *, log_bytes: int) -> None:
    """Kill the child once its log has grown to this size, or right after it was done."""
    log = wal_path(folder.store)
    with subprocess.Popen(
        [sys.executable, "-m", CHILD, str(folder.root), "never"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    ) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != "opened":
            assert child.poll() is None
        while child.poll() is None and not (log.exists() and log.stat().st_size >= log_bytes):
            pass
        child.kill()


async def test_a_kill_while_pages_are_rewritten_loses_nothing(
    template: Template, tmp_path: Path
) -> None:
    shutil.copytree(template.folder, tmp_path / "g")
    folder, chance = Folder(tmp_path / "g"), random.Random(7)
    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    database = await open_store(folder, token)

    def fill(connection: Connection) -> None:
        for number in range(FILLER):
            put_meta(connection, f"filler {number}", bytes(400))

    await database.write(fill)
    await database.close()
    for _ in range(ROUNDS):
        kill_while_rewriting(folder, log_bytes=chance.randrange(1, FILLER * 500))
        database = await open_store(folder, token)
        count = await database.read(
            lambda c: c.execute("SELECT count(*) FROM meta WHERE name LIKE 'filler %'").fetchone()
        )
        assert count == (FILLER,)
        await database.close()
    await token.close()


async def test_a_running_gateway_keeps_its_key(template: Template, tmp_path: Path) -> None:
    async with copied(template.folder, tmp_path / "g", template.issuer) as branch:
        with pytest.raises(StoreInUse):
            await rotate_store_key(branch.folder, branch.opened.token, step=lambda step: None)
        code, _, errors = await Command(branch.folder.root).edge("key", "rotate", "database")
        assert (code, "open already" in errors) == (1, True)
    command = Command(tmp_path / "g")
    code, out, errors = await command.edge("key", "rotate", "database")
    assert (code, "another key" in out, "promoted" in errors) == (0, True, True)
    code, _, errors = await Command(tmp_path / "fresh").edge("key", "rotate", "database")
    assert (code, "edge-not-provisioned" in errors) == (4, True)


async def test_a_store_that_is_missing_is_missed_while_its_key_is_exchanged(
    template: Template, tmp_path: Path
) -> None:
    shutil.copytree(template.folder, tmp_path / "g")
    folder = Folder(tmp_path / "g")
    rotated_until(folder.root, "sealed")
    folder.store.unlink()
    token = await software.open_token(folder.token, passphrase=PASSPHRASE)
    with pytest.raises(Tampered, match="missing"):
        await open_store(folder, token)
    await token.close()
