"""What shards have still to hear of each other before something is final."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from cloud.database import Connection
from cloud.errors import DatabaseError
from cloud.log import Log
from cloud.shards.homes import Site
from cloud.shards.messages import HEAD, Funded, GrantClaimed, decode_message
from cloud.shards.shards import Shards

# Whoever writes a message has a clock of their own.
SKEW_MS = 60_000
# Messages about grants that are read at a time: more than these, and nobody knows.
GRANTS_MAX = 10_000
ARRIVALS = ("redeemed",)
CLAIMS = ("redeemed", "collected")
_log = Log("shards")


async def heard_until(
    shards: Shards,
    connection: Connection,
    number: int,
    *,
    kinds: Sequence[str] = ARRIVALS,
    now_ms: int,
) -> int:
    """Until when a shard has heard all that others tell of notes of its journals, or of receipts.

    A note that is due later does not go back to its payer, and no epoch whose claims window ended
    later gets its statement. Of a shard that is away nobody knows: that is 0. `connection`: at the
    head.
    """
    until_ms = now_ms
    try:
        for source, _ in shards:
            if source != number:
                oldest = await _oldest(shards, connection, source, number, kinds)
                until_ms = until_ms if oldest is None else min(until_ms, oldest - 1 - SKEW_MS)
    except DatabaseError as error:
        _log.warning("news.unknown", shard=number, code=error.code)
        return 0
    return until_ms


async def _oldest(
    shards: Shards, connection: Connection, source: int, number: int, kinds: Sequence[str]
) -> int | None:
    """Since when one shard has something of these kinds to tell another."""
    async with shards.beside(connection, source) as there:
        found: int | None = await there.fetchval(
            "SELECT min(created_ms) FROM shard_message WHERE target = $1"
            " AND taken_ms IS NULL AND kind = ANY ($2)",
            *(number, list(kinds)),
        )
    return found


async def knows_grants(site: Site, journal: bytes) -> bool:
    """Does the head know of all grants that a journal has entered, or that a statement counted?

    What is held, or granted and not entered, would else be the holder's twice.
    """
    if site.here.is_head:
        return True
    rows = await site.home.fetch(
        "SELECT body FROM shard_message WHERE target = $1 AND taken_ms IS NULL"
        " AND kind IN ('funded', 'grant-claimed') LIMIT $2",
        *(HEAD, GRANTS_MAX),
    )
    messages = [decode_message(row["body"]) for row in rows]
    told = [item for item in messages if isinstance(item, Funded | GrantClaimed)]
    return len(rows) < GRANTS_MAX and all(item.journal != journal for item in told)


async def knows_fates(shards: Shards, site: Site, place: tuple[bytes, int]) -> bool:
    """Is known what becomes of each note of other shards that came into an epoch?

    A note whose own journal has not told of it is early, and that is known where that journal
    lives. `place`: journal and epoch. Raises: DatabaseError where one of those shards is away.
    """
    rows = await site.home.fetch(
        "SELECT journal, epoch, index, leaf, home FROM note WHERE state = 'early'"
        " AND in_journal = $1 AND in_epoch = $2 AND home IS NOT NULL",
        *place,
    )
    by_home: defaultdict[int, list[Any]] = defaultdict(list)
    for row in rows:
        by_home[row["home"]].append(row)
    for home, waiting in sorted(by_home.items()):
        async with shards.beside(site.head, home) as there:
            early = await there.fetchval(
                "SELECT count(*) FROM note JOIN unnest($1::bytea[], $2::bigint[], $3::bigint[],"
                " $4::bytea[]) AS asked (journal, epoch, index, leaf)"
                " USING (journal, epoch, index, leaf)"
                " WHERE state = 'early' AND in_journal = $5 AND in_epoch = $6",
                *[[row[name] for row in waiting] for name in ("journal", "epoch", "index", "leaf")],
                *place,
            )
        if early < len(waiting):
            return False
    return True
