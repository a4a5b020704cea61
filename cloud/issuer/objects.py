"""What the issuer signs for all gateways: series of numbered objects, kept for ever."""

from __future__ import annotations

import msgspec

from cloud.database import Connection

KEYS = "keys"


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """One signed object of a series; `is_full`: it stands without those before it."""

    sequence: int
    object: bytes
    is_full: bool
    issued_ms: int


def policy_series(currency: str) -> str:
    """The series of a currency's policies."""
    return f"policy/{currency}"


def list_series(list_id: int) -> str:
    """The series of a list."""
    return f"list/{list_id}"


async def lock_series(connection: Connection, series: str) -> None:
    """Let others that publish in this series wait until this transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 5))", series)


async def newest(connection: Connection, series: str) -> StoredObject | None:
    """The object in force."""
    row = await connection.fetchrow(
        "SELECT sequence, object, is_full, issued_ms FROM issued_object WHERE series = $1"
        " ORDER BY sequence DESC LIMIT 1",
        series,
    )
    return None if row is None else StoredObject(**dict(row))


async def whole(connection: Connection, series: str) -> list[bytes]:
    """Every object of a series, the oldest first."""
    rows = await connection.fetch(
        "SELECT object FROM issued_object WHERE series = $1 ORDER BY sequence", series
    )
    return [row["object"] for row in rows]


async def publish(connection: Connection, series: str, stored: StoredObject) -> None:
    """Add the next object; the caller holds the series' lock."""
    await connection.execute(
        "INSERT INTO issued_object (series, sequence, object, is_full, issued_ms)"
        " VALUES ($1, $2, $3, $4, $5)",
        *(series, stored.sequence, stored.object, stored.is_full, stored.issued_ms),
    )


async def newer_than(
    connection: Connection, series: str, sequence: int | None
) -> list[StoredObject]:
    """What somebody lacks who holds that sequence, or nothing: oldest first.

    It begins with the newest full object where that is newer than what is held.
    """
    held = -1 if sequence is None else sequence
    rows = await connection.fetch(
        "SELECT sequence, object, is_full, issued_ms FROM issued_object"
        " WHERE series = $1 AND sequence > $2 AND sequence >= coalesce((SELECT max(sequence)"
        "  FROM issued_object WHERE series = $1 AND is_full AND sequence > $2), 0)"
        " ORDER BY sequence",
        *(series, held),
    )
    return [StoredObject(**dict(row)) for row in rows]


async def first_newer(
    connection: Connection, series: str, sequence: int | None, *, bytes_max: int
) -> tuple[list[bytes], int]:
    """The first of what `newer_than` gives, and the bytes of the rest.

    One at least, however large it is; no more than begin within `bytes_max`.
    """
    held = -1 if sequence is None else sequence
    rows = await connection.fetch(
        "WITH newer AS (SELECT sequence, octet_length(object) AS bytes FROM issued_object"
        "  WHERE series = $1 AND sequence > $2 AND sequence >= coalesce((SELECT max(sequence)"
        "   FROM issued_object WHERE series = $1 AND is_full AND sequence > $2), 0)),"
        " counted AS (SELECT sequence, bytes, sum(bytes) OVER (ORDER BY sequence) AS reached,"
        "  sum(bytes) OVER () AS total FROM newer)"
        " SELECT object, reached, total FROM counted JOIN issued_object USING (sequence)"
        " WHERE series = $1 AND reached - bytes < $3 ORDER BY sequence",
        *(series, held, max(1, bytes_max)),
    )
    left = int(rows[-1]["total"] - rows[-1]["reached"]) if rows else 0
    return [row["object"] for row in rows], left
