"""What becomes of a note that came in: judged where the journal lives that it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.reconciler import hidden
from cloud.reconciler.evidence import suspend
from cloud.reconciler.stored import held_entry, held_leaf
from cloud.shards.messages import Fate
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Note
from wallet.protocol.messages import Order

Key = tuple[bytes, int, int]
"""Journal, epoch, index of a transfer-out."""


class Came(msgspec.Struct, frozen=True, kw_only=True):
    """Where a note came in. `shard`: None where that is this one."""

    journal: bytes
    epoch: int
    index: int
    note: Note
    shard: int | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A note that somebody tells of: going out of its journal, or coming into another one.

    `window_s`: the claims window of who tells; `home`: None where it left a journal of this shard.
    """

    key: Key
    leaf: bytes
    order: Order
    window_s: int | None
    came: Came | None = None
    home: int | None = None


async def insert(connection: Connection, rows: Sequence[Row]) -> set[Key]:
    """Insert what is new, in the order of keys, so that two journals wait and do not deadlock."""
    if not rows:
        return set()
    values = [_values(row) for row in sorted(rows, key=lambda row: row.key)]
    made = await connection.fetch(
        "INSERT INTO note SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[],"
        " $4::bytea[], $5::text[], $6::bytea[], $7::bytea[], $8::bigint[], $9::text[],"
        " $10::bigint[], $11::bigint[], $12::bytea[], $13::bigint[], $14::bigint[],"
        " $15::bytea[], $16::bytea[], $17::smallint[], $18::smallint[])"
        " ON CONFLICT DO NOTHING RETURNING journal, epoch, index",
        *[list(column) for column in zip(*values, strict=True)],
    )
    return {(row["journal"], row["epoch"], row["index"]) for row in made}


def _values(row: Row) -> tuple[Any, ...]:
    order, came, window = row.order, row.came, row.window_s
    out = (
        *row.key,
        row.leaf,
        "out" if came is None else "early",
        order.payer,
        order.payee_journal,
        order.amount_minor,
        order.currency,
        order.expires_ms,
        None if window is None else order.expires_ms + window * 1000,
    )
    if came is None:
        return (*out, None, None, None, None, None, None, None)
    place = (came.journal, came.epoch, came.index, came.note.entry, came.note.receipt)
    return (*out, *place, came.shard, row.home)


async def known_notes(connection: Connection, keys: Sequence[Key]) -> dict[Key, Any]:
    """Rows of notes, locked for this transaction."""
    if not keys:
        return {}
    rows = await connection.fetch(
        "SELECT * FROM note WHERE (journal, epoch, index) IN"
        " (SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[]))"
        " ORDER BY journal, epoch, index FOR UPDATE",
        *[list(column) for column in zip(*keys, strict=True)],
    )
    return {(row["journal"], row["epoch"], row["index"]): row for row in rows}


async def told_of(connection: Connection, keys: Sequence[Key]) -> Mapping[tuple[bytes, int], Any]:
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


async def judge(
    connection: Connection, anchor: TrustAnchor, row: Row, source: Any, known: Any, *, now_ms: int
) -> Fate:
    """The fate of a note that came in.

    `source`: what is known of its journal's epoch; `known`: of a note at that index. None of both
    where nothing is.
    """
    if known is None:
        fate = await _judge_unknown(connection, anchor, row, source, now_ms=now_ms)
    else:
        fate = await _judge_known(connection, anchor, row, known, now_ms=now_ms)
    return left_to_officers(row, source, fate)


def left_to_officers(row: Row, source: Any, fate: Fate) -> Fate:
    """What the issuer bears for a journal that was suspended or closed before is not final yet.

    So a gateway that goes on taking such notes comes to its own exposure bound. The entry for
    which a journal was suspended is one, and its payee is paid for good.
    """
    over = source is not None and source["state"] != "open" and source["applied"] != row.key[2]
    return Fate.HELD if fate is Fate.BORNE and over else fate


async def _judge_unknown(
    connection: Connection,
    anchor: TrustAnchor,
    row: Row,
    source: Any,
    *,
    now_ms: int,
) -> Fate:
    """A note whose parent is not known: early, unless its journal has told of that index."""
    if source is not None and source["stated_ms"] is not None and source["applied"] <= row.key[2]:
        # Late: its epoch was closed, and the statement says nothing of it.
        return await _bear(connection, row)
    if source is not None and source["size"] > row.key[2]:
        if await held_leaf(connection, source["epoch_id"], row.key[2]) != row.leaf:
            fate = await _bear_hidden(connection, row)
            await _convict_source(connection, anchor, row, source["epoch_id"], now_ms=now_ms)
            return fate
        if source["applied"] == row.key[2] and row.order.payer != row.order.payee:
            # The entry for which its journal was suspended.
            return await _bear(connection, row)
    return Fate.EARLY


async def _judge_known(
    connection: Connection, anchor: TrustAnchor, row: Row, known: Any, *, now_ms: int
) -> Fate:
    """A note that is known: redeemed now, or against the rules of one side."""
    assert row.came is not None  # the caller has looked
    if known["leaf"] != row.leaf:
        fate = await _bear_hidden(connection, row)
        epoch_id = await hidden.epoch_of(connection, row.key, now_ms=now_ms)
        await _convict_source(connection, anchor, row, epoch_id, known=known, now_ms=now_ms)
        return fate
    if known["state"] == "out":
        await connection.execute(
            "UPDATE note SET state = 'redeemed', in_journal = $4, in_epoch = $5, in_index = $6,"
            " in_shard = $7 WHERE journal = $1 AND epoch = $2 AND index = $3",
            *(*row.key, row.came.journal, row.came.epoch, row.came.index, row.came.shard),
        )
        return Fate.MATCHED
    if known["state"] == "returned":
        # It came back to the payer after the claims window, and the payee had redeemed it in time.
        return await _bear(connection, row)
    # Redeemed before, in an epoch that this one had to know about.
    return Fate.REPLAYED


async def _bear_hidden(connection: Connection, row: Row) -> Fate:
    """The payee of a note that its journal hides is paid, once."""
    assert row.came is not None  # the caller has looked
    place = (row.came.journal, row.came.epoch, row.came.index)
    borne = await hidden.set_aside(connection, row.key, row.leaf, arrived=place)
    return Fate.BORNE if borne else Fate.REPLAYED


async def _bear(connection: Connection, row: Row) -> Fate:
    """The payee kept to the policy: the issuer pays."""
    assert row.came is not None  # the caller has looked
    # Of two notes at one index, the other one keeps its own fate.
    await connection.execute(
        "UPDATE note SET state = 'compensated', in_journal = $5, in_epoch = $6, in_index = $7,"
        " in_shard = $8 WHERE journal = $1 AND epoch = $2 AND index = $3 AND leaf = $4",
        *(*row.key, row.leaf, row.came.journal, row.came.epoch, row.came.index, row.came.shard),
    )
    return Fate.BORNE


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
    assert row.came is not None  # the caller has looked
    if held is None:
        return
    note = row.came.note
    found = hidden.entry(anchor, (note.entry, note.receipt), held, index=row.key[2])
    await suspend(connection, epoch_id, found, now_ms=now_ms)
