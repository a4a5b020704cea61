"""Snapshots of what is no open journal, and bytes that are no snapshot."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.wallet.protocol.test_objects import signed_list
from tests.unit.wallet.protocol.test_packed import CHAINS
from wallet.protocol.ids import JournalId
from wallet.protocol.lists import Held, ListId, SignedList, hold, hold_chain
from wallet.protocol.merkle import Frontier
from wallet.protocol.snapshot import (
    WHOLE_ITEMS_MAX,
    SnapshotError,
    lists_apart,
    read_snapshot,
    write_snapshot,
)
from wallet.protocol.state import State

JOURNAL = JournalId(b"\x07" * 20)


def test_a_journal_that_is_not_open_keeps_no_policy() -> None:
    state, frontier = read_snapshot(write_snapshot(State(JOURNAL, 3), Frontier()))
    assert (state.journal, state.epoch, state.policy, state.opened) == (JOURNAL, 3, None, False)
    assert frontier == Frontier()


def test_a_snapshot_of_another_version_is_refused() -> None:
    fields = msgspec.msgpack.decode(write_snapshot(State(JOURNAL, 3), Frontier()))
    other = msgspec.msgpack.encode({**fields, "version": 99})
    with pytest.raises(SnapshotError, match="version 99"):
        read_snapshot(other)


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode({"version": 1})])
def test_bytes_that_are_no_snapshot_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError, match="cannot be read"):
        read_snapshot(data)


# ---- lists that stand apart -----------------------------------------------------------------

LARGE = CHAINS[1]


def holding(*chains: list[SignedList]) -> State:
    state = State(JOURNAL, 3)
    state.lists = {chain[-1].list_id: hold_chain(chain) for chain in chains}
    return state


def test_a_large_list_is_named_and_a_small_one_is_there() -> None:
    state = holding(LARGE, CHAINS[0], CHAINS[3])
    data = write_snapshot(state, Frontier())
    (update,) = lists_apart(data)
    assert (update.list_id, update.sequence) == (ListId.FROZEN, 3)
    assert update.hash == state.lists[ListId.FROZEN].hash
    again, _ = read_snapshot(data, {ListId.FROZEN: hold_chain(LARGE)})
    assert again.lists == state.lists
    # Deltas are taken on what came out of a snapshot as on what went in.
    for list_id, chain in ((ListId.FROZEN, LARGE), (ListId.WALLETS, CHAINS[0])):
        more = signed_list(list_id, 9, [[b"n" * 20], []], chain[-1].hash)
        assert hold(more, again.lists[list_id]) == hold(more, state.lists[list_id])
    assert len(data) < WHOLE_ITEMS_MAX * 22


@pytest.mark.parametrize("given", [{}, {ListId.FROZEN: hold_chain(LARGE[:-1])}])
def test_a_snapshot_without_its_list_is_refused(given: dict[int, Held]) -> None:
    data = write_snapshot(holding(LARGE), Frontier())
    with pytest.raises(SnapshotError, match="list 5 of sequence 3 is missing"):
        read_snapshot(data, given)


def test_a_snapshot_of_the_version_before_is_read() -> None:
    state = holding(CHAINS[0], CHAINS[2], CHAINS[3])
    fields = msgspec.msgpack.decode(write_snapshot(state, Frontier()))
    rows = [{k: v for k, v in row.items() if k != "apart"} for row in fields["lists"]]
    before = msgspec.msgpack.encode({**fields, "version": 1, "lists": rows})
    assert lists_apart(before) == []
    again, _ = read_snapshot(before)
    assert again.lists == state.lists


def test_bytes_that_are_no_snapshot_name_no_lists() -> None:
    with pytest.raises(SnapshotError, match="cannot be read"):
        lists_apart(b"\xc1")
