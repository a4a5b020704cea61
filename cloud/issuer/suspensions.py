"""Journals that were convicted go on list 1: every gateway and device hears of it by the list.

A journal that is suspended for its hardware alone is not listed: an officer may lift that, and it
pays on within its limits.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from cloud.database import Connection
from cloud.issuer import lists, objects
from cloud.issuer.desk import Desk
from cloud.issuer.lists import ListChange
from cloud.issuer.objects import list_series
from wallet.protocol.lists import ListId

ACTOR = "reconciler"
PAGE = 100
# Of hardware alone: see `cloud.attestation.reports`.
_LIFTABLE = "attestation"


async def list_suspended(connection: Connection, desk: Desk, *, now_ms: int) -> int:
    """Sign the next list 1 with journals that were convicted since; answers how many those are.

    Each is listed once: what an officer takes off the list stays off it.
    """
    if not await _unlisted(connection):
        return 0
    await objects.lock_series(connection, list_series(ListId.JOURNALS))
    # Another one may have listed them while this one waited.
    rows = await _unlisted(connection)
    held = await lists.held(connection, ListId.JOURNALS)
    known: Set[Any] = frozenset() if held is None else held.items
    added = {(row["journal"], row["epoch"]): () for row in rows}
    fresh = {place: names for place, names in added.items() if place not in known}
    if fresh:
        change = ListChange(added=fresh)
        await lists.change_list(
            connection, desk, ListId.JOURNALS, change, actor=ACTOR, now_ms=now_ms
        )
    places = ([row["journal"] for row in rows], [row["epoch"] for row in rows])
    for table in ("journal_epoch", "suspended_elsewhere"):
        await connection.execute(
            f"UPDATE {table} SET listed_ms = $3 WHERE listed_ms IS NULL AND (journal, epoch) IN"
            " (SELECT * FROM unnest($1::bytea[], $2::bigint[]))",
            *(*places, now_ms),
        )
    return len(fresh)


async def _unlisted(connection: Connection) -> list[Any]:
    """Those of this database, and those of other shards, which told of them."""
    rows: list[Any] = await connection.fetch(
        "SELECT journal, epoch FROM journal_epoch AS made"
        " WHERE state = 'suspended' AND listed_ms IS NULL AND EXISTS"
        " (SELECT FROM journal_evidence WHERE journal_evidence.epoch_id = made.epoch_id"
        "  AND kind <> $1) UNION SELECT journal, epoch FROM suspended_elsewhere AS told"
        " WHERE listed_ms IS NULL AND kind <> $1 AND NOT EXISTS (SELECT FROM suspended_elsewhere"
        "  AS known WHERE (known.journal, known.epoch) = (told.journal, told.epoch)"
        "  AND known.listed_ms IS NOT NULL) ORDER BY journal, epoch LIMIT $2",
        *(_LIFTABLE, PAGE),
    )
    return rows
