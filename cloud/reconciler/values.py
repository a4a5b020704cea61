"""What the reconciler's parts hand to one another."""

from __future__ import annotations

import msgspec

from cloud.errors import CloudError
from wallet.protocol.entry import Entry
from wallet.protocol.ids import JournalId
from wallet.protocol.receipt import VerifiedCheckpoint
from wallet.protocol.state import Decision


class ReconcilerError(CloudError):
    """The reconciler cannot go on: `replica-broken`, `journal-unknown`, `statement-foreign`."""


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """The contiguous size now held; with a problem, nothing of the segment was kept."""

    acknowledged: int
    problem: str | None = None


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """The first entry that the rules refuse; `entry` is None when it cannot even be read."""

    index: int
    code: str
    detail: str
    entry: Entry | None


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The new part of a report after the rules: entries from `first` on, accepted or not.

    `entries` and `decisions` are those that were accepted. `peaks`: the perfect subtrees before
    `first`, 32 bytes each. `snapshot`: the state after them, where
    one is due.
    """

    epoch_id: int
    journal: JournalId
    epoch: int
    currency: str
    first: int
    raws: tuple[bytes, ...]
    leaves: list[bytes]
    entries: list[Entry]
    decisions: list[Decision]
    checkpoint: VerifiedCheckpoint
    checkpoint_raw: bytes
    claims_window_s: int | None
    peaks: bytes
    violation: Violation | None = None
    snapshot: bytes | None = None

    @property
    def size(self) -> int:
        """The size of the journal after it."""
        return self.first + len(self.raws)
