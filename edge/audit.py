"""What technicians did, how keys were used and how the gateway's state changed: the audit trail.

Rows go into the hash-chained log of the store (`wallet.store.audit`). While the store is not open
they wait as files of the data folder, for their owner alone, and move into the log when it opens;
until then whoever owns the folder can change them, and the log marks them as `waited`.

A payment leaves no row here: the journal is the record of how the signing key was used, entry by
entry. Uses of hosted wallets' keys are counted by kind. Keys, PINs, and amounts beside names are
never passed to anything here.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from pathlib import Path

import msgspec

from edge.log import Log
from hsm.files import create_durably, make_folder
from wallet.clock import Clock
from wallet.store.audit import append_audit, prune_audit
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import StoreError
from wallet.store.meta import get_meta, put_meta

Detail = str | int | bool | None
NOTES_MAX = 10_000
FILES_MAX = 1_000
TEXT_MAX = 1_000
GATHER_S = 0.1
RETRY_S = 2.0
_TAKEN = "audit-taken"
_log = Log("audit")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One act or change, before it is a row."""

    time_ms: int
    action: str
    details: dict[str, Detail] = {}


def leave_note(folder: Path, note: Note) -> None:
    """Let a note wait for the store to be opened, durably. Raises: OSError."""
    make_folder(folder)
    if len(list(folder.iterdir())) >= FILES_MAX:
        _log.error("audit.full", lost=note.action)
        return
    name = f"{note.time_ms:015d}-{secrets.token_hex(4)}.json"
    create_durably(folder / name, msgspec.json.encode(note))


class Audit:
    """The trail of one gateway, whether its store is open or not."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """`folder`: where notes wait while the store is not open."""
        self._folder = folder
        self._clock = clock
        self._database: Database | None = None
        self._notes: deque[Note] = deque()
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()

    async def attach(self, database: Database) -> None:
        """Write to this store from now on, what waited first. Raises: StoreError, OSError."""
        await self._take_files(database)
        self._database = database

    async def detach(self) -> None:
        """The store is about to close: write what waits, or leave it as files. Raises: OSError."""
        with contextlib.suppress(StoreError):
            await self._flush()
        self._database = None
        while self._notes:
            leave_note(self._folder, self._notes.popleft())

    def note(self, action: str, **details: Detail) -> None:
        """Record soon; for those who can neither wait nor fail."""
        try:
            self._keep(self._made(action, details))
        except OSError as error:
            _log.error("audit.lost", lost=action, detail=error.strerror)

    async def record(self, action: str, **details: Detail) -> None:
        """Record durably before this returns. Raises: StoreError, OSError.

        What the store refused now is kept, and written once it can be.
        """
        self._keep(self._made(action, details))
        await self._flush()

    async def run(self) -> None:
        """Write what is noted until cancelled; what a full disk refuses is tried again."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHER_S)
            self._arrived.clear()
            try:
                await self._flush()
            except StoreError as error:
                _log.warning("audit.waiting", code=error.code)
                await asyncio.sleep(RETRY_S)
                self._arrived.set()

    async def prune(self) -> None:
        """Keep the log within its bound. Raises: StoreError."""
        database, now_ms = self._database, self._clock.now_ms()
        if database is not None:
            await database.write(lambda connection: prune_audit(connection, now_ms=now_ms))

    def _made(self, action: str, details: dict[str, Detail]) -> Note:
        return Note(time_ms=self._clock.now_ms(), action=action, details=_short(details))

    def _keep(self, note: Note) -> None:
        if self._database is None:
            leave_note(self._folder, note)
        elif len(self._notes) >= NOTES_MAX:
            _log.error("audit.full", lost=note.action)
        else:
            self._notes.append(note)
            self._arrived.set()

    async def _flush(self) -> None:
        async with self._turn:
            database, notes = self._database, list(self._notes)
            if database is None or not notes:
                return
            # Out of the queue first: a write that was handed over is done, though its caller is
            # cancelled meanwhile.
            self._notes.clear()
            try:
                await database.write(lambda connection: _append(connection, notes))
            except StoreError:
                self._notes.extendleft(reversed(notes))
                raise

    async def _take_files(self, database: Database) -> None:
        paths = sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []
        if not paths:
            return
        notes = {path.name: _read(path) for path in paths}
        await database.write(lambda connection: _append_waited(connection, notes))
        for path in paths:
            path.unlink()


def _append(connection: Connection, notes: list[Note]) -> None:
    for note in notes:
        append_audit(
            connection, time_ms=note.time_ms, action=note.action, details=dict(note.details)
        )


def _append_waited(connection: Connection, notes: dict[str, Note]) -> None:
    """Each file once: a power cut may come between the commit and the end of the files."""
    taken = get_meta(connection, _TAKEN)
    known = [] if taken is None else msgspec.json.decode(taken, type=list[str])
    _append(
        connection,
        [
            msgspec.structs.replace(note, details={**note.details, "waited": True})
            for name, note in notes.items()
            if name not in known
        ],
    )
    put_meta(connection, _TAKEN, msgspec.json.encode(list(notes)))


def _read(path: Path) -> Note:
    """A note that waited; one that cannot be read is told as that."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Note(time_ms=0, action="audit.note-unreadable", details={"file": path.name})


def _short(details: dict[str, Detail]) -> dict[str, Detail]:
    """Texts within a bound, so that no stranger's text fills the log."""
    return {
        name: value[:TEXT_MAX] if isinstance(value, str) else value
        for name, value in details.items()
    }
