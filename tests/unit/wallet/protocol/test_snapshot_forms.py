"""Snapshots of what is no open journal, and bytes that are no snapshot."""

from __future__ import annotations

import msgspec
import pytest

from wallet.protocol.ids import JournalId
from wallet.protocol.merkle import Frontier
from wallet.protocol.snapshot import SnapshotError, read_snapshot, write_snapshot
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
