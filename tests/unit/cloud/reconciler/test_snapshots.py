"""When a replica writes a snapshot: what it costs for each entry is bounded, and so is a start."""

import pytest

from cloud.reconciler.replica import (
    SNAPSHOT_BYTES_PER_ENTRY,
    SNAPSHOT_ENTRIES,
    SNAPSHOT_ENTRIES_MAX,
    Replica,
)
from wallet.protocol.ids import JournalId
from wallet.protocol.merkle import Frontier
from wallet.protocol.state import State

SMALL, LARGE, HUGE = 1_000, SNAPSHOT_BYTES_PER_ENTRY * SNAPSHOT_ENTRIES * 3, 1 << 30


def replica(snapshot_bytes: int) -> Replica:
    made = Replica(epoch_id=1, state=State(JournalId(b"j" * 20), 1), frontier=Frontier())
    made.snapshot_bytes = snapshot_bytes
    return made


@pytest.mark.parametrize(
    ("snapshot_bytes", "due"),
    [
        (0, SNAPSHOT_ENTRIES),
        (SMALL, SNAPSHOT_ENTRIES),
        (LARGE, 3 * SNAPSHOT_ENTRIES),
        (HUGE, SNAPSHOT_ENTRIES_MAX),
    ],
)
def test_a_large_state_is_written_less_often_and_often_enough_for_a_start(
    snapshot_bytes: int, due: int
) -> None:
    made = replica(snapshot_bytes)
    made.size = due - 1
    assert not made.snapshot_due
    made.size = due
    assert made.snapshot_due


def test_the_next_one_counts_from_the_last_and_from_its_length() -> None:
    made = replica(HUGE)
    made.size = SNAPSHOT_ENTRIES_MAX
    raw = made.snapshot()
    assert (made.snapshot_size, made.snapshot_bytes) == (SNAPSHOT_ENTRIES_MAX, len(raw))
    assert not made.snapshot_due
    made.size += SNAPSHOT_ENTRIES
    assert made.snapshot_due
