"""Where journals live. A home is for life: adding a shard moves no journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager

import msgspec

from cloud.database import Connection, Database
from cloud.shards.messages import HEAD


class Homes:
    """The homes of journals, as the head knows them. What was read once stays true.

    Without a head to ask there is one database, and everybody lives there.
    """

    def __init__(self, head: Database | None = None) -> None:
        self._head = head
        self._known: dict[bytes, int] = {}

    async def learn(self, journals: Iterable[bytes]) -> None:
        """Read what is not known yet. Call it before a transaction: it takes a connection.

        Raises: DatabaseError.
        """
        if self._head is None:
            return
        missing = set(journals) - self._known.keys()
        if missing:
            async with self._head.transaction() as connection:
                self._known |= await homes_of(connection, missing)

    def hear(self, known: Mapping[bytes, int]) -> None:
        """Take what somebody else has read at the head."""
        self._known |= known

    def of(self, journal: bytes) -> int:
        """The shard of a journal that was learnt; one that nobody ever enrolled is the head's."""
        return self._known.get(journal, HEAD)


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """The shard that work is done in, and how it knows of others."""

    number: int = HEAD
    homes: Homes = msgspec.field(default_factory=Homes)
    # Asked before a transaction here, never inside one; None where there is one database.
    head: Database | None = None

    @property
    def is_head(self) -> bool:
        """Are online wallets, funding and lists in this database?"""
        return self.number == HEAD

    def has(self, journal: bytes) -> bool:
        """Does a journal that was learnt live here?"""
        return self.homes.of(journal) == self.number


ALONE = Here()


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Two transactions about one journal: at the head, and inside of that one where it lives.

    The inner one ends first. In one database both are the same connection.
    """

    head: Connection
    home: Connection
    here: Here = ALONE
    # A transaction at another shard, by its number, for as long as a block runs.
    others: Callable[[int], AbstractAsyncContextManager[Connection]] | None = None

    @classmethod
    def alone(cls, connection: Connection) -> Site:
        """Where there is one database."""
        return cls(head=connection, home=connection)


async def homes_of(connection: Connection, journals: Iterable[bytes]) -> dict[bytes, int]:
    """The homes of those that have one, read at the head."""
    rows = await connection.fetch(
        "SELECT journal, shard FROM journal_home WHERE journal = ANY ($1)", list(journals)
    )
    return {row["journal"]: row["shard"] for row in rows}


async def settle_down(connection: Connection, journal: bytes, shard: int, *, now_ms: int) -> int:
    """Give a journal its home, unless it has one; answers which it is. `connection`: the head's."""
    await connection.execute(
        "INSERT INTO journal_home VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        *(journal, shard, now_ms),
    )
    home: int = await connection.fetchval(
        "SELECT shard FROM journal_home WHERE journal = $1", journal
    )
    return home


async def least_filled(connection: Connection, shards: int) -> int:
    """The shard with the fewest journals, of numbers below `shards`; read at the head."""
    found: int = await connection.fetchval(
        "SELECT number FROM generate_series(0, $1::int - 1) AS number"
        " LEFT JOIN journal_home ON shard = number GROUP BY number"
        " ORDER BY count(journal), number LIMIT 1",
        shards,
    )
    return found
