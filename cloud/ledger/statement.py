"""What happened to one account, newest first, in pages."""

from __future__ import annotations

import msgspec

from cloud.database import Connection
from cloud.ledger.posting import TransferKind

PAGE_MAX = 500


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One transfer as one account sees it: `change` is positive where value came in."""

    transfer_id: int
    identity: bytes
    change: int
    other: int
    kind: TransferKind
    reference: str | None
    created_ms: int


async def statement(
    connection: Connection, account_id: int, *, before: int | None = None, limit: int = PAGE_MAX
) -> list[Line]:
    """Up to `limit` lines older than the transfer `before`; kinds from 100 on are not listed."""
    rows = await connection.fetch(
        "(SELECT transfer_id, identity, -amount AS change, credit AS other, kind, reference,"
        "  created_ms FROM ledger_transfer"
        "  WHERE debit = $1 AND kind < 100 AND transfer_id < $2"
        "  ORDER BY transfer_id DESC LIMIT $3)"
        " UNION ALL "
        "(SELECT transfer_id, identity, amount, debit, kind, reference, created_ms"
        "  FROM ledger_transfer WHERE credit = $1 AND kind < 100 AND transfer_id < $2"
        "  ORDER BY transfer_id DESC LIMIT $3)"
        " ORDER BY transfer_id DESC LIMIT $3",
        *(account_id, 2**63 - 1 if before is None else before, min(limit, PAGE_MAX)),
    )
    return [msgspec.convert(dict(row), Line) for row in rows]
