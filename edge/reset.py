"""Wiping a gateway: all of it, and only while nothing is lost by that.

What the issuer does not hold has to lie on a stick, sealed: a backup does not count, nor anybody's
word. A gateway that cannot be opened proves nothing and is not wiped. Once the store's key is set
aside nothing goes back, and a wipe that was cut off is finished by asking again.
"""

from __future__ import annotations

import contextlib
import os
import shutil

import msgspec

from edge.audit import Detail, Note, leave_note
from edge.carried import carried_leaves, covered_size, list_carried
from edge.config import Config
from edge.errors import NotProvisioned, ResetRefused
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.identity import load_identity
from edge.store_key import open_store
from edge.tamper import refuse_tampered
from hsm.api import Token
from hsm.files import replace_durably, sync_folder
from hsm.open import open_token
from wallet.clock import Clock
from wallet.journal import Journal, Mode
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import EntryKind, decode_entry
from wallet.protocol.ids import journal_text
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.hosted import list_hosted
from wallet.store.journal import read_entries
from wallet.store.objects import RECEIPTS_MAX, oldest_receipts
from wallet.store.rotation import Step

_ALL = 2**62
_STORE_FILES = "store.db*"
# Journals whose books say how things stand.
_SPEAKING = (Mode.OPEN, Mode.FROZEN_BY_ISSUER)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a wipe would take. `reached`: the issuer or a stick has all below."""

    journal: str
    size: int
    acknowledged: int
    reached: int
    receipts: int
    hosted: int


async def reset(
    config: Config,
    *,
    secret: bytes,
    journal: str,
    forget_hosted: bool,
    clock: Clock,
    step: Step = lambda _: None,
) -> Standing | None:
    """Wipe the gateway whose identifier is `journal`; None when only a rest was left to wipe.

    `step` is told what has just been done: `set-aside`, `keys`, `erased`.
    Raises: ResetRefused, NotProvisioned, StoreInUse while the daemon runs, HsmError, StoreError.
    """
    folder = Folder(config.folder)
    refuse_tampered(folder)
    if folder.resetting.exists():
        _erase(folder, step)
        return None
    if not folder.store_key.exists():
        raise NotProvisioned(f"{folder.root}: there is no gateway to wipe")
    if (folder.root / "next").exists():
        raise ResetRefused("an exchange of the signing key is under way: bring it to its end first")
    token = await open_token(hsm_config(config.token, folder), secret=secret)
    try:
        database = await open_store(folder, token)
        try:
            standing = await _standing(database, token, clock)
            require_safe(standing, journal=journal, forget_hosted=forget_hosted)
            # While nobody else can have the store open: from here on nothing opens it.
            os.rename(folder.store_key, folder.resetting)
            sync_folder(folder.root)
            step("set-aside")
        finally:
            await database.close()
    finally:
        await token.close()
    _erase(folder, step)
    step("erased")
    _leave_word(folder, standing, now_ms=clock.now_ms())
    return standing


async def _standing(database: Database, token: Token, clock: Clock) -> Standing:
    identity = await database.read(load_identity)
    if identity is None:
        raise NotProvisioned(
            "the enrolment was not finished: `cbdc-edge provision` goes on with it"
        )
    anchor = TrustAnchor(identity.root)
    journal = await Journal.open(database=database, token=token, clock=clock, anchor=anchor)
    try:
        mode, state = journal.mode, journal.state
        if mode not in _SPEAKING:
            raise ResetRefused(
                f"the gateway is {mode}: what it holds cannot be told, and it is evidence"
            )
        return await database.read(
            lambda c: _look(
                c, journal_text(state.journal), size=state.size, acknowledged=journal.acknowledged
            )
        )
    finally:
        await journal.close()


def _look(connection: Connection, journal: str, *, size: int, acknowledged: int) -> Standing:
    carried = list_carried(connection)
    reached = covered_size(carried, acknowledged)
    rest = read_entries(connection, reached, _ALL)
    if all(decode_entry(raw).kind == EntryKind.SETTLEMENT for raw in rest):
        # The issuer's own word: it brought these itself.
        reached = size
    gone = carried_leaves(carried)
    receipts = [r for r in oldest_receipts(connection, RECEIPTS_MAX) if r.hash not in gone]
    return Standing(
        journal=journal,
        size=size,
        acknowledged=acknowledged,
        reached=reached,
        receipts=len(receipts),
        hosted=len(list_hosted(connection, b"", _ALL)),
    )


def require_safe(standing: Standing, *, journal: str, forget_hosted: bool) -> None:
    """Raises: ResetRefused, for what would be lost."""
    if journal != standing.journal:
        raise ResetRefused(f"this gateway is {standing.journal}, not {journal}")
    if standing.reached < standing.size:
        raise ResetRefused(
            f"the issuer holds {standing.acknowledged} of {standing.size} entries, and sticks reach"
            f" up to {standing.reached}: `cbdc-edge sync now`, or `cbdc-edge sync export` first"
        )
    if standing.receipts:
        raise ResetRefused(
            f"{standing.receipts} receipts of other journals were not handed on:"
            " `cbdc-edge sync now`, or `cbdc-edge sync export` first"
        )
    if standing.hosted and not forget_hosted:
        raise ResetRefused(
            f"the keys of {standing.hosted} hosted wallets are nowhere else, but in a backup:"
            " make one (`cbdc-edge backup`), then say --forget-hosted"
        )


def _leave_word(folder: Folder, standing: Standing, *, now_ms: int) -> None:
    """For the audit trail of the gateway that this folder may be next."""
    details: dict[str, Detail] = {"journal": standing.journal, "entries": standing.size}
    details["user"] = os.getuid()
    leave_note(folder.audit, Note(time_ms=now_ms, action="technician reset", details=details))


def _erase(folder: Folder, step: Step) -> None:
    """Remove all that a gateway is; the mark of it last. Raises: OSError."""
    replace_durably(folder.resetting, b"")
    for tree in (folder.token, folder.tls, folder.audit):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(tree)
    step("keys")
    files = [folder.next_store_key, folder.ports, folder.socket, folder.tamper_ready]
    for path in (*files, *folder.root.glob(_STORE_FILES)):
        path.unlink(missing_ok=True)
    sync_folder(folder.root)
    folder.resetting.unlink()
    sync_folder(folder.root)
