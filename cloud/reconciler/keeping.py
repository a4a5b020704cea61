"""Steps 5 to 9 on a segment that is sound, and the writing of all that follows from it."""

from __future__ import annotations

from typing import Any

from cloud.database import Connection
from cloud.reconciler import clocks, collected, notes, violations
from cloud.reconciler.applying import apply_entries
from cloud.reconciler.compliance import Compliance
from cloud.reconciler.context import Facts, IssuerContext
from cloud.reconciler.crossing import crossing
from cloud.reconciler.evidence import suspend
from cloud.reconciler.outbox import tell
from cloud.reconciler.postings import collect
from cloud.reconciler.reading import Reading
from cloud.reconciler.replica import Replica
from cloud.reconciler.restored import take_grants
from cloud.reconciler.segment import New
from cloud.reconciler.settling import add_verdicts
from cloud.reconciler.values import Segment, Violation
from cloud.shards.homes import Here
from cloud.shards.messages import send
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import EntryKind
from wallet.protocol.envelope import Up
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import VerdictState
from wallet.protocol.keys import PublicKey
from wallet.protocol.policy import JournalLimit

_SETTLEMENT = int(EntryKind.SETTLEMENT)
_PENDING = (VerdictState.PENDING, "")


def apply_segment(
    anchor: TrustAnchor,
    replica: Replica,
    new: New,
    reading: Reading,
    up: Up,
    *,
    facts: Facts,
    trusted: dict[int, PublicKey],
) -> Segment:
    """5. The rules on the replica of the state, which is changed: if the segment is not stored
    after all, the replica has to be thrown away.
    """
    entries, leaves = reading.entries[new.skipped :], reading.leaves[new.skipped :]
    context = IssuerContext(anchor, facts, trusted=trusted)
    outcome = apply_entries(replica.state, entries, leaves, context, facts)
    accepted = len(outcome.decisions)
    first = up.acknowledged_size + new.skipped
    refusal, violation = outcome.refusal, None
    if refusal is not None:
        violation = Violation(
            index=first + accepted,
            code=refusal.code,
            detail=refusal.detail,
            entry=entries[accepted],
        )
    elif reading.problem is not None:
        violation = Violation(index=first + accepted, code=reading.problem, detail="", entry=None)
    peaks = b"".join(replica.frontier.peaks)
    replica.frontier, replica.size = new.frontier, reading.checkpoint.size
    replica.counter = reading.checkpoint.counter
    state = replica.state
    return Segment(
        epoch_id=replica.epoch_id,
        journal=state.journal,
        epoch=state.epoch,
        currency=state.currency,
        first=first,
        raws=reading.raws[new.skipped :],
        leaves=leaves,
        entries=entries[:accepted],
        decisions=outcome.decisions,
        checkpoint=reading.checkpoint,
        checkpoint_raw=up.checkpoint,
        claims_window_s=state.journal_limit(JournalLimit.CLAIMS_WINDOW_S),
        peaks=peaks,
        violation=violation,
        snapshot=_snapshot(replica),
    )


def _snapshot(replica: Replica) -> bytes | None:
    """To shorten the next start, now and then; a state that stopped early is not worth one."""
    whole = replica.state.size == replica.size
    return replica.snapshot() if whole and replica.snapshot_due else None


async def keep(
    connection: Connection,
    segment: Segment,
    *,
    anchor: TrustAnchor,
    compliance: Compliance,
    replica: Replica,
    here: Here,
    now_ms: int,
) -> bool:
    """Post and store a segment. Answers whether there is something to settle.

    Raises: LedgerError, DatabaseError.
    """
    await replica.open_accounts(connection)
    await _post(connection, anchor, compliance, replica, segment, here, now_ms=now_ms)
    await _store(connection, segment, now_ms=now_ms)
    await clocks.watch(connection, segment, now_ms=now_ms)
    # 7. Receipts that others handed in are in this journal.
    await collected.check_own(connection, anchor, segment, now_ms=now_ms)
    if replica.state.closed:
        await collected.check_end(connection, anchor, segment, now_ms=now_ms)
    return segment.violation is not None or any(
        decision.kind != _SETTLEMENT for decision in segment.decisions
    )


async def _post(
    connection: Connection,
    anchor: TrustAnchor,
    compliance: Compliance,
    replica: Replica,
    segment: Segment,
    here: Here,
    *,
    now_ms: int,
) -> None:
    # 6. Notes.
    matched = await notes.match(connection, anchor, segment, here, now_ms=now_ms)
    messages = [*matched.messages, *crossing(segment, here)]
    # 8. Compliance.
    for index, code in (await compliance.review(connection, segment)).items():
        # Of a note whose parent is missing, a person decides all the same.
        if matched.verdicts.get(index, _PENDING)[0] is VerdictState.PENDING:
            matched.verdicts[index] = (VerdictState.HELD, code)
    # 9. Conservation: every entry moves what it moves from one account to another.
    batch = await collect(
        connection, segment, replica.accounts, matched.arrivals, here, now_ms=now_ms
    )
    source = (segment.journal, segment.epoch)
    messages += await notes.resolve(connection, source, matched.resolved, batch, now_ms=now_ms)
    if segment.violation is not None:
        state, violation = replica.state, segment.violation
        matched.verdicts |= violations.verdicts(segment, violation)
        matched.convicted.append(violations.evidence_of(state, segment, violation))
        messages += await violations.compensate(
            connection, state, segment, violation, batch, here, now_ms=now_ms
        )
    if here.is_head:
        await take_grants(connection, segment, batch, now_ms=now_ms)
    if batch.identities:
        await batch.post(connection, currency=segment.currency, now_ms=now_ms)
    await add_verdicts(connection, segment.epoch_id, matched.verdicts, now_ms=now_ms)
    for found in matched.convicted:
        await suspend(connection, segment.epoch_id, found, now_ms=now_ms)
    await send(connection, here.number, messages, now_ms=now_ms)


async def _store(connection: Connection, segment: Segment, *, now_ms: int) -> None:
    await connection.execute(
        "INSERT INTO journal_segment (epoch_id, first, size, entries, leaves, checkpoint,"
        " received_ms, peaks) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        segment.epoch_id,
        segment.first,
        segment.size,
        list(segment.raws),
        b"".join(segment.leaves),
        segment.checkpoint_raw,
        now_ms,
        segment.peaks,
    )
    await connection.execute(
        "UPDATE journal_epoch SET size = $2, applied = $3, root = $4, counter = $5,"
        " checkpoint = $6, currency = nullif($7, ''), changed_ms = $8 WHERE epoch_id = $1",
        segment.epoch_id,
        segment.size,
        segment.first + len(segment.decisions),
        segment.checkpoint.root,
        segment.checkpoint.counter,
        segment.checkpoint_raw,
        segment.currency,
        now_ms,
    )
    if segment.snapshot is not None:
        await connection.execute(
            "INSERT INTO journal_snapshot VALUES ($1, $2, $3)"
            " ON CONFLICT (epoch_id) DO UPDATE SET size = $2, snapshot = $3",
            *(segment.epoch_id, segment.size, segment.snapshot),
        )
    body: dict[str, Any] = {
        "journal": journal_text(segment.journal),
        "epoch": segment.epoch,
        "first": segment.first,
        "size": segment.size,
    }
    await tell(connection, "journal.reconciled", body, now_ms=now_ms)
