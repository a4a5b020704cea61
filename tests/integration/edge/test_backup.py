"""Backups: made while payments go on, opened by their passphrase, and never gone on with."""

import asyncio
import json
from pathlib import Path

import pytest

from edge.backup import claims_in, opened_backup, read_made
from edge.errors import DaemonRefused, FileUnreadable
from edge.http.local import BackupAnswer
from edge.http.octets import to_text
from edge.local_client import LocalClient
from edge.pos.purse import DeviceKey
from tests.integration.edge.conftest import Template
from tests.support.branch import Command
from tests.support.branch_local import Branch, copied
from wallet.journal import Receipted
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt
from wallet.store.meta import get_meta

Keys = dict[str, DeviceKey]


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A file with the backup's passphrase."""
    path = tmp_path / "words"
    path.write_text("correct horse battery staple\n")
    return path


async def pay(branch: Branch, keys: Keys, amount: int) -> Receipted:
    """Alice pays the shop."""
    outcome = await branch.opened.journal.pay(
        branch.order(keys["alice"], keys["shop"].public.id, amount)
    )
    assert isinstance(outcome, Receipted), outcome
    return outcome


async def backed_up(branch: Branch, target: Path, words: Path) -> str:
    """The command's output."""
    code, out, errors = await Command(branch.folder.root).edge(
        "backup", str(target), "--passphrase-file", str(words)
    )
    assert code == 0, errors
    return out


async def test_a_backup_is_of_one_moment_while_payments_go_on(
    branch: Branch, keys: Keys, tmp_path: Path, words: Path
) -> None:
    before = await pay(branch, keys, 5)
    going_on = asyncio.Event()

    async def paying() -> int:
        count = 0
        while not going_on.is_set():
            await pay(branch, keys, 1)
            count += 1
        return count

    task = asyncio.create_task(paying())
    out = await backed_up(branch, tmp_path / "b", words)
    going_on.set()
    assert await task > 0
    assert f"epoch {branch.opened.journal.state.epoch}" in out
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("b.*")) == [] and list(tmp_path.glob("b-*")) == []
    async with opened_backup(tmp_path / "b", words.read_bytes().strip()) as backup:
        made = await read_made(backup, tmp_path / "b")
        claims = await backup.read(lambda c: list(claims_in(c, made)))
        assert await backup.read(lambda c: get_meta(c, "provisioned")) is None
    assert before.entry in [claim.entry for claim in claims]
    assert before.index < made.size
    for claim in (claims[0], claims[-1]):
        verified = verify_receipt(
            claim.receipt,
            claim.entry,
            root=branch.opened.journal.anchor,
            grace_s=0,
            revoked=NOTHING_REVOKED,
        )
        assert verified.index == claim.index


async def test_receipts_of_what_the_issuer_had_not_got_are_written_on_any_machine(
    branch: Branch, keys: Keys, tmp_path: Path, words: Path
) -> None:
    old = await pay(branch, keys, 5)
    await branch.opened.journal.acknowledge(branch.opened.journal.state.size)
    new = await pay(branch, keys, 6)
    await backed_up(branch, tmp_path / "b", words)
    elsewhere = Command(tmp_path / "nothing-here")
    code, out, errors = await elsewhere.edge(
        *("restore", str(tmp_path / "b"), "--passphrase-file", str(words)),
        *("--receipts", str(tmp_path / "receipts")),
    )
    assert (code, "1 receipts" in out) == (0, True), errors
    (file,) = (tmp_path / "receipts").iterdir()
    assert file.name == f"{new.leaf.hex()}.json" != f"{old.leaf.hex()}.json"
    assert json.loads(file.read_text())["entry"] == to_text(new.entry)


async def test_another_passphrase_opens_nothing_and_no_file_is_written_over(
    branch: Branch, tmp_path: Path, words: Path
) -> None:
    target = tmp_path / "b"
    await backed_up(branch, target, words)
    content = target.read_bytes()
    code, _, errors = await Command(branch.folder.root).edge(
        "backup", str(target), "--passphrase-file", str(words)
    )
    assert (code, "exists already" in errors) == (1, True)
    assert target.read_bytes() == content
    with pytest.raises(FileUnreadable, match="another passphrase"):
        async with opened_backup(target, b"wrong"):
            pass
    target.write_bytes(b"short")
    code, _, errors = await Command(tmp_path / "x").edge(
        *("restore", str(target), "--passphrase-file", str(words)),
        *("--receipts", str(tmp_path / "r")),
    )
    assert (code, "no copy of a store" in errors) == (1, True)
    local = LocalClient(branch.folder)
    body = {"path": str(tmp_path / "c"), "key": to_text(b"x"), "salt": to_text(bytes(16))}
    with pytest.raises(DaemonRefused, match="backup-failed"):
        await local.call("POST", "/backup", BackupAnswer, body=body)
    nowhere = {**body, "key": to_text(bytes(32)), "path": str(tmp_path / "no" / "c")}
    with pytest.raises(DaemonRefused, match="backup-failed"):
        await local.call("POST", "/backup", BackupAnswer, body=nowhere)


async def test_a_backup_comes_into_no_folder_but_the_one_that_goes_on(
    template: Template, tmp_path: Path, words: Path
) -> None:
    async with copied(template.folder, tmp_path / "g", template.issuer) as branch:
        await backed_up(branch, tmp_path / "b", words)
    restore = ("restore", str(tmp_path / "b"), "--passphrase-file", str(words))
    code, _, errors = await Command(tmp_path / "g").edge(*restore)
    assert (code, "edge-restore-refused" in errors, "two officers" in errors) == (1, True, True)
    code, _, errors = await Command(tmp_path / "fresh").edge(*restore)
    assert (code, "provision" in errors) == (4, True)


async def test_a_store_is_no_backup(template: Template, words: Path) -> None:
    store = template.folder / "store.db"
    with pytest.raises(FileUnreadable, match="another passphrase"):
        async with opened_backup(store, words.read_bytes()):
            pass
