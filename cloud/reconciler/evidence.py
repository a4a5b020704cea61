"""Evidence against a journal, and its suspension."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.database import Connection
from cloud.reconciler.outbox import tell
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.checkpoint import assemble_receipt, decode_checkpoint
from wallet.protocol.fork import fork_counter, fork_index, fork_size, verify_fork
from wallet.protocol.ids import journal_text
from wallet.protocol.merkle import Batch, Frontier, inclusion_path
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.trust import ENDLESS_S

_LEAF_BYTES = 32


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept. `kind`: fork, violation, hidden-entry, attestation."""

    kind: str
    code: str
    index: int | None
    parts: tuple[bytes, ...]


async def suspend(
    connection: Connection, epoch_id: int, evidence: Evidence, *, now_ms: int
) -> None:
    """Keep the evidence and suspend the journal; the first reason stays."""
    await connection.execute(
        "INSERT INTO journal_evidence (epoch_id, kind, code, index, parts, found_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        epoch_id,
        evidence.kind,
        evidence.code,
        evidence.index,
        list(evidence.parts),
        now_ms,
    )
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


def of_size(known: bytes, given: bytes) -> tuple[bytes, ...]:
    """Two roots at one size."""
    return (fork_size(known, given),)


def of_counter(known: bytes, given: bytes) -> tuple[bytes, ...]:
    """A counter that fell."""
    return (fork_counter(known, given),)


def of_index(
    anchor: TrustAnchor, one: tuple[bytes, bytes], other: tuple[bytes, bytes]
) -> tuple[bytes, ...]:
    """Two entries at one index, each with its receipt; the bare parts where they prove nothing."""
    proof = fork_index(one, other)
    try:
        verify_fork(proof, root=anchor, grace_s=ENDLESS_S)
    except ProtocolError:
        return (*one, *other)
    return (proof,)


def receipt_under(checkpoint: bytes, leaves: Sequence[bytes], index: int) -> bytes:
    """The receipt of an entry under a checkpoint; `leaves` are all that the checkpoint covers."""
    decoded = decode_checkpoint(checkpoint)

    def node(level: int, at: int) -> bytes:
        return Batch(Frontier(), leaves[at << level : (at + 1) << level]).root

    return assemble_receipt(
        decoded.protected,
        decoded.chain,
        size=decoded.head.size,
        index=index,
        path=inclusion_path(index, decoded.head.size, node),
        signature=decoded.signature,
    )


async def stored_leaves(connection: Connection, epoch_id: int, *, end: int) -> list[bytes]:
    """Leaf hashes of the entries below `end`."""
    rows = await connection.fetch(
        "SELECT leaves FROM journal_segment WHERE epoch_id = $1 AND first < $2 ORDER BY first",
        *(epoch_id, end),
    )
    joined = b"".join([row["leaves"] for row in rows])
    leaves = [joined[at : at + _LEAF_BYTES] for at in range(0, len(joined), _LEAF_BYTES)]
    return leaves[:end]


async def held_entry(
    connection: Connection, epoch_id: int, index: int
) -> tuple[bytes, bytes] | None:
    """(entry, receipt) of an entry that is held, or None."""
    row = await connection.fetchrow(
        "SELECT size, checkpoint, entries[$2 - first + 1] AS entry FROM journal_segment"
        " WHERE epoch_id = $1 AND first <= $2 AND size > $2",
        *(epoch_id, index),
    )
    if row is None:
        return None
    leaves = await stored_leaves(connection, epoch_id, end=row["size"])
    return row["entry"], receipt_under(row["checkpoint"], leaves, index)
