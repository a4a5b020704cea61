"""Clocks of journals that run ahead of the issuer's: a finding, which convicts nobody.

What a journal signs says nothing about the issuer's time, so that nobody else can check it; and a
clock that is wrong, whose box does not know, is no cheat (docs/evidence.md).
"""

from __future__ import annotations

from typing import Any

import msgspec

from cloud.database import Connection
from cloud.log import Log
from cloud.reconciler.outbox import tell
from cloud.reconciler.values import Segment
from wallet.protocol.entry import Clock
from wallet.protocol.ids import journal_text
from wallet.protocol.payments import FUTURE_MS

# As much as an order may be ahead of the clock of whoever takes it.
TOLERANCE_MS = FUTURE_MS
PAGE = 200
_log = Log("clocks")


class Ahead(msgspec.Struct, frozen=True, kw_only=True):
    """The entry of an epoch that was furthest ahead of the issuer's clock when it came."""

    epoch_id: int
    journal: bytes
    epoch: int
    index: int
    entry_ms: int
    received_ms: int


async def watch(connection: Connection, segment: Segment, *, now_ms: int) -> None:
    """Note the last entry of a segment if its box was sure of a time that is still to come."""
    last = segment.entries[-1] if segment.entries else None
    if last is None or last.time_ms <= now_ms + TOLERANCE_MS:
        return
    sure = next((each for each in reversed(segment.entries) if each.clock == Clock.SURE), None)
    if sure is None or sure.time_ms <= now_ms + TOLERANCE_MS:
        # An uncertain clock says so itself.
        return
    is_first: bool | None = await connection.fetchval(
        "INSERT INTO clock_ahead VALUES ($1, $2, $3, $4) ON CONFLICT (epoch_id) DO UPDATE"
        " SET index = excluded.index, entry_ms = excluded.entry_ms,"
        "  received_ms = excluded.received_ms"
        " WHERE excluded.entry_ms - excluded.received_ms"
        "  > clock_ahead.entry_ms - clock_ahead.received_ms RETURNING xmax = 0",
        *(segment.epoch_id, sure.index, sure.time_ms, now_ms),
    )
    if is_first:
        body: dict[str, Any] = {
            "journal": journal_text(segment.journal),
            "epoch": segment.epoch,
            "index": sure.index,
            "ahead_ms": sure.time_ms - now_ms,
        }
        await tell(connection, "journal.clock-ahead", body, now_ms=now_ms)
        _log.warning("clock.ahead", **body)


async def list_ahead(connection: Connection, *, limit: int) -> list[Ahead]:
    """The findings, the newest epoch first."""
    rows = await connection.fetch(
        "SELECT epoch_id, journal, epoch, index, entry_ms, received_ms FROM clock_ahead"
        " JOIN journal_epoch USING (epoch_id) ORDER BY epoch_id DESC LIMIT $1",
        limit,
    )
    return [Ahead(**dict(row)) for row in rows]
