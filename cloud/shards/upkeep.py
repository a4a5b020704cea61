"""Upkeep between shards: what a restored one forgot is sent again, old rows are summed up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

from cloud.database import Database
from cloud.errors import DatabaseError
from cloud.log import Log
from cloud.shards.homes import homes_of
from cloud.shards.messages import HEAD, Addressed, Redeemed, send
from cloud.shards.shards import Shards

PAGE = 5_000
KEEP_MS = 30 * 86_400_000
AGAIN_S = 1.0
# (The shard where messages were caused, the one that they are for.)
Pair: TypeAlias = tuple[int, int]
_SEND_AGAIN = (
    "UPDATE shard_message SET sent_ms = NULL"
    " WHERE target = $1 AND taken_ms IS NULL AND sent_ms IS NOT NULL"
)
_log = Log("shards")


def pairs_of(shards: Shards) -> list[Pair]:
    """Who may tell whom."""
    numbers = range(len(shards))
    return [(source, target) for source in numbers for target in numbers if source != target]


async def recall(shards: Shards, left: list[Pair] | None = None) -> int:
    """Let be sent again what a shard took and does not remember: it was restored from a backup.

    What was sent and not taken is sent again at once: the stream may have been this process's own.
    Answers how many messages had been taken. `left`: the pairs that it is still to be done for;
    those of which one shard is away stay there.
    """
    left, recalled = pairs_of(shards) if left is None else left, 0
    wanted = {number for pair in left for number in pair}
    there = {number for number in wanted if await shards.database(number).answers()}
    for source, target in [pair for pair in left if there.issuperset(pair)]:
        database, other = shards.database(source), shards.database(target)
        try:
            recalled += await _recall_pair(source, database, target, other)
            async with database.transaction() as connection:
                await connection.execute(_SEND_AGAIN, target)
        except DatabaseError as error:
            _log.warning("recall.failed", shard=source, target=target, code=error.code)
        else:
            left.remove((source, target))
    return recalled


async def recall_all(shards: Shards, left: list[Pair]) -> None:
    """The same until no pair is left."""
    while left:
        await asyncio.sleep(AGAIN_S)
        await recall(shards, left)


async def _recall_pair(source: int, database: Database, target: int, other: Database) -> int:
    last, recalled = 0, 0
    while True:
        async with database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT message_id, identity FROM shard_message WHERE target = $1"
                " AND taken_ms IS NOT NULL AND message_id > $2 ORDER BY message_id LIMIT $3",
                *(target, last, PAGE),
            )
        if not rows:
            return recalled
        last = rows[-1]["message_id"]
        known = await _known(other, source, [row["identity"] for row in rows])
        missing = [row["message_id"] for row in rows if row["identity"] not in known]
        if missing:
            async with database.transaction() as connection:
                await connection.execute(
                    "UPDATE shard_message SET taken_ms = NULL, sent_ms = NULL"
                    " WHERE message_id = ANY ($1)",
                    missing,
                )
            _log.warning("messages.recalled", shard=source, target=target, count=len(missing))
            recalled += len(missing)


async def _known(other: Database, source: int, identities: Sequence[bytes]) -> set[bytes]:
    async with other.transaction() as connection:
        rows = await connection.fetch(
            "SELECT identity FROM shard_taken WHERE source = $1 AND identity = ANY ($2)",
            *(source, identities),
        )
    return {row["identity"] for row in rows}


async def find_homes(shards: Shards, number: int, *, now_ms: int) -> int:
    """Let the head know of journals that live at a shard, if it has forgotten: it was restored.

    Answers how many those were. Raises: DatabaseError.
    """
    if number == HEAD:
        return 0
    async with shards.database(number).transaction() as there:
        rows = await there.fetch(
            "SELECT DISTINCT journal FROM (SELECT journal FROM journal_epoch WHERE size > 0"
            " UNION ALL SELECT journal FROM ended_epoch) AS known"
        )
    journals = [row["journal"] for row in rows]
    async with shards.head.transaction() as connection:
        made = await connection.fetch(
            "INSERT INTO journal_home SELECT journal, $2, $3 FROM unnest($1::bytea[])"
            " AS found (journal) ON CONFLICT DO NOTHING RETURNING journal",
            *(journals, number, now_ms),
        )
    if made:
        _log.warning("homes.found", shard=number, count=len(made))
    return len(made)


async def tell_homes(shards: Shards, number: int, *, now_ms: int) -> int:
    """Tell of notes that came in at a shard while the head had forgotten where their journals live.

    Answers how many those were; a page at most. Raises: DatabaseError.
    """
    if len(shards) == 1:
        return 0
    async with shards.database(number).transaction() as there:
        rows = await there.fetch(
            "SELECT DISTINCT journal FROM note WHERE state = 'early' AND in_shard IS NULL"
        )
    async with shards.head.transaction() as connection:
        homes = await homes_of(connection, [row["journal"] for row in rows])
    away = {journal: home for journal, home in homes.items() if home != number}
    if not away:
        return 0
    async with shards.database(number).transaction() as there:
        made = await there.fetch(
            "UPDATE note SET home = found.shard FROM unnest($1::bytea[], $2::smallint[])"
            " AS found (journal, shard) WHERE (note.journal, note.epoch, note.index) IN"
            "  (SELECT note.journal, epoch, index FROM note JOIN unnest($1::bytea[],"
            "   $2::smallint[]) AS asked (journal, shard) USING (journal) WHERE state = 'early'"
            "   AND in_shard IS NULL AND home IS DISTINCT FROM asked.shard LIMIT $3)"
            " AND note.journal = found.journal RETURNING note.*",
            *(list(away), list(away.values()), PAGE),
        )
        await send(there, number, [_arrived(row) for row in made], now_ms=0)
    if made:
        _log.warning("arrivals.told", shard=number, count=len(made))
    return len(made)


def _arrived(row: Any) -> Addressed:
    returns_ms, expires_ms = row["returns_ms"], row["expires_ms"]
    message = Redeemed(
        entry=row["entry"],
        receipt=row["receipt"],
        journal=row["in_journal"],
        epoch=row["in_epoch"],
        index=row["in_index"],
        window_s=None if returns_ms is None else (returns_ms - expires_ms) // 1_000,
    )
    return Addressed(target=row["home"], message=message)


async def forget(shards: Shards, number: int, *, now_ms: int) -> None:
    """Sum up a shard's rows that are old at both ends; the account of all stays what it is.

    A message is forgotten where it was taken only after it was where it came from: until then it
    may come again. Raises: DatabaseError.
    """
    database = shards.database(number)
    while await _forget_sent(database, before_ms=now_ms - KEEP_MS):
        pass
    for source, other in shards:
        await _forget_taken(database, source, other, before_ms=now_ms - 2 * KEEP_MS)


async def _forget_sent(database: Database, *, before_ms: int) -> bool:
    """Whether there may be more."""
    async with database.transaction() as connection:
        found: int = await connection.fetchval(
            "WITH gone AS (DELETE FROM shard_message WHERE message_id IN"
            "  (SELECT message_id FROM shard_message WHERE taken_ms < $1 LIMIT $2)"
            "  RETURNING target, currency, amount"
            " ), summed AS (INSERT INTO shard_sum (other, currency, sent)"
            "  SELECT target, currency, sum(amount)::bigint FROM gone WHERE amount <> 0"
            "  GROUP BY target, currency ON CONFLICT (other, currency)"
            "  DO UPDATE SET sent = shard_sum.sent + excluded.sent)"
            " SELECT count(*) FROM gone",
            *(before_ms, PAGE),
        )
    return found == PAGE


async def _forget_taken(
    database: Database, source: int, other: Database, *, before_ms: int
) -> None:
    last = b""
    while True:
        async with database.transaction() as connection:
            rows = await connection.fetch(
                "SELECT identity FROM shard_taken WHERE source = $1 AND taken_ms < $2"
                " AND identity > $3 ORDER BY identity LIMIT $4",
                *(source, before_ms, last, PAGE),
            )
        if not rows:
            return
        identities = [row["identity"] for row in rows]
        last = identities[-1]
        async with other.transaction() as connection:
            kept = await connection.fetch(
                "SELECT identity FROM shard_message WHERE identity = ANY ($1)", identities
            )
        gone = set(identities) - {row["identity"] for row in kept}
        async with database.transaction() as connection:
            await connection.execute(
                "WITH gone AS (DELETE FROM shard_taken WHERE source = $1 AND identity = ANY ($2)"
                "  RETURNING currency, amount)"
                " INSERT INTO shard_sum (other, currency, taken)"
                " SELECT $1, currency, sum(amount)::bigint FROM gone WHERE amount <> 0"
                " GROUP BY currency ON CONFLICT (other, currency)"
                " DO UPDATE SET taken = shard_sum.taken + excluded.taken",
                *(source, list(gone)),
            )
