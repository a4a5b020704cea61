"""Backups: a copy of the store under a passphrase, and what one may be used for.

A backup never goes on under its old epoch: whoever restored one could spend twice what was spent
since. It gives two things to the next epoch: receipts of what the issuer had not got, which are
claims, and the keys of hosted wallets, which no other gateway has.

The file is a SQLCipher 4 database under a raw key: Argon2id of the passphrase with the file's first
16 bytes as the salt, and the cost below.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import nacl.exceptions
import nacl.pwhash.argon2id

from edge.errors import FileUnreadable, RestoreRefused
from edge.folder import Folder
from edge.gateway import Opened
from edge.store_key import read_store_key
from hsm.api import Sealer
from hsm.memory import wipe
from wallet.hosted import seal_label
from wallet.journal import JournalUnopened
from wallet.journal.head import load_chain
from wallet.journal.lookups import node_provider
from wallet.protocol.checkpoint import assemble_receipt, decode_checkpoint
from wallet.protocol.entry import EntryKind, Open, decode_entry
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.merkle import inclusion_path
from wallet.store.connection import Connection
from wallet.store.copying import SALT_BYTES, file_salt
from wallet.store.database import KEY_BYTES, Database
from wallet.store.errors import WrongKey
from wallet.store.hosted import HostedWallet, insert_hosted, list_hosted
from wallet.store.journal import read_entries
from wallet.store.meta import delete_meta, get_meta, put_meta

_NAME = "backup"
# What opens doors and is of no use in another box.
_LEFT_OUT = ("provisioned", "provisioning")
_PAGE = 500
_ALL = 2**62
# libsodium's "moderate": about 0.7 s and 256 MiB a guess.
_OPSLIMIT = nacl.pwhash.argon2id.OPSLIMIT_MODERATE
_MEMLIMIT = nacl.pwhash.argon2id.MEMLIMIT_MODERATE
_MOVING = frozenset(
    (EntryKind.PAY, EntryKind.TRANSFER_OUT, EntryKind.TRANSFER_IN, EntryKind.DEFUND)
)


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself: entries below `size` are proven by the checkpoint."""

    journal: bytes
    epoch: int
    size: int
    acknowledged: int
    checkpoint: bytes
    made_ms: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that moved value, with its receipt."""

    index: int
    entry: bytes
    receipt: bytes


def derive_key(passphrase: bytes, salt: bytes) -> bytes:
    """The backup's key. Takes a moment and 256 MiB."""
    return nacl.pwhash.argon2id.kdf(
        KEY_BYTES, passphrase, salt, opslimit=_OPSLIMIT, memlimit=_MEMLIMIT
    )


# ---- making one ---------------------------------------------------------------------------
async def make_backup(
    opened: Opened, target: Path, *, folder: Folder, key: bytes, salt: bytes
) -> Made:
    """Copy the store while payments go on; what came in after this moment is not in it.

    Raises: HsmError, FileUnreadable, StoreError, JournalUnopened before anything was signed.
    """
    if len(key) != KEY_BYTES or len(salt) != SALT_BYTES:
        raise FileUnreadable(f"a backup has a key of {KEY_BYTES} and a salt of {SALT_BYTES} bytes")
    journal = opened.journal
    # Everything that this checkpoint covers is durable, so that it is in the copy.
    signed = await journal.segment_end(entries_max=_ALL)
    if signed is None:
        raise JournalUnopened("nothing is signed yet")
    size, checkpoint = signed
    made = Made(
        journal=journal.state.journal,
        epoch=journal.state.epoch,
        size=size,
        acknowledged=journal.acknowledged,
        checkpoint=checkpoint,
        made_ms=journal.now()[0],
    )
    seeds = await _seeds(opened.database, opened.token.sealer)

    def finish(copy: Connection) -> None:
        for name in _LEFT_OUT:
            delete_meta(copy, name)
        # Keys that the token sealed would be lost with it: here the passphrase seals them.
        copy.execute("DELETE FROM hosted_wallets")
        for hosted in seeds:
            insert_hosted(copy, hosted)
        put_meta(copy, _NAME, msgspec.msgpack.encode(made))

    own_key = await read_store_key(folder, opened.token)
    try:
        await opened.database.copy(target, own_key=own_key, key=key, salt=salt, finish=finish)
    finally:
        wipe(own_key)
    return made


async def _seeds(database: Database, sealer: Sealer) -> list[HostedWallet]:
    """Hosted wallets with their keys opened."""
    found: list[HostedWallet] = []
    while True:
        after = found[-1].wallet if found else b""
        page = await database.read(functools.partial(list_hosted, after=after, limit=_PAGE))
        for hosted in page:
            seed = await sealer.unseal(hosted.sealed_key, label=seal_label(hosted.wallet))
            found.append(msgspec.structs.replace(hosted, sealed_key=seed))
        if len(page) < _PAGE:
            return found


# ---- using one ----------------------------------------------------------------------------
@contextlib.asynccontextmanager
async def opened_backup(path: Path, passphrase: bytes) -> AsyncIterator[Database]:
    """A backup while the block runs; the file itself is left as it is.

    Raises: FileUnreadable for a wrong passphrase or what is no backup, StoreError.
    """
    key = derive_key(passphrase, file_salt(path))
    with tempfile.TemporaryDirectory(prefix="cbdc-backup-") as folder:
        copy = Path(folder) / "store.db"
        shutil.copyfile(path, copy)
        try:
            database = await Database.open(copy, key=key)
        except WrongKey as error:
            raise FileUnreadable(f"{path}: another passphrase, or no backup") from error
        try:
            yield database
        finally:
            await database.close()


async def read_made(database: Database, path: Path) -> Made:
    """What the backup says of itself. Raises: FileUnreadable."""
    stored = await database.read(lambda c: get_meta(c, _NAME))
    if stored is None:
        raise FileUnreadable(f"{path}: a store, and no backup")
    return msgspec.msgpack.decode(stored, type=Made)


def claims_in(connection: Connection, made: Made) -> Iterator[Claim]:
    """Receipts of what the issuer had not got when the backup was made."""
    signed = decode_checkpoint(made.checkpoint)
    chain = load_chain(connection)
    for first in range(made.acknowledged, made.size, _PAGE):
        count = min(_PAGE, made.size - first)
        for index, entry in enumerate(read_entries(connection, first, count), first):
            if decode_entry(entry).kind not in _MOVING:
                continue
            path = inclusion_path(index, made.size, node_provider(connection))
            receipt = assemble_receipt(
                signed.protected,
                signed.chain or chain,
                size=made.size,
                index=index,
                path=path,
                signature=signed.signature,
            )
            yield Claim(index=index, entry=entry, receipt=receipt)


async def restore_hosted(backup: Database, made: Made, *, into: Database, sealer: Sealer) -> int:
    """Bring the keys of hosted wallets into the gateway that goes on; how many came.

    Raises: RestoreRefused for any other gateway, HsmError, StoreError.
    """
    first = await into.read(lambda c: read_entries(c, 0, 1))
    opening = decode_entry(first[0]).body if first else None
    statement = opening.statement if isinstance(opening, Open) else None
    if statement is None or (statement.journal, statement.epoch) != (made.journal, made.epoch):
        raise RestoreRefused(
            f"this folder does not go on where {journal_text(JournalId(made.journal))} epoch"
            f" {made.epoch} ended. Hand in the backup's receipts (cbdc-edge restore FILE --receipts"
            " DIR), let two officers close that epoch and sign its statement (cbdc-cloud gateway"
            " close, statement), provision a folder with the successor's token, and restore there"
        )
    came = 0
    for hosted in await backup.read(lambda c: list_hosted(c, b"", _ALL)):
        sealed = await sealer.seal(hosted.sealed_key, label=seal_label(hosted.wallet))
        kept = msgspec.structs.replace(hosted, sealed_key=sealed)
        came += await into.write(functools.partial(insert_hosted, hosted=kept))
    return came
