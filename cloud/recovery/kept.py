"""What a journal's home, where it is not the head, keeps of decisions about its epochs.

The home's transaction ends first, so that its word is what counts: whatever is done next about the
closure begins by letting the head know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.shards.homes import Site

Place = tuple[bytes, int]
"""Journal and epoch."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An epoch that is over there, by which closure and officer."""

    closure_id: bytes
    decided_by: str
    claims_until_ms: int
    window_s: int


class Stated(msgspec.Struct, frozen=True, kw_only=True):
    """An epoch whose statement was posted there; fields as in `StatementDraft`."""

    statement_id: bytes
    hosted: str
    outcome: bytes
    carried: int
    paid_out: int
    taken_back: int
    borne: int
    counted: int
    refused: int
    decided_by: str
    object: bytes


async def ended(site: Site, place: Place) -> Ended | None:
    """How the epoch ended there; None at the head, which knows it by itself."""
    row = await _row(site, "ended_epoch", Ended, place)
    return None if row is None else Ended(**dict(row))


async def stated(site: Site, place: Place) -> Stated | None:
    """The statement that was posted there; None at the head, which knows it by itself."""
    row = await _row(site, "stated_epoch", Stated, place)
    return None if row is None else Stated(**dict(row))


async def _row(site: Site, table: str, kind: type[msgspec.Struct], place: Place) -> Any:
    if site.here.is_head:
        return None
    # Whoever asks waits for those who are about to keep it, even if nobody has a transaction at
    # the head any more.
    await site.home.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 8))", place[0].hex())
    columns = ", ".join(kind.__struct_fields__)
    return await site.home.fetchrow(
        f"SELECT {columns} FROM {table} WHERE journal = $1 AND epoch = $2", *place
    )


async def keep_ended(site: Site, place: Place, made: Ended) -> None:
    """Keep it where the journal lives; nothing at the head."""
    if not site.here.is_head:
        await site.home.execute(
            "INSERT INTO ended_epoch VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (journal, epoch)"
            " DO UPDATE SET closure_id = excluded.closure_id, decided_by = excluded.decided_by",
            *(*place, *msgspec.structs.astuple(made)),
        )


async def keep_stated(site: Site, place: Place, made: Stated) -> None:
    """Keep it where the journal lives; nothing at the head."""
    if not site.here.is_head:
        values = msgspec.structs.astuple(made)
        places = ", ".join(f"${number}" for number in range(1, len(values) + 3))
        await site.home.execute(f"INSERT INTO stated_epoch VALUES ({places})", *place, *values)


async def not_ended(connection: Connection, places: Sequence[Place]) -> set[Place]:
    """Those that a journal's home does not know to be over."""
    return await _lacking(connection, "ended_epoch", places)


async def not_stated(connection: Connection, places: Sequence[Place]) -> set[Place]:
    """Those that a journal's home has no statement of."""
    return await _lacking(connection, "stated_epoch", places)


async def _lacking(connection: Connection, table: str, places: Sequence[Place]) -> set[Place]:
    rows = await connection.fetch(
        "SELECT journal, epoch FROM unnest($1::bytea[], $2::bigint[]) AS asked (journal, epoch)"
        f" WHERE NOT EXISTS (SELECT FROM {table} AS made"
        "  WHERE (made.journal, made.epoch) = (asked.journal, asked.epoch))",
        *([list(column) for column in zip(*places, strict=True)] or [[], []]),
    )
    return {(row["journal"], row["epoch"]) for row in rows}
