"""Rows of evidence as officers read them."""

from __future__ import annotations

from typing import Any

import msgspec

from cloud.database import Connection
from cloud.errors import CloudError

PAGE = 100


class EvidenceError(CloudError):
    """Evidence cannot be had: `evidence-unknown`, `not-proven`, `too-large`."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of evidence and the journal that it is against. `state`: the epoch's now."""

    evidence_id: int
    epoch_id: int
    journal: bytes
    epoch: int
    state: str
    kind: str
    code: str
    index: int | None
    parts: list[bytes]
    found_ms: int


_COLUMNS = ", ".join(Row.__struct_fields__)
_FROM = f"SELECT {_COLUMNS} FROM journal_evidence JOIN journal_epoch USING (epoch_id)"


async def list_rows(connection: Connection, *, after: int) -> list[Row]:
    """A page of rows after one, the oldest first."""
    rows = await connection.fetch(
        f"{_FROM} WHERE evidence_id > $1 ORDER BY evidence_id LIMIT $2", after, PAGE
    )
    return [_row(row) for row in rows]


async def find_row(connection: Connection, evidence_id: int) -> Row:
    """Raises: EvidenceError `evidence-unknown`."""
    row = await connection.fetchrow(f"{_FROM} WHERE evidence_id = $1", evidence_id)
    if row is None:
        raise EvidenceError("evidence-unknown", str(evidence_id))
    return _row(row)


def _row(row: Any) -> Row:
    return msgspec.convert(dict(row), Row)
