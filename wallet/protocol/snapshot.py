"""Snapshots: the state of a journal and its frontier as bytes, so that a start is short."""

from __future__ import annotations

from typing import Any

import msgspec

from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.issued import decode_policy
from wallet.protocol.lists import Held, ListId
from wallet.protocol.merkle import Frontier, import_frontier
from wallet.protocol.state import HOUR_MS, Hours, Movements, State, Wallet

VERSION = 1


class _HeldRow(msgspec.Struct, frozen=True):
    """A list held. Only the column of the list's own kind of item is filled."""

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


def read_snapshot(data: bytes) -> tuple[State, Frontier]:
    """What `write_snapshot` gave. Raises: SnapshotError."""
    try:
        snapshot = msgspec.msgpack.decode(data, type=_Snapshot)
    except (msgspec.MsgspecError, ValueError) as error:
        raise SnapshotError(f"the snapshot cannot be read: {error}") from error
    if snapshot.version != VERSION:
        raise SnapshotError(f"a snapshot of version {snapshot.version}")
    state = State(JournalId(snapshot.journal), snapshot.epoch)
    for name in (
        "currency size time_ms opened_ms grants_next settled_size settled_ms unsettled_total "
        "requests_from_ms"
    ).split():
        setattr(state, name, getattr(snapshot, name))
    state.opened, state.closed = snapshot.opened, snapshot.closed
    state.wallets = {WalletId(wallet.wallet): wallet for wallet in snapshot.wallets}
    state.numbers = {wallet.number: WalletId(wallet.wallet) for wallet in snapshot.wallets}
    state.lists = {row.list_id: _held(row) for row in snapshot.lists}
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
    )


def _held(row: _HeldRow) -> Held:
    items = frozenset[Any](row.journals) | frozenset[Any](row.categories)
    return Held(
        list_id=row.list_id,
        sequence=row.sequence,
        hash=row.hash,
        issued_ms=row.issued_ms,
        next_update_ms=row.next_update_ms,
        items=items | frozenset(row.octets) | frozenset(row.texts),
        names=row.names,
    )
