"""Step 6: notes between journals. What comes in matches what went out, once, in either order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.errors import DatabaseError
from cloud.ledger.accounts import ensure_accounts, suspense
from cloud.ledger.posting import TransferKind
from cloud.reconciler import hidden
from cloud.reconciler.evidence import Evidence, suspend
from cloud.reconciler.postings import (
    Arrival,
    Batch,
    borne_note,
    early_note,
    note_identity,
    source_of_note,
)
from cloud.reconciler.settling import settle_entry
from cloud.reconciler.stored import held_entry, held_leaf
from cloud.reconciler.values import Segment
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Entry, EntryKind, Note, Payment
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import VerdictState
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import Order
from wallet.protocol.refusals import Code

_LEFT = int(EntryKind.TRANSFER_OUT)

Key = tuple[bytes, int, int]
"""Journal, epoch, index of a transfer-out."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A note that this segment tells of: going out of its journal, or coming into it."""

    key: Key
    leaf: bytes
    order: Order
    arrived: Entry | None = None


class Matched(msgspec.Struct, kw_only=True):
    """What the notes of a segment come to."""

    arrivals: dict[int, Arrival] = {}
    verdicts: dict[int, tuple[VerdictState, str]] = {}
    # Early notes of other journals that leave suspense now, and what they are paid from.
    resolved: list[tuple[Arrival, Any]] = []
    # What this journal is to be suspended for.
    convicted: list[Evidence] = []


async def match(
    connection: Connection,
    anchor: TrustAnchor,
    segment: Segment,
    *,
    now_ms: int,
) -> Matched:
    """Record the segment's notes and find what each one matches.

    Raises: DatabaseError `database-busy` when another journal told of the same note meanwhile.
    """
    matched = Matched()
    early = await _early(connection, segment)
    known = {
        index
        for index, row in early.items()
        if await _parent(connection, anchor, segment, index, row, matched)
    }
    rows = [row for row in _rows(segment) if row.arrived is not None or row.key[2] not in known]
    fresh = await _insert(connection, segment, rows)
    notes = await _known(connection, [row.key for row in rows if row.key not in fresh])
    told = await _told(connection, [row.key for row in rows if row.arrived is not None])
    for row in rows:
        if row.arrived is None:
            if row.key not in fresh:
                raise DatabaseError("database-busy", "a note arrived meanwhile")
            continue
        if row.key in fresh:
            await _unknown(connection, anchor, segment, row, told, matched, now_ms=now_ms)
        else:
            await _redeem(connection, anchor, segment, row, notes[row.key], matched, now_ms=now_ms)
        _leave_to_officers(row, told.get(row.key[:2]), matched)
    return matched


def _rows(segment: Segment) -> Iterable[Row]:
    place = (segment.journal, segment.epoch)
    for entry, decision in zip(segment.entries, segment.decisions, strict=True):
        body = entry.body
        if decision.kind == _LEFT and isinstance(body, Payment):
            leaf = segment.leaves[entry.index - segment.first]
            yield Row(key=(*place, entry.index), leaf=leaf, order=body.order)
        elif isinstance(body, Note):
            yield Row(
                key=decision.tables[0][1],
                leaf=leaf_hash(body.entry),
                order=body.order,
                arrived=entry,
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


async def _insert(connection: Connection, segment: Segment, rows: list[Row]) -> set[Key]:
    """Insert what is new, in the order of keys, so that two journals wait and do not deadlock."""
    if not rows:
        return set()
    ordered = sorted(rows, key=lambda row: row.key)
    values = [_values(segment, row) for row in ordered]
    made = await connection.fetch(
        "INSERT INTO note SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[],"
        " $4::bytea[], $5::text[], $6::bytea[], $7::bytea[], $8::bigint[], $9::text[],"
        " $10::bigint[], $11::bigint[], $12::bytea[], $13::bigint[], $14::bigint[],"
        " $15::bytea[], $16::bytea[]) ON CONFLICT DO NOTHING RETURNING journal, epoch, index",
        *[list(column) for column in zip(*values, strict=True)],
    )
    return {(row["journal"], row["epoch"], row["index"]) for row in made}


def _values(segment: Segment, row: Row) -> tuple[Any, ...]:
    order, arrived = row.order, row.arrived
    window = segment.claims_window_s
    out = (
        *row.key,
        row.leaf,
        "out" if arrived is None else "early",
        order.payer,
        order.payee_journal,
        order.amount_minor,
        order.currency,
        order.expires_ms,
        None if window is None else order.expires_ms + window * 1000,
    )
    if arrived is None or not isinstance(arrived.body, Note):
        return (*out, None, None, None, None, None)
    note = arrived.body
    return (*out, segment.journal, segment.epoch, arrived.index, note.entry, note.receipt)


async def _known(connection: Connection, keys: list[Key]) -> dict[Key, Any]:
    rows = await _at(connection, "note", "*", keys, lock=True)
    return {(row["journal"], row["epoch"], row["index"]): row for row in rows}


async def _at(
    connection: Connection, table: str, columns: str, keys: list[Key], *, lock: bool
) -> list[Any]:
    if not keys:
        return []
    rows: list[Any] = await connection.fetch(
        f"SELECT {columns} FROM {table}"
        " WHERE (journal, epoch, index) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]))"
        f" ORDER BY journal, epoch, index {'FOR UPDATE' if lock else ''}",
        *[list(column) for column in zip(*keys, strict=True)],
    )
    return rows


async def _told(connection: Connection, keys: list[Key]) -> dict[tuple[bytes, int], Any]:
    """What is known of the journals that the notes come from."""
    if not keys:
        return {}
    rows = await _told_rows(connection, [key[:2] for key in keys], "")
    over = [place for place, row in rows.items() if row["state"] != "open"]
    if over:
        # A closed epoch may get its statement just now: either this note is in it, or it comes
        # after it. Rows of open epochs are left alone: two journals may tell of each other's notes.
        rows |= await _told_rows(connection, over, "FOR SHARE")
    return rows


async def _told_rows(
    connection: Connection, places: Sequence[tuple[bytes, int]], locking: str
) -> dict[tuple[bytes, int], Any]:
    rows = await connection.fetch(
        "SELECT journal, epoch, epoch_id, state, size, applied, stated_ms FROM journal_epoch"
        " WHERE (journal, epoch) IN (SELECT * FROM unnest($1::bytea[], $2::bigint[]))"
        f" ORDER BY epoch_id {locking}",
        *[list(column) for column in zip(*places, strict=True)],
    )
    return {(row["journal"], row["epoch"]): row for row in rows}


async def _unknown(
    connection: Connection,
    anchor: TrustAnchor,
    segment: Segment,
    row: Row,
    told: Mapping[tuple[bytes, int], Any],
    matched: Matched,
    *,
    now_ms: int,
) -> None:
    """A note whose parent is not known: early, unless its journal has told of that index."""
    assert row.arrived is not None  # the caller has looked
    index, source = row.arrived.index, told.get(row.key[:2])
    if source is not None and source["stated_ms"] is not None and source["applied"] <= row.key[2]:
        # Late: its epoch was closed, and the statement says nothing of it.
        await _bear(connection, row, matched, segment.currency)
        return
    if source is not None and source["size"] > row.key[2]:
        if await held_leaf(connection, source["epoch_id"], row.key[2]) != row.leaf:
            await _bear_hidden(connection, segment, row, matched)
            await _convict_source(connection, anchor, row, source["epoch_id"], now_ms=now_ms)
            return
        if source["applied"] == row.key[2] and row.order.payer != row.order.payee:
            # The entry for which its journal was suspended.
            await _bear(connection, row, matched, segment.currency)
            return
    matched.arrivals[index] = early_note(segment)
    matched.verdicts[index] = (VerdictState.PENDING, Code.PARENT_MISSING)


async def _redeem(
    connection: Connection,
    anchor: TrustAnchor,
    segment: Segment,
    row: Row,
    known: Any,
    matched: Matched,
    *,
    now_ms: int,
) -> None:
    """A note that is known: redeemed now, or against the rules of one side."""
    assert row.arrived is not None  # the caller has looked
    index = row.arrived.index
    if known["leaf"] != row.leaf:
        await _bear_hidden(connection, segment, row, matched)
        epoch_id = await hidden.epoch_of(connection, row.key, now_ms=now_ms)
        await _convict_source(connection, anchor, row, epoch_id, known=known, now_ms=now_ms)
    elif known["state"] == "out":
        await connection.execute(
            "UPDATE note SET state = 'redeemed', in_journal = $4, in_epoch = $5, in_index = $6"
            " WHERE journal = $1 AND epoch = $2 AND index = $3",
            *(*row.key, segment.journal, segment.epoch, index),
        )
        matched.arrivals[index] = source_of_note(row.key[0], segment.currency)
    elif known["state"] == "returned":
        # It came back to the payer after the claims window, and the payee had redeemed it in time.
        await _bear(connection, row, matched, segment.currency)
    else:
        _refuse_replayed(segment, row.arrived, matched)


def _leave_to_officers(row: Row, source: Any, matched: Matched) -> None:
    """What the issuer bears for a journal that was suspended or closed before is not final yet.

    So a gateway that goes on taking such notes comes to its own exposure bound. The entry for
    which a journal was suspended is one, and its payee is paid for good.
    """
    assert row.arrived is not None  # the caller has looked
    index = row.arrived.index
    borne = matched.arrivals[index].kind is TransferKind.COMPENSATION
    over = source is not None and source["state"] != "open" and source["applied"] != row.key[2]
    if borne and over and index not in matched.verdicts:
        matched.verdicts[index] = (VerdictState.HELD, Code.JOURNAL_REVOKED)


def _refuse_replayed(segment: Segment, arrived: Entry, matched: Matched) -> None:
    """Redeemed before, in an epoch that this one had to know about."""
    matched.arrivals[arrived.index] = borne_note(segment.currency)
    matched.verdicts[arrived.index] = (VerdictState.REJECTED, Code.NOTE_REDEEMED)
    matched.convicted.append(hidden.replay(segment, arrived))


async def _bear_hidden(
    connection: Connection, segment: Segment, row: Row, matched: Matched
) -> None:
    """The payee of a note that its journal hides is paid, once."""
    assert row.arrived is not None  # the caller has looked
    place = (segment.journal, segment.epoch, row.arrived.index)
    if await hidden.set_aside(connection, row.key, row.leaf, arrived=place):
        matched.arrivals[row.arrived.index] = borne_note(segment.currency)
    else:
        _refuse_replayed(segment, row.arrived, matched)


async def _bear(connection: Connection, row: Row, matched: Matched, currency: str) -> None:
    """The payee kept to the policy: the issuer pays."""
    assert row.arrived is not None  # the caller has looked
    await connection.execute(
        "UPDATE note SET state = 'compensated'"
        " WHERE journal = $1 AND epoch = $2 AND index = $3 AND leaf = $4",
        *(*row.key, row.leaf),
    )
    matched.arrivals[row.arrived.index] = borne_note(currency)


async def _convict_source(
    connection: Connection,
    anchor: TrustAnchor,
    row: Row,
    epoch_id: int,
    *,
    known: Any = None,
    now_ms: int,
) -> None:
    """The journal that a note's receipt names tells of another entry at that index.

    `known`: another note of that index, redeemed before its journal told. Where holders alone
    claimed the other entry, there is no receipt of it here any more.
    """
    held = await held_entry(connection, epoch_id, row.key[2])
    if held is None and known is not None and known["entry"] is not None:
        held = known["entry"], known["receipt"]
    assert row.arrived is not None  # the caller has looked
    if held is None:
        return
    note = row.arrived.body
    assert isinstance(note, Note)  # the caller has looked
    found = hidden.entry(anchor, (note.entry, note.receipt), held, index=row.key[2])
    await suspend(connection, epoch_id, found, now_ms=now_ms)


async def resolve(
    connection: Connection,
    place: tuple[bytes, int],
    resolved: Sequence[tuple[Arrival, Any]],
    batch: Batch,
    *,
    now_ms: int,
) -> None:
    """Take early notes out of suspense, and settle them where they came in.

    `place`: journal and epoch that they left; `resolved`: what each is paid from, and its row.
    """
    for source, row in resolved:
        waiting = suspense(journal_text(row["in_journal"]), currency=row["currency"])
        numbers = await ensure_accounts(connection, [source.account, waiting])
        borne = source.kind is TransferKind.COMPENSATION
        batch.add(
            note_identity(place[0], epoch=place[1], index=row["index"]),
            debit=numbers[source.account.name],
            credit=numbers[waiting.name],
            amount=row["amount"],
            kind=source.kind if borne else TransferKind.NOTE_MATCHED,
        )
        arrived = await connection.fetchval(
            "SELECT epoch_id FROM journal_epoch WHERE journal = $1 AND epoch = $2",
            *(row["in_journal"], row["in_epoch"]),
        )
        await settle_entry(connection, epoch_id=arrived, index=row["in_index"], now_ms=now_ms)
