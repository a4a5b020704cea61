"""Another signing key: a journal's name is its key's, so that a new key is a new journal and epoch.

The old epoch ends by its own last entry, of which the issuer has to know everything; the next one
is provisioned beside it, in a folder of its own, and opens by the issuer's statement. What the
branch has besides comes along under the new token: hosted wallets, terminals, certificates. Then
the new things take the places of the old ones, which are kept. All of it may be cut off and asked
for again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge.authority import KEY_LABEL
from edge.ceremony import held_records, record_of
from edge.config import Config, TokenConfig
from edge.errors import NotProvisioned, RotationRefused
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.identity import load_identity
from edge.provision import Wish, provision
from edge.secret_input import read_file
from edge.tamper import open_unmarked
from hsm.api import Token
from hsm.files import make_folder, replace_durably
from hsm.open import begin_next_token, open_token
from wallet.clock import Clock
from wallet.hosted import seal_label
from wallet.protocol.entry import EntryKind, Open, decode_entry
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.hosted import insert_hosted, list_hosted
from wallet.store.journal import read_entries
from wallet.store.meta import get_meta
from wallet.store.terminals import (
    get_terminal,
    insert_terminal,
    list_terminals,
    revoke_terminal,
)

_ALL = 2**62
_FILE_BYTES_MAX = 64 * 1024
_SEALED = ".key.sealed"
# What a gateway is made of, in the order in which it takes its place.
_PARTS = ("token", "store.db", "store.db.keycheck", "store.key.sealed", "tls")
Say = Callable[[str], None]


class NextKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Where the next epoch's keys are: labels of a PKCS#11 token, the counter's index in a TPM."""

    key_label: str | None = None
    sealing_label: str | None = None
    nv_index: int | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An epoch that its journal ended, and the issuer knows all of."""

    journal: bytes
    epoch: int


async def succeed(
    config: Config,
    *,
    secret: bytes,
    enrolment_token: str,
    keys: NextKeys,
    clock: Clock,
    say: Say,
) -> None:
    """Go on under a new signing key. The daemon must not run.

    Raises: RotationRefused, NotProvisioned, as `provision` does.
    """
    folder = Folder(config.folder)
    following = msgspec.structs.replace(
        config, folder=folder.root / "next", token=next_settings(config.token, keys)
    )
    ready = following.folder / "ready"
    if not ready.exists():
        token = await _opened(config, folder, secret)
        try:
            database = await open_unmarked(folder, token)
            try:
                ended = await _prepare(
                    database,
                    token,
                    folder,
                    following,
                    secret=secret,
                    enrolment_token=enrolment_token,
                    clock=clock,
                    say=say,
                )
            finally:
                await database.close()
        finally:
            await token.close()
        replace_durably(ready, str(ended.epoch).encode())
    elif (following.folder / "token").exists():
        # Nothing has moved yet: what the old store remembers of a tamper switch still counts.
        await _require_unmarked(config, folder, secret)
    say("switch")
    epoch = int(read_file(ready, bytes_max=_FILE_BYTES_MAX))
    _switch(folder.root, following.folder, kept=folder.root / f"epoch-{epoch}")


def next_settings(token: TokenConfig, keys: NextKeys) -> TokenConfig:
    """The token's settings of the gateway that goes on. Raises: RotationRefused."""
    if token.driver == "tpm":
        if keys.nv_index is None or keys.nv_index == token.nv_index:
            raise RotationRefused("the next epoch counts at another index of the TPM: --nv-index")
        return msgspec.structs.replace(token, nv_index=keys.nv_index)
    if token.driver == "pkcs11":
        if keys.key_label is None or keys.key_label == token.key_label:
            raise RotationRefused("a new key in this token needs another label: --key-label")
        sealing = keys.sealing_label or token.sealing_label
        return msgspec.structs.replace(token, key_label=keys.key_label, sealing_label=sealing)
    return token


async def _opened(config: Config, folder: Folder, secret: bytes) -> Token:
    if not folder.store_key.exists():
        raise NotProvisioned(f"{folder.root}: no store")
    return await open_token(hsm_config(config.token, folder), secret=secret)


async def _require_unmarked(config: Config, folder: Folder, secret: bytes) -> None:
    token = await _opened(config, folder, secret)
    try:
        await (await open_unmarked(folder, token)).close()
    finally:
        await token.close()


async def _prepare(
    database: Database,
    token: Token,
    folder: Folder,
    following: Config,
    *,
    secret: bytes,
    enrolment_token: str,
    clock: Clock,
    say: Say,
) -> Ended:
    ended = await database.read(ended_epoch)
    identity = await database.read(load_identity)
    if ended is None or identity is None:
        raise RotationRefused(
            "the epoch has not ended, or the issuer has not all of it: `cbdc-edge key rotate"
            " signing --end` ends it while the daemon runs"
        )
    wish = Wish(
        cloud=identity.cloud_url, cloud_ca=identity.cloud_ca, enrolment_token=enrolment_token
    )
    beside = Folder(following.folder)
    if not await _is_provisioned(following, beside, secret):
        await _begin_keys(folder, following, secret)
        await provision(following, wish, secret=secret, clock=clock, say=say)
    say("hosted wallets and terminals")
    new_token = await _opened(following, beside, secret)
    try:
        into = await open_unmarked(beside, new_token)
        try:
            await _require_following(into, ended, beside)
            await _carry(database, token, into, new_token)
            await _carry_files(folder, token, beside, new_token)
        finally:
            await into.close()
    finally:
        await new_token.close()
    return ended


async def _begin_keys(folder: Folder, following: Config, secret: bytes) -> None:
    """The keys of the next epoch; of those that a ceremony made, the record comes along."""
    beside = Folder(following.folder)
    beside.prepare()
    record = record_of(held_records(folder), following.token.key_label)
    if record is not None:
        make_folder(beside.token)
        content = read_file(record, bytes_max=_FILE_BYTES_MAX)
        replace_durably(beside.token / record.name, content)
    settings = hsm_config(following.token, beside)
    token = await begin_next_token(settings, secret=secret, held=record is not None)
    await token.close()


def ended_epoch(connection: Connection) -> Ended | None:
    """The epoch of a store, if its journal ended it and the issuer holds all but settlements."""
    acknowledged = int(get_meta(connection, "acknowledged") or b"0")
    first = read_entries(connection, 0, 1)
    opening = decode_entry(first[0]).body if first else None
    for raw in read_entries(connection, acknowledged, _ALL):
        if decode_entry(raw).kind != EntryKind.SETTLEMENT:
            return None
    for index in range(acknowledged - 1, -1, -1):
        (raw,) = read_entries(connection, index, 1)
        kind = decode_entry(raw).kind
        if kind == EntryKind.CLOSE and isinstance(opening, Open):
            return Ended(journal=opening.journal, epoch=opening.epoch)
        if kind != EntryKind.SETTLEMENT:
            return None
    return None


async def _is_provisioned(following: Config, beside: Folder, secret: bytes) -> bool:
    if not beside.store_key.exists():
        return False
    token = await _opened(following, beside, secret)
    try:
        database = await open_unmarked(beside, token)
        try:
            return await database.read(load_identity) is not None
        finally:
            await database.close()
    finally:
        await token.close()


async def _require_following(into: Database, ended: Ended, beside: Folder) -> None:
    first = await into.read(lambda c: read_entries(c, 0, 1))
    opening = decode_entry(first[0]).body if first else None
    statement = opening.statement if isinstance(opening, Open) else None
    if statement is None or (statement.journal, statement.epoch) != (ended.journal, ended.epoch):
        raise RotationRefused(
            "the enrolment token was not of this closure (cbdc-cloud gateway successor):"
            f" {beside.root} is another gateway now; move it away and ask again"
        )


async def _carry(source: Database, token: Token, into: Database, new_token: Token) -> None:
    """Hosted wallets under the new token's seal, and the terminals as they are."""
    for hosted in await source.read(lambda c: list_hosted(c, b"", _ALL)):
        label = seal_label(hosted.wallet)
        seed = await token.sealer.unseal(hosted.sealed_key, label=label)
        sealed = await new_token.sealer.seal(seed, label=label)
        kept = msgspec.structs.replace(hosted, sealed_key=sealed)
        await into.write(functools.partial(insert_hosted, hosted=kept))
    terminals = await source.read(lambda c: list_terminals(c, "", _ALL))

    def write(connection: Connection) -> None:
        for terminal in terminals:
            if get_terminal(connection, terminal.id) is None:
                insert_terminal(connection, terminal)
                if terminal.revoked_ms is not None:
                    revoke_terminal(connection, terminal.id, now_ms=terminal.revoked_ms)

    await into.write(write)


async def _carry_files(folder: Folder, token: Token, beside: Folder, new_token: Token) -> None:
    """The branch's certificates: terminals know this gateway by them."""
    for path in beside.tls.iterdir():
        path.unlink()
    for path in sorted(folder.tls.iterdir()):
        content = read_file(path, bytes_max=_FILE_BYTES_MAX)
        if path.name.endswith(_SEALED):
            secret = await token.sealer.unseal(content, label=KEY_LABEL)
            content = await new_token.sealer.seal(secret, label=KEY_LABEL)
        replace_durably(beside.tls / path.name, content)


def _switch(root: Path, following: Path, *, kept: Path) -> None:
    """The new things take the places of the old ones, part by part.

    What is still in the folder beside has not moved: what stands in its place is the old one.
    """
    make_folder(kept)
    for part in _PARTS:
        if (following / part).exists():
            if (root / part).exists():
                (root / part).rename(kept / part)
            (following / part).rename(root / part)
    # Nothing is in it any more; as one step, so that nobody finds half of it.
    following.rename(kept / "prepared")
