"""Start-up: the state is rebuilt from the store and held against the last checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable

import msgspec

from wallet.journal.errors import JournalTampered, JournalUnopened
from wallet.journal.head import Window, load_chain, load_window, seen
from wallet.journal.index import Recent, names_of
from wallet.journal.trust import Facts, TrustContext
from wallet.protocol.certificates import Chain, TrustAnchor
from wallet.protocol.checkpoint import Checkpoint, decode_checkpoint
from wallet.protocol.context import Refundable, Source
from wallet.protocol.entry import Entry, ListUpdate, Note, Open, Payment, decode_entry
from wallet.protocol.issued import Settlement, decode_list
from wallet.protocol.lists import Held, SignedList, hold_chain
from wallet.protocol.merkle import Frontier, leaf_hash
from wallet.protocol.refusals import ProtocolError, Refusal
from wallet.protocol.rules import apply
from wallet.protocol.snapshot import SnapshotError, lists_apart, read_snapshot
from wallet.protocol.state import State
from wallet.protocol.trust import ENDLESS_S
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.journal import (
    count_entries,
    entry_count,
    last_checkpoint,
    last_snapshot,
    read_entries,
)
from wallet.store.objects import HeldObject, list_objects, objects_down_from, put_object

CHUNK = 2_000
LIST_PAGE = 64
Progress = Callable[[int, int], None]


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """A journal as the store holds it."""

    state: State
    frontier: Frontier
    recent: Recent
    chain: Chain
    window: Window
    checkpoint_size: int | None


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    size: int
    snapshot: bytes | None
    checkpoint: tuple[int, bytes] | None
    chain: Chain
    window: Window


def _load(connection: Connection) -> _Stored:
    snapshot = last_snapshot(connection)
    return _Stored(
        size=entry_count(connection),
        snapshot=None if snapshot is None else snapshot[1],
        checkpoint=last_checkpoint(connection),
        chain=load_chain(connection),
        window=load_window(connection),
    )


async def recover(
    database: Database, anchor: TrustAnchor, *, progress: Progress = lambda done, size: None
) -> Recovered:
    """Snapshot, then the entries after it, checked against the last checkpoint.

    Raises: JournalTampered, JournalUnopened, StoreError.
    """
    stored = await database.read(_load)
    if stored.size == 0 and stored.checkpoint is not None:
        raise JournalTampered("all entries are missing")
    if stored.size < database.least():
        raise JournalTampered("entries are missing that were here when a page failed")
    if stored.size == 0 or not stored.chain:
        raise JournalUnopened("this store holds no open epoch; provision the gateway first")
    state, frontier = await _begin(database, stored)
    replay = Replay(database, anchor, state=state, frontier=frontier)
    if stored.checkpoint is not None and stored.checkpoint[0] < replay.frontier.size:
        # The snapshot is newer than the last stored checkpoint: nothing to hold it against.
        replay.expect(None)
    else:
        replay.expect(stored.checkpoint)
    while replay.frontier.size < stored.size:
        await replay.chunk()
        progress(replay.frontier.size, stored.size)
    replay.finish()
    return Recovered(
        state=state,
        frontier=replay.frontier,
        recent=replay.recent,
        chain=stored.chain,
        window=seen(stored.window, _signed_counter(stored.checkpoint)),
        checkpoint_size=None if stored.checkpoint is None else stored.checkpoint[0],
    )


def _signed_counter(checkpoint: tuple[int, bytes] | None) -> int:
    """What the counter had come to when the last checkpoint was signed."""
    return 0 if checkpoint is None else _checkpoint(checkpoint[1]).head.counter


def _checkpoint(raw: bytes) -> Checkpoint:
    try:
        return decode_checkpoint(raw)
    except ProtocolError as error:
        raise JournalTampered(f"the last checkpoint cannot be read: {error}") from error


async def _begin(database: Database, stored: _Stored) -> tuple[State, Frontier]:
    if stored.snapshot is not None:
        try:
            apart = lists_apart(stored.snapshot)
            lists = {update.list_id: await held_list(database, update) for update in apart}
            state, frontier = read_snapshot(stored.snapshot, lists)
        except (SnapshotError, ProtocolError) as error:
            raise JournalTampered(str(error)) from error
        if frontier.size > stored.size:
            raise JournalTampered("the snapshot is newer than the entries")
        size = frontier.size
        # A page of another time is whole by itself, and nothing above reads what it lacks.
        if await database.read(lambda connection: count_entries(connection, size)) != size:
            raise JournalTampered("entries that the snapshot covers are missing")
        return state, frontier
    first = await database.read(lambda connection: read_entries(connection, 0, 1))
    if not first:
        raise JournalTampered("entry 0 is missing")
    opening = _decoded(first[0]).body
    if not isinstance(opening, Open):
        raise JournalTampered("the first entry opens no epoch")
    return State(opening.journal, opening.epoch), Frontier()


def _decoded(raw: bytes) -> Entry:
    try:
        return decode_entry(raw)
    except ProtocolError as error:
        raise JournalTampered(f"an entry cannot be read: {error}") from error


class _ReplayContext(TrustContext):
    """What this journal has checked once, before it was stored, is not checked again."""

    def check_signature(self, key: object, signed: object) -> None:
        """Checked when the entry was accepted; the store's HMAC and the checkpoint hold it."""

    def check_role(self, signed: object, role: str) -> None:
        """Likewise."""

    def check_note(
        self, note: Note, *, lists: dict[int, Held], certificate_grace_s: int | None
    ) -> Source:
        """Likewise: what its receipt said is what its order says."""
        order = note.order
        return Source(
            journal=order.payer_journal,
            epoch=order.payer_epoch,
            index=note.index,
            not_after_s=ENDLESS_S,
        )


class Replay:
    """Applies stored entries in order, without the signatures inside them."""

    def __init__(
        self, database: Database, anchor: TrustAnchor, *, state: State, frontier: Frontier
    ) -> None:
        self._database = database
        self._context = _ReplayContext(anchor)
        self._state = state
        self._checkpoint: tuple[int, bytes] | None = None
        self.frontier = frontier
        self.recent = Recent()

    def expect(self, checkpoint: tuple[int, bytes] | None) -> None:
        """The checkpoint whose root the tree must have at its size."""
        self._checkpoint = checkpoint
        self._check_root()

    async def chunk(self) -> None:
        """The next entries. Raises: JournalTampered."""
        first = self.frontier.size
        entries = await self._database.read(
            lambda connection: read_entries(connection, first, CHUNK)
        )
        if not entries:
            raise JournalTampered(f"entry {first} is missing")
        for raw in entries:
            await self._apply(raw)

    async def _apply(self, raw: bytes) -> None:
        entry, leaf = _decoded(raw), leaf_hash(raw)
        self._context.facts = await facts_of(self._database, entry)
        outcome = apply(self._state, entry, self._context)
        if isinstance(outcome, Refusal):
            raise JournalTampered(f"entry {entry.index} breaks the rules: {outcome.code}")
        self.frontier, _ = self.frontier.append(leaf)
        self.recent.add_payment(entry.index, *names_of(entry, leaf))
        self._check_root()

    def _check_root(self) -> None:
        if self._checkpoint is None or self._checkpoint[0] != self.frontier.size:
            return
        signed = _checkpoint(self._checkpoint[1])
        if signed.root != self.frontier.root():
            raise JournalTampered("the entries do not give the root of the last checkpoint")
        self._checkpoint = None

    def finish(self) -> None:
        """Raises: JournalTampered when the last checkpoint covers entries that are not there."""
        if self._checkpoint is not None:
            raise JournalTampered("entries that the last checkpoint covers are missing")


async def facts_of(database: Database, entry: Entry) -> Facts:
    """What the rules need for a stored entry beyond the state."""
    body = entry.body
    if isinstance(body, ListUpdate):
        return Facts(listed=await stored_list(database, body))
    if isinstance(body, Settlement):
        # It was held against this journal's own root when it was accepted.
        return Facts(root=body.root)
    if isinstance(body, Payment) and body.order.refunded is not None:
        order = body.order
        # Checked when it was accepted; here only the sum of refunds is counted.
        return Facts(
            refundable=Refundable(
                payer=order.payee,
                payee=order.payer,
                amount_minor=2**62,
                time_ms=entry.time_ms,
            )
        )
    return Facts()


async def stored_list(database: Database, update: ListUpdate) -> SignedList:
    """The signed list that an entry names. Raises: JournalTampered."""

    def read(connection: Connection) -> list[HeldObject]:
        kind = list_kind(update.list_id)
        return list_objects(connection, kind, update.sequence - 1, 1)

    for held in await database.read(read):
        try:
            listed = decode_list(held.object)
        except ProtocolError as error:
            raise JournalTampered(f"a stored list cannot be read: {error}") from error
        if listed.hash == update.hash:
            return listed
    raise JournalTampered(f"list {update.list_id} of sequence {update.sequence} is missing")


async def held_list(database: Database, update: ListUpdate) -> Held:
    """The list that was held after an entry, put together from the signed ones.

    Raises: JournalTampered, and ProtocolError where they do not follow one another.
    """
    kind, chain = list_kind(update.list_id), list[SignedList]()
    below = update.sequence + 1
    while not chain or chain[-1].base is not None:
        page = await database.read(functools.partial(_list_page, kind=kind, below=below))
        if not page:
            raise JournalTampered(f"list {update.list_id} of sequence {update.sequence} is missing")
        for held in page:
            chain.append(decode_list(held.object))
            if chain[-1].base is None:
                break
        below = page[-1].sequence
    return hold_chain(chain[::-1])


def _list_page(connection: Connection, *, kind: str, below: int) -> list[HeldObject]:
    return objects_down_from(connection, kind, below - 1, LIST_PAGE)


def list_kind(list_id: int) -> str:
    """The kind under which the store keeps signed lists."""
    return f"list/{list_id}"


def keep_list(connection: Connection, listed: SignedList) -> None:
    """Store a signed list beside the entry that names it."""
    put_object(
        connection,
        HeldObject(
            kind=list_kind(listed.list_id), sequence=listed.sequence, object=listed.signed.raw
        ),
    )
