"""Evidence against a journal, and its suspension."""

from __future__ import annotations

import hashlib

import msgspec

from cloud.database import Connection
from cloud.reconciler.outbox import tell
from cloud.shards.messages import Convicted, tell_head
from wallet.protocol.codec import encode
from wallet.protocol.ids import journal_text

# Of one kind and epoch: the first convicts, and nobody can fill the table with more of it.
ROWS_MAX = 64


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept. `kind`: fork, hidden-entry, violation, note-replayed, stale-lists, time-travel,
    attestation.
    """

    kind: str
    code: str
    index: int | None
    parts: tuple[bytes, ...]


async def is_convicted(connection: Connection, epoch_id: int, kind: str) -> bool:
    """Whether there is all the evidence of this kind that is kept: more need not be made."""
    found: int = await connection.fetchval(
        "SELECT count(*) FROM journal_evidence WHERE epoch_id = $1 AND kind = $2", epoch_id, kind
    )
    return found >= ROWS_MAX


async def suspend(
    connection: Connection, epoch_id: int, evidence: Evidence, *, now_ms: int
) -> None:
    """Keep the evidence, once, and suspend the journal; the first reason stays."""
    if not await is_convicted(connection, epoch_id, evidence.kind):
        made = await connection.fetchval(
            "INSERT INTO journal_evidence (epoch_id, kind, code, index, parts, found_ms, digest)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING true",
            *(epoch_id, evidence.kind, evidence.code, evidence.index, list(evidence.parts)),
            *(now_ms, hashlib.sha256(encode(list(evidence.parts))).digest()),
        )
        if made:
            await _tell_head(connection, epoch_id, evidence, now_ms=now_ms)
    row = await connection.fetchrow(
        "UPDATE journal_epoch SET state = 'suspended', reason = $2, changed_ms = $3"
        " WHERE epoch_id = $1 AND state <> 'suspended' RETURNING journal, epoch",
        *(epoch_id, evidence.code, now_ms),
    )
    if row is not None:
        body = {
            "journal": journal_text(row["journal"]),
            "epoch": row["epoch"],
            "kind": evidence.kind,
            "code": evidence.code,
        }
        await tell(connection, "journal.suspended", body, now_ms=now_ms)


async def _tell_head(
    connection: Connection, epoch_id: int, evidence: Evidence, *, now_ms: int
) -> None:
    """The head signs the lists by which everybody hears of it."""
    row = await connection.fetchrow(
        "SELECT journal, epoch FROM journal_epoch WHERE epoch_id = $1", epoch_id
    )
    message = Convicted(
        journal=row["journal"], epoch=row["epoch"], evidence=evidence.kind, code=evidence.code
    )
    await tell_head(connection, message, now_ms=now_ms)
