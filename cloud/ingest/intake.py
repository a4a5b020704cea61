"""What the exchange hands a report to, and the way without a queue."""

from __future__ import annotations

from typing import Protocol

import msgspec

from wallet.protocol.envelope import VerifiedUp


class Ingesting(Protocol):
    """What a reconciler answers a report with."""

    @property
    def acknowledged(self) -> int:
        """The contiguous size now held."""

    @property
    def problem(self) -> str | None:
        """A code, when nothing of the segment was kept."""


class Reconciling(Protocol):
    """What an intake needs of the reconciler."""

    async def ingest(self, up: VerifiedUp, *, now_ms: int) -> Ingesting:
        """Take a segment."""

    async def settlements_after(self, journal: bytes, epoch: int, size: int) -> list[bytes]:
        """Settlements above a size, oldest first."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a report.

    `acknowledged`: the contiguous size now held; None where nobody said so in time, and what is
    stored has to be asked. `problem`: a code, when nothing of the segment was kept. `heard`:
    another process said so, and it counts no further than the database bears it out.
    """

    acknowledged: int | None
    problem: str | None
    settlements: list[bytes]
    heard: bool = False


class Intake(Protocol):
    """Takes reports that were opened and whose signatures hold."""

    async def take(self, sealed: bytes, up: VerifiedUp, *, now_ms: int) -> Taken:
        """Have a report reconciled. `sealed`: it as it came. Raises: CloudError, HsmError."""


class Directly:
    """The reconciler of this process, without a queue: for tests and measurements."""

    def __init__(self, reconciler: Reconciling) -> None:
        self._reconciler = reconciler

    async def take(self, sealed: bytes, up: VerifiedUp, *, now_ms: int) -> Taken:
        """See `Intake`."""
        claims = up.claims
        outcome = await self._reconciler.ingest(up, now_ms=now_ms)
        settlements = await self._reconciler.settlements_after(
            claims.journal, claims.epoch, claims.acknowledged_size
        )
        return Taken(
            acknowledged=outcome.acknowledged, problem=outcome.problem, settlements=settlements
        )
