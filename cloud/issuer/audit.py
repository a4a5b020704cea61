"""The audit log: what people did, in a chain of hashes that shows every change made later."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError

FIRST = bytes(32)
PAGE_MAX = 500
_LOCK = 0x61756474  # "audt": the key of PostgreSQL's advisory lock
_VERIFY_PAGE = 5_000


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One act. `detail` is JSON without secrets; `sequence` counts from 1 without a gap."""

    sequence: int
    at_ms: int
    actor: str
    action: str
    subject: str
    detail: str

    def chained(self, previous: bytes) -> bytes:
        """SHA-256 of the hash before and the JSON array of the fields in their order."""
        fields = (self.sequence, self.at_ms, self.actor, self.action, self.subject, self.detail)
        return hashlib.sha256(previous + msgspec.json.encode(fields)).digest()


async def record(
    connection: Connection,
    *,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, str | int | list[str]],
    now_ms: int,
) -> AuditRecord:
    """Add an act in the transaction that does it: either both are there, or neither."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    last = await connection.fetchrow(
        "SELECT sequence, hash FROM audit_log ORDER BY sequence DESC LIMIT 1"
    )
    made = AuditRecord(
        sequence=last["sequence"] + 1 if last else 1,
        at_ms=now_ms,
        actor=actor,
        action=action,
        subject=subject,
        detail=msgspec.json.encode(detail, order="sorted").decode(),
    )
    await connection.execute(
        "INSERT INTO audit_log VALUES ($1, $2, $3, $4, $5, $6, $7)",
        *msgspec.structs.astuple(made),
        made.chained(last["hash"] if last else FIRST),
    )
    return made


async def read(
    connection: Connection, *, after: int = 0, limit: int = PAGE_MAX
) -> list[AuditRecord]:
    """Up to `limit` records behind the one of that sequence, oldest first."""
    rows = await _rows(connection, after=after, limit=min(limit, PAGE_MAX))
    return [row for row, _ in rows]


async def verify(connection: Connection) -> int:
    """Check the whole chain and answer its length. Raises: IssuerError `audit-broken`.

    Records cut off at the end do not show in the chain itself: compare the last hash with one that
    was kept elsewhere.
    """
    length, previous = 0, FIRST
    while rows := await _rows(connection, after=length, limit=_VERIFY_PAGE):
        for found, stored in rows:
            previous = found.chained(previous)
            length += 1
            if (found.sequence, stored) != (length, previous):
                raise IssuerError("audit-broken", f"record {length} was changed or taken out")
    return length


async def _rows(
    connection: Connection, *, after: int, limit: int
) -> list[tuple[AuditRecord, bytes]]:
    rows = await connection.fetch(
        "SELECT sequence, at_ms, actor, action, subject, detail, hash FROM audit_log"
        " WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        *(after, limit),
    )
    return [
        (AuditRecord(**{k: row[k] for k in AuditRecord.__struct_fields__}), row["hash"])
        for row in rows
    ]
