"""Proofs of evidence rows: self-contained, verified before they are given out, and then kept.

A violation is kept as the entry alone: its proof is made of the journal when somebody asks for it.
The shortest one that proves it is taken: the entry by itself, two entries, or the journal run again
from its first entry on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator

import msgspec

from cloud.database import Connection
from cloud.evidence.rows import EvidenceError, Row
from cloud.reconciler import collected, forks
from cloud.reconciler.facts import lists_named
from cloud.reconciler.stored import held_entry, stored_leaves
from wallet.protocol.breach import breach_entry, breach_pair, breach_replay
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import EntryKind, ListUpdate, Note, Payment, decode_entry
from wallet.protocol.evidence import EVIDENCE_BYTES_MAX, Proof, verify_evidence
from wallet.protocol.refusals import Code, ProtocolError

Transfer = tuple[bytes, bytes]
"""Entry and receipt."""
# An entry begins with a map of five and its kind.
_LIST_LEAD = bytes((0xA5, 0x01, EntryKind.LIST))
PIECE_BYTES = 512 * 1024


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A proof that is kept: what it proves, its size in bytes, its SHA-256."""

    proof: Proof
    size: int
    hash: bytes


async def proof_of(connection: Connection, anchor: TrustAnchor, row: Row, *, now_ms: int) -> Kept:
    """The proof of a row; it is made where it is not kept yet.

    Raises: EvidenceError `not-proven` where the row convinces nobody but the issuer, `too-large`.
    """
    stored: bytes | None = await connection.fetchval(
        "SELECT proof FROM evidence_proof WHERE evidence_id = $1", row.evidence_id
    )
    if stored is not None:
        try:
            proof = await asyncio.to_thread(verify_evidence, stored, root=anchor)
        except ProtocolError as error:
            raise EvidenceError("not-proven", "what is kept of it is damaged") from error
        return Kept(proof=proof, size=len(stored), hash=hashlib.sha256(stored).digest())
    async for made in _candidates(connection, anchor, row):
        try:
            proof = await asyncio.to_thread(verify_evidence, made, root=anchor)
        except ProtocolError:
            continue
        digest = hashlib.sha256(made).digest()
        await connection.execute(
            "INSERT INTO evidence_proof VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            *(row.evidence_id, made, digest, now_ms),
        )
        return Kept(proof=proof, size=len(made), hash=digest)
    raise EvidenceError("not-proven", "this evidence convinces nobody but the issuer")


async def piece_of(connection: Connection, row: Row, *, offset: int) -> bytes:
    """A part of a proof that is kept; empty behind its end.

    Raises: EvidenceError `not-proven` before `proof_of` has made it.
    """
    found: bytes | None = await connection.fetchval(
        "SELECT substring(proof FROM $2 FOR $3) FROM evidence_proof WHERE evidence_id = $1",
        *(row.evidence_id, min(offset, EVIDENCE_BYTES_MAX) + 1, PIECE_BYTES),
    )
    if found is None:
        raise EvidenceError("not-proven", "it was not made yet")
    return found


async def _candidates(
    connection: Connection, anchor: TrustAnchor, row: Row
) -> AsyncIterator[bytes]:
    """What may prove the row, the shortest first."""
    if len(row.parts) == 1:
        yield row.parts[0]
    if row.index is None:
        return
    held = await held_entry(connection, row.epoch_id, row.index)
    if held is None or held[0] != row.parts[0]:
        return
    yield breach_entry(held)
    other = await _other(connection, anchor, row, held)
    if other is not None:
        yield breach_pair(other, held)
    yield await _replay(connection, row, row.index)


async def _other(
    connection: Connection, anchor: TrustAnchor, row: Row, held: Transfer
) -> Transfer | None:
    """The entry before with which the convicted one cannot be right, where one is known."""
    try:
        body = decode_entry(held[0]).body
    except ProtocolError:
        return None
    if isinstance(body, Note):
        return await _redeemed_before(connection, anchor, (body.entry, body.receipt))
    if isinstance(body, Payment) and row.code == Code.SEQUENCE_USED:
        return await _used_before(connection, row, body)
    if row.index:
        return await held_entry(connection, row.epoch_id, row.index - 1)
    return None


async def _redeemed_before(
    connection: Connection, anchor: TrustAnchor, note: Transfer
) -> Transfer | None:
    source = collected.received(anchor, note)
    if source is None:
        return None
    said = source.verified
    place = await connection.fetchrow(
        "WITH come AS (SELECT journal, epoch, index, leaf, in_journal, in_epoch, in_index FROM note"
        "  UNION ALL SELECT * FROM hidden_note)"
        " SELECT epoch_id, in_index FROM come JOIN journal_epoch"
        " ON (journal_epoch.journal, journal_epoch.epoch) = (in_journal, in_epoch)"
        " WHERE (come.journal, come.epoch, come.index, come.leaf) = ($1, $2, $3, $4)",
        *(said.journal, said.epoch, said.index, said.leaf),
    )
    return None if place is None else await held_entry(connection, *place)


async def _used_before(connection: Connection, row: Row, payment: Payment) -> Transfer | None:
    """The entry that used the sequence first."""
    order = payment.order
    rows = await connection.fetch(
        "SELECT index, entry FROM journal_entry WHERE epoch_id = $1 AND index < $2"
        " AND position($3::bytea IN entry) > 0 ORDER BY index",
        *(row.epoch_id, row.index, order.payer),
    )
    for candidate in rows:
        body = decode_entry(candidate["entry"]).body
        if isinstance(body, Payment):
            known = body.order
            if (known.payer, known.sequence) == (order.payer, order.sequence):
                return await held_entry(connection, row.epoch_id, candidate["index"])
    return None


async def _replay(connection: Connection, row: Row, index: int) -> bytes:
    """All entries up to the convicted one, under the checkpoint of its segment.

    Raises: EvidenceError `too-large`.
    """
    size = await connection.fetchval(
        "SELECT sum(octet_length(part)) FROM journal_segment, LATERAL unnest(entries) AS part"
        " WHERE epoch_id = $1 AND first <= $2",
        *(row.epoch_id, index),
    )
    if size > EVIDENCE_BYTES_MAX:
        raise EvidenceError("too-large", f"{size} bytes of entries")
    segments = await connection.fetch(
        "SELECT size, entries, checkpoint FROM journal_segment"
        " WHERE epoch_id = $1 AND first <= $2 ORDER BY first",
        *(row.epoch_id, index),
    )
    raws = [raw for segment in segments for raw in segment["entries"]][: index + 1]
    last = segments[-1]
    leaves = await stored_leaves(connection, row.epoch_id, end=last["size"])
    return breach_replay(
        last["checkpoint"],
        raws,
        rest=forks.nodes(leaves, index + 1, last["size"]),
        lists=await _lists(connection, raws),
    )


async def _lists(connection: Connection, raws: list[bytes]) -> list[bytes]:
    named = [decode_entry(raw).body for raw in raws if raw.startswith(_LIST_LEAD)]
    updates = [body for body in named if isinstance(body, ListUpdate)]
    known = await lists_named(connection, updates)
    return [known[update.hash].signed.raw for update in updates if update.hash in known]
