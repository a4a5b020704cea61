"""What shards have still to hear of each other before something is final."""

from __future__ import annotations

from cloud.database import Connection
from cloud.errors import DatabaseError
from cloud.log import Log
from cloud.shards.messages import HEAD
from cloud.shards.shards import Shards

# Whoever writes a message has a clock of their own.
SKEW_MS = 60_000
_log = Log("shards")


async def arrivals_known_until(
    shards: Shards, connection: Connection, number: int, *, now_ms: int
) -> int:
    """Until when a shard knows of all notes of its journals that came in elsewhere.

    A note that is due later does not go back to its payer, and no epoch whose claims window ended
    later gets its statement. Of a shard that is away nobody knows: that is 0. `connection`: at the
    head.
    """
    until_ms = now_ms
    try:
        for source, _ in shards:
            if source != number:
                oldest = await _oldest_arrival(shards, connection, source, number)
                until_ms = until_ms if oldest is None else min(until_ms, oldest - 1)
    except DatabaseError as error:
        _log.warning("arrivals.unknown", shard=number, code=error.code)
        return 0
    return until_ms


async def _oldest_arrival(
    shards: Shards, connection: Connection, source: int, number: int
) -> int | None:
    """Since when one shard has something to tell another of a note that came in."""
    async with shards.beside(connection, source) as there:
        found: int | None = await there.fetchval(
            "SELECT min(created_ms) FROM shard_message WHERE target = $1"
            " AND taken_ms IS NULL AND kind = 'redeemed'",
            number,
        )
    return found


async def has_told_of_grants(
    shards: Shards, connection: Connection, number: int, *, by_ms: int
) -> bool:
    """Does the head know of all grants that journals of a shard had entered by then?

    What the head takes for outstanding would else count twice. `connection`: at the head.
    Raises: DatabaseError.
    """
    if number == HEAD:
        return True
    async with shards.beside(connection, number) as there:
        found: bool = await there.fetchval(
            "SELECT NOT EXISTS (SELECT FROM shard_message WHERE target = $1"
            " AND taken_ms IS NULL AND kind = 'funded' AND created_ms <= $2)",
            *(HEAD, by_ms + SKEW_MS),
        )
    return found
