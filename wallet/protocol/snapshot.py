"""Snapshots: the state of a journal and its frontier as bytes, so that a start is short.

A large list is named there and stands apart: snapshots are written often, and the signed lists that
it was made of are kept anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from wallet.protocol.entry import ListUpdate
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.issued import decode_policy
from wallet.protocol.lists import Held, ListId
from wallet.protocol.merkle import Frontier, import_frontier
from wallet.protocol.packed import PackedIds
from wallet.protocol.state import HOUR_MS, Hours, Movements, State, Wallet

VERSION = 2
# Version 1 had every list whole.
_READ = (1, VERSION)
WHOLE_ITEMS_MAX = 4_096
NO_LISTS: Mapping[int, Held] = MappingProxyType({})
_PACKED = (ListId.WALLETS, ListId.FROZEN)


class _HeldRow(msgspec.Struct, frozen=True):
    """A list held. Only the column of the list's own kind of item is filled; none where `apart`."""

    list_id: int
    sequence: int
    hash: bytes
    issued_ms: int
    next_update_ms: int
    journals: list[tuple[bytes, int]]
    categories: list[tuple[int, str]]
    octets: list[bytes]
    texts: list[str]
    names: dict[str, tuple[str, ...]]
    apart: bool = False


class _Named(msgspec.Struct, frozen=True):
    """What of a snapshot tells which lists it needs."""

    version: int
    lists: list[_HeldRow]


class _Snapshot(msgspec.Struct, frozen=True):
    version: int
    journal: bytes
    epoch: int
    opened: bool
    closed: bool
    currency: str
    policy: bytes
    size: int
    time_ms: int
    opened_ms: int
    grants_next: int
    settled_size: int
    settled_ms: int
    unsettled_total: int
    wallets: list[Wallet]
    lists: list[_HeldRow]
    requests: list[tuple[bytes, str, int]]
    requests_from_ms: int
    redeemed: list[tuple[bytes, int, int, int]]
    refunds: list[tuple[bytes, int]]
    pairs: list[tuple[bytes, bytes, Hours]]
    movements: tuple[bytes, bytes, bytes, bytes, bytes]
    held: list[tuple[int, int, int]]
    frontier: bytes


_Shape = TypeVar("_Shape", _Named, _Snapshot)


class SnapshotError(Exception):
    """Bytes that are no snapshot of this version."""

    code = "snapshot-unreadable"


def write_snapshot(state: State, frontier: Frontier) -> bytes:
    """The state after its `size` entries."""
    snapshot = _Snapshot(
        version=VERSION,
        journal=state.journal,
        epoch=state.epoch,
        opened=state.opened,
        closed=state.closed,
        currency=state.currency,
        policy=b"" if state.policy is None else state.policy.signed.raw,
        size=state.size,
        time_ms=state.time_ms,
        opened_ms=state.opened_ms,
        grants_next=state.grants_next,
        settled_size=state.settled_size,
        settled_ms=state.settled_ms,
        unsettled_total=state.unsettled_total,
        wallets=list(state.wallets.values()),
        lists=[_held_row(held) for held in state.lists.values()],
        requests=[(key, *value) for key, value in state.requests.items()],
        requests_from_ms=state.requests_from_ms,
        redeemed=[(*key, until) for key, until in state.redeemed.items()],
        refunds=list(state.refunds.items()),
        pairs=[(*pair, hours) for pair, hours in state.pairs.items()],
        movements=_columns(state.movements),
        held=[(index, *arrival) for index, arrival in state.held.items()],
        frontier=frontier.export(),
    )
    return msgspec.msgpack.encode(snapshot)


def lists_apart(data: bytes) -> list[ListUpdate]:
    """The lists that `read_snapshot` has to be given. Raises: SnapshotError."""
    return [
        ListUpdate(list_id=row.list_id, sequence=row.sequence, hash=row.hash)
        for row in _decoded(data, _Named).lists
        if row.apart
    ]


def read_snapshot(data: bytes, lists: Mapping[int, Held] = NO_LISTS) -> tuple[State, Frontier]:
    """What `write_snapshot` gave. `lists`: those of `lists_apart`. Raises: SnapshotError."""
    snapshot = _decoded(data, _Snapshot)
    state = State(JournalId(snapshot.journal), snapshot.epoch)
    for name in (
        "currency size time_ms opened_ms grants_next settled_size settled_ms unsettled_total "
        "requests_from_ms"
    ).split():
        setattr(state, name, getattr(snapshot, name))
    state.opened, state.closed = snapshot.opened, snapshot.closed
    state.wallets = {WalletId(wallet.wallet): wallet for wallet in snapshot.wallets}
    state.numbers = {wallet.number: WalletId(wallet.wallet) for wallet in snapshot.wallets}
    state.lists = {row.list_id: _given(row, lists) for row in snapshot.lists}
    state.requests = {key: (known, until) for key, known, until in snapshot.requests}
    state.redeemed = {(j, epoch, index): end for j, epoch, index, end in snapshot.redeemed}
    state.refunds = dict(snapshot.refunds)
    state.pairs = {(payer, payee): hours for payer, payee, hours in snapshot.pairs}
    state.movements = _movements(snapshot.movements)
    state.held = {index: (number, amount) for index, number, amount in snapshot.held}
    state.swept_hour = snapshot.time_ms // HOUR_MS
    if snapshot.policy:
        state.policy = decode_policy(snapshot.policy)
    state.refresh_deadlines()
    return state, import_frontier(snapshot.frontier)


def _decoded(data: bytes, shape: type[_Shape]) -> _Shape:
    try:
        found = msgspec.msgpack.decode(data, type=shape)
    except (msgspec.MsgspecError, ValueError) as error:
        raise SnapshotError(f"the snapshot cannot be read: {error}") from error
    if found.version not in _READ:
        raise SnapshotError(f"a snapshot of version {found.version}")
    return found


def _given(row: _HeldRow, lists: Mapping[int, Held]) -> Held:
    if not row.apart:
        return _held(row)
    found = lists.get(row.list_id)
    if found is None or found.hash != row.hash:
        raise SnapshotError(f"list {row.list_id} of sequence {row.sequence} is missing")
    return found


def _columns(movements: Movements) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    a, b, c, d, e = (column.tobytes() for column in movements.columns())
    return a, b, c, d, e


def _movements(columns: tuple[bytes, ...]) -> Movements:
    movements = Movements()
    for column, data in zip(movements.columns(), columns, strict=True):
        column.frombytes(data)
    return movements


def _held_row(held: Held) -> _HeldRow:
    journals: list[Any] = []
    categories: list[Any] = []
    octets: list[Any] = []
    texts: list[Any] = []
    columns = {
        ListId.JOURNALS: journals,
        ListId.CATEGORIES: categories,
        ListId.SANCTIONED: texts,
    }
    apart = held.list_id in _PACKED and len(held.items) > WHOLE_ITEMS_MAX
    if not apart:
        columns.get(ListId(held.list_id), octets).extend(sorted(held.items))
    return _HeldRow(
        held.list_id,
        held.sequence,
        held.hash,
        held.issued_ms,
        held.next_update_ms,
        journals,
        categories,
        octets,
        texts,
        held.names,
        apart,
    )


def _held(row: _HeldRow) -> Held:
    items: Set[Any] = frozenset[Any](row.journals) | frozenset[Any](row.categories)
    items = items | frozenset(row.octets) | frozenset(row.texts)
    return Held(
        list_id=row.list_id,
        sequence=row.sequence,
        hash=row.hash,
        issued_ms=row.issued_ms,
        next_update_ms=row.next_update_ms,
        items=PackedIds.of(items) if row.list_id in _PACKED else items,
        names=row.names,
    )
