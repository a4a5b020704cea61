"""What a report tells of its gateway's audit log: the rows since the report before, and the head.

The rows are there so that the issuer can walk from the head that it was told to the new one: a
head alone says nothing of what stands before it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.trail import AuditHead, next_head

HEALTH = "audit"
# Bounds of one report; what is left goes with the next one.
ROWS_MAX = 200
BYTES_MAX = 64 * 1024


class ToldRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row; number and hash follow from its place."""

    time_ms: int
    action: str
    details: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes, nearly."""
        return len(self.action.encode()) + len(self.details)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Rows after `since`, up to and with `head`."""

    since: AuditHead
    rows: tuple[ToldRow, ...]
    head: AuditHead

    @property
    def places(self) -> list[AuditHead]:
        """`since`, and the place after each row."""
        found = [self.since]
        for row in self.rows:
            found.append(
                next_head(found[-1], time_ms=row.time_ms, action=row.action, details=row.details)
            )
        return found


def to_health(told: Told) -> dict[str, Any]:
    """The log as it travels (wire.cddl, audit)."""
    return {
        "rows": told.head.seq,
        "head": told.head.hash,
        "since": told.since.seq,
        "previous": told.since.hash,
        "log": [[row.time_ms, row.action, row.details] for row in told.rows],
    }


def from_health(value: object) -> Told:
    """Read it. Raises: ProtocolError `malformed`, also where the rows do not lead to the head."""
    if not isinstance(value, dict) or value.keys() != _FIELDS.keys():
        raise shapes.malformed("not an audit log")
    fields = {name: check(value[name]) for name, check in _FIELDS.items()}
    rows = tuple(ToldRow(time_ms=at, action=act, details=more) for at, act, more in fields["log"])
    told = Told(
        since=AuditHead(fields["since"], fields["previous"]),
        rows=rows,
        head=AuditHead(fields["rows"], fields["head"]),
    )
    if len(rows) > ROWS_MAX or told.places[-1] != told.head:
        raise shapes.malformed("the rows of the audit log do not lead to its head")
    return told


def fitting_rows(rows: list[ToldRow]) -> tuple[ToldRow, ...]:
    """The first rows that one report takes; one at least."""
    total, count = 0, 0
    for row in rows[:ROWS_MAX]:
        total += row.size
        if count and total > BYTES_MAX:
            break
        count += 1
    return tuple(rows[:count])


_row = shapes.fixed(shapes.count, shapes.text, shapes.binary)
_FIELDS: dict[str, shapes.Check] = {
    "rows": shapes.count,
    "head": shapes.digest,
    "since": shapes.count,
    "previous": shapes.digest,
    "log": shapes.listed(_row),
}
