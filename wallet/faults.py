"""Named points at which a test may end the process; in production each is a call of nothing.

A crash is tested at each of `POINTS`, so a step that is added here is tested as well. They are
passed once a batch, a flush or a start, never once a payment.
"""

from __future__ import annotations

from typing import Final


class Point:
    """Where a process may end; the order is that of a payment, then of what happens beside it.

    Plain texts: a member of an enum costs three times as much to name.
    """

    # One batch: what the transaction writes, then what the token does, then the answers.
    BEFORE_COMMIT: Final = "before-commit"
    ENTRIES_WRITTEN: Final = "entries-written"
    NODES_WRITTEN: Final = "nodes-written"
    CHECKPOINT_WRITTEN: Final = "checkpoint-written"
    BEFORE_INTENT: Final = "before-intent"
    INTENT_WRITTEN: Final = "intent-written"
    WORKS_WRITTEN: Final = "works-written"
    COMMITTED: Final = "committed"
    INTENT_DURABLE: Final = "intent-durable"
    COUNTER_MOVED: Final = "counter-moved"
    BEFORE_SIGNATURE: Final = "before-signature"
    SIGNED: Final = "signed"
    ANSWERED: Final = "answered"
    # The flush of names and the snapshot.
    BEFORE_FLUSH: Final = "before-flush"
    FLUSH_BEGUN: Final = "flush-begun"
    BLOCKS_WRITTEN: Final = "blocks-written"
    BLOCKS_DURABLE: Final = "blocks-durable"
    RUN_FINISHED: Final = "run-finished"
    SNAPSHOT_WRITTEN: Final = "snapshot-written"
    FLUSHED: Final = "flushed"
    # A renewed certificate, an acknowledged size, a new journal.
    BEFORE_RENEWAL: Final = "before-renewal"
    CERTIFICATES_WRITTEN: Final = "certificates-written"
    RENEWED: Final = "renewed"
    BEFORE_ACKNOWLEDGEMENT: Final = "before-acknowledgement"
    SIZE_WRITTEN: Final = "size-written"
    CHECKPOINTS_PRUNED: Final = "checkpoints-pruned"
    ACKNOWLEDGED: Final = "acknowledged"
    BEFORE_OPENING: Final = "before-opening"
    OPENING_WRITTEN: Final = "opening-written"
    CHAIN_WRITTEN: Final = "chain-written"
    WINDOW_WRITTEN: Final = "window-written"
    OPENED: Final = "opened"


POINTS: Final = tuple(str(text) for name, text in vars(Point).items() if name.isupper())


class Faults:
    """What a journal passes its points to. A simulator's own may end the process, or raise."""

    __slots__ = ()

    def at(self, point: str) -> None:
        """Nothing happens here."""


NO_FAULTS = Faults()
