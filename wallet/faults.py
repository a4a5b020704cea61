"""Named points at which a test may end the process; in production each is a call of nothing.

A crash is tested at every member of `Point`, so a step that is added here is tested as well. They
are passed once a batch, a flush or a start, never once a payment.
"""

from __future__ import annotations

import enum


class Point(enum.Enum):
    """Where a process may end; the order is that of a payment, then of what happens beside it."""

    # One batch: what the transaction writes, then what the token does, then the answers.
    BEFORE_COMMIT = "before-commit"
    ENTRIES_WRITTEN = "entries-written"
    NODES_WRITTEN = "nodes-written"
    CHECKPOINT_WRITTEN = "checkpoint-written"
    BEFORE_INTENT = "before-intent"
    INTENT_WRITTEN = "intent-written"
    WORKS_WRITTEN = "works-written"
    COMMITTED = "committed"
    INTENT_DURABLE = "intent-durable"
    COUNTER_MOVED = "counter-moved"
    BEFORE_SIGNATURE = "before-signature"
    SIGNED = "signed"
    ANSWERED = "answered"
    # The flush of names and the snapshot.
    BEFORE_FLUSH = "before-flush"
    FLUSH_BEGUN = "flush-begun"
    BLOCKS_WRITTEN = "blocks-written"
    BLOCKS_DURABLE = "blocks-durable"
    RUN_FINISHED = "run-finished"
    SNAPSHOT_WRITTEN = "snapshot-written"
    FLUSHED = "flushed"
    # A renewed certificate, an acknowledged size, a new journal.
    BEFORE_RENEWAL = "before-renewal"
    CERTIFICATES_WRITTEN = "certificates-written"
    RENEWED = "renewed"
    BEFORE_ACKNOWLEDGEMENT = "before-acknowledgement"
    SIZE_WRITTEN = "size-written"
    CHECKPOINTS_PRUNED = "checkpoints-pruned"
    ACKNOWLEDGED = "acknowledged"
    BEFORE_OPENING = "before-opening"
    OPENING_WRITTEN = "opening-written"
    CHAIN_WRITTEN = "chain-written"
    WINDOW_WRITTEN = "window-written"
    OPENED = "opened"


class Faults:
    """What a journal passes its points to. A simulator's own may end the process, or raise."""

    __slots__ = ()

    def at(self, point: Point) -> None:
        """Nothing happens here."""


NO_FAULTS = Faults()
