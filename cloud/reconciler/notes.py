"""Step 6: notes between journals. What comes in matches what went out, once, in either order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.errors import DatabaseError
from cloud.ledger.accounts import between, ensure_accounts, suspense
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.reconciler import hidden, redemption
from cloud.reconciler.evidence import Evidence
from cloud.reconciler.postings import (
    Arrival,
    Batch,
    borne_note,
    early_note,
    note_identity,
    source_of_note,
)
from cloud.reconciler.redemption import Came, Row
from cloud.reconciler.settling import settle_entry
from cloud.reconciler.values import Segment
from cloud.shards.homes import Here
from cloud.shards.messages import Addressed, Fate, Judged, Redeemed
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import EntryKind, Note, Payment
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import VerdictState
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.refusals import Code

_LEFT = int(EntryKind.TRANSFER_OUT)


class Matched(msgspec.Struct, kw_only=True):
    """What the notes of a segment come to."""

    arrivals: dict[int, Arrival] = {}
    verdicts: dict[int, tuple[VerdictState, str]] = {}
    # Early notes of other journals that leave suspense now, and what they are paid from.
    resolved: list[tuple[Arrival, Any]] = []
    # What this journal is to be suspended for.
    convicted: list[Evidence] = []
    # What other shards have to know.
    messages: list[Addressed] = []


async def match(
    connection: Connection, anchor: TrustAnchor, segment: Segment, here: Here, *, now_ms: int
) -> Matched:
    """Record the segment's notes and find what each one matches.

    Raises: DatabaseError `database-busy` when another journal told of the same note meanwhile.
    """
    matched = Matched()
    early = await _early(connection, segment)
    found = {
        index
        for index, row in early.items()
        if await _parent(connection, anchor, segment, index, row, matched)
    }
    rows = [row for row in _rows(segment, here) if row.came is not None or row.key[2] not in found]
    fresh = await redemption.insert(connection, rows)
    known = await redemption.known_notes(
        connection, [row.key for row in rows if row.key not in fresh]
    )
    arrived = [row.key for row in rows if row.came is not None and row.home is None]
    told = await redemption.told_of(connection, arrived)
    for row in rows:
        if row.came is None:
            if row.key not in fresh:
                raise DatabaseError("database-busy", "a note arrived meanwhile")
        elif row.home is not None:
            fate = _judge_elsewhere(row, row.home, known.get(row.key), matched)
            _enter(segment, row.came, fate, matched)
        else:
            source = told.get(row.key[:2])
            fate = await redemption.judge(
                connection, anchor, row, source, known.get(row.key), now_ms=now_ms
            )
            _enter(segment, row.came, fate, matched)
    return matched


def _rows(segment: Segment, here: Here) -> Iterable[Row]:
    place = (segment.journal, segment.epoch)
    for entry, decision in zip(segment.entries, segment.decisions, strict=True):
        body, window_s = entry.body, segment.claims_window_s
        if decision.kind == _LEFT and isinstance(body, Payment):
            leaf = segment.leaves[entry.index - segment.first]
            yield Row(key=(*place, entry.index), leaf=leaf, order=body.order, window_s=window_s)
        elif isinstance(body, Note):
            key = decision.tables[0][1]
            yield Row(
                key=key,
                leaf=leaf_hash(body.entry),
                order=body.order,
                window_s=window_s,
                came=Came(journal=place[0], epoch=place[1], index=entry.index, note=body),
                home=None if here.has(key[0]) else here.homes.of(key[0]),
            )


def _judge_elsewhere(row: Row, home: int, known: Any, matched: Matched) -> Fate:
    """A note of a journal of another shard. Whether it came in before is known here, for no other
    journal can redeem it; all else is judged there, and the payee waits.
    """
    if known is not None and known["leaf"] == row.leaf:
        return Fate.REPLAYED
    matched.messages.append(told_elsewhere(row, home))
    return Fate.EARLY


def told_elsewhere(row: Row, home: int) -> Addressed:
    """Tell the shard of a note's journal that it came in here."""
    assert row.came is not None  # the caller has looked
    message = Redeemed(
        entry=row.came.note.entry,
        receipt=row.came.note.receipt,
        journal=row.came.journal,
        epoch=row.came.epoch,
        index=row.came.index,
        window_s=row.window_s,
    )
    return Addressed(target=home, message=message)


def _enter(segment: Segment, came: Came, fate: Fate, matched: Matched) -> None:
    """What a note's fate means for its entry in this segment."""
    match fate:
        case Fate.MATCHED:
            source = came.note.order.payer_journal
            matched.arrivals[came.index] = source_of_note(source, segment.currency)
        case Fate.EARLY:
            matched.arrivals[came.index] = early_note(segment)
            matched.verdicts[came.index] = (VerdictState.PENDING, Code.PARENT_MISSING)
        case Fate.BORNE:
            matched.arrivals[came.index] = borne_note(segment.currency)
        case Fate.HELD:
            matched.arrivals[came.index] = borne_note(segment.currency)
            matched.verdicts[came.index] = (VerdictState.HELD, Code.JOURNAL_REVOKED)
        case Fate.REPLAYED:
            matched.arrivals[came.index] = borne_note(segment.currency)
            matched.verdicts[came.index] = (VerdictState.REJECTED, Code.NOTE_REDEEMED)
            raw = segment.raws[came.index - segment.first]
            matched.convicted.append(replayed(came.index, raw, segment.checkpoint_raw))


def replayed(index: int, raw: bytes, checkpoint: bytes) -> Evidence:
    """Evidence against a journal that redeems a note again."""
    return Evidence(
        kind="note-replayed", code=Code.NOTE_REDEEMED, index=index, parts=(raw, checkpoint)
    )


async def _early(connection: Connection, segment: Segment) -> dict[int, Any]:
    rows = await connection.fetch(
        "SELECT * FROM note WHERE journal = $1 AND epoch = $2 AND state = 'early'"
        " AND index >= $3 AND index < $4 FOR UPDATE",
        *(segment.journal, segment.epoch, segment.first, segment.size),
    )
    return {row["index"]: row for row in rows}


async def _parent(
    connection: Connection,
    anchor: TrustAnchor,
    segment: Segment,
    index: int,
    row: Any,
    matched: Matched,
) -> bool:
    """A note was redeemed before its parent came. Is this the parent, or another entry?"""
    place, source = index - segment.first, (segment.journal, segment.epoch)
    if segment.leaves[place] != row["leaf"]:
        # The receipt says what the journal does not: it hides an entry, or has forked. The payee
        # kept to the policy and is paid.
        held = segment.raws[place], await hidden.receipt_here(connection, segment, index)
        matched.convicted.append(
            hidden.entry(anchor, (row["entry"], row["receipt"]), held, index=index)
        )
        arrived = (row["in_journal"], row["in_epoch"], row["in_index"])
        await hidden.set_aside(connection, (*source, index), row["leaf"], arrived=arrived)
        matched.resolved.append((borne_note(row["currency"]), row))
        return False
    if place < len(segment.entries):
        await hidden.set_resolved(connection, source, index, "redeemed")
        matched.resolved.append((source_of_note(segment.journal, row["currency"]), row))
    elif place == len(segment.entries) and not hidden.comes_home(row["entry"], row["receipt"]):
        # It should not have left. What follows it waits for a person, with the journal.
        await hidden.set_resolved(connection, source, index, "compensated")
        matched.resolved.append((borne_note(row["currency"]), row))
    return True


async def resolve(
    connection: Connection,
    place: tuple[bytes, int],
    resolved: Sequence[tuple[Arrival, Any]],
    batch: Batch,
    *,
    now_ms: int,
) -> list[Addressed]:
    """Take early notes out of suspense, and settle them where they came in.

    `place`: journal and epoch that they left; `resolved`: what each is paid from, and its row.
    Gives what other shards have to know, where they came in.
    """
    messages = []
    for source, row in resolved:
        borne = source.kind is TransferKind.COMPENSATION
        if row["in_shard"] is not None:
            messages.append(judged(row, Fate.BORNE if borne else Fate.MATCHED))
            if borne:
                continue
            waiting = between(row["in_shard"], journal_text(place[0]), currency=row["currency"])
        else:
            waiting = suspense(journal_text(row["in_journal"]), currency=row["currency"])
            await _settle(connection, row, now_ms=now_ms)
        numbers = await ensure_accounts(connection, [source.account, waiting])
        came = of_entry(row["in_journal"], epoch=row["in_epoch"], index=row["in_index"])
        matched = note_identity(place[0], epoch=place[1], index=row["index"])
        batch.add(
            # By the place where it came in: two notes of one index may both have to be borne.
            derived("note-borne", came) if borne else matched,
            debit=numbers[source.account.name],
            credit=numbers[waiting.name],
            amount=row["amount"],
            kind=source.kind if borne else TransferKind.NOTE_MATCHED,
        )
    return messages


def judged(row: Any, fate: Fate) -> Addressed:
    """Tell the shard where a note came in what becomes of it. `row`: of the note."""
    names = ("journal", "epoch", "index", "in_journal", "in_epoch", "in_index", "amount")
    message = Judged(fate=fate, currency=row["currency"], **{name: row[name] for name in names})
    return Addressed(target=row["in_shard"], message=message)


async def _settle(connection: Connection, row: Any, *, now_ms: int) -> None:
    arrived = await connection.fetchval(
        "SELECT epoch_id FROM journal_epoch WHERE journal = $1 AND epoch = $2",
        *(row["in_journal"], row["in_epoch"]),
    )
    await settle_entry(connection, epoch_id=arrived, index=row["in_index"], now_ms=now_ms)
