"""The databases of a cloud: the head, which is number 0, and the others by their numbers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial

from cloud.clock import Clock
from cloud.config import DatabaseConfig
from cloud.database import Connection, Database, migrate_within
from cloud.errors import DatabaseError
from cloud.shards.homes import Here, Homes, Site, homes_of, least_filled, settle_down
from cloud.shards.messages import HEAD, SHARD_MAX, ShardError
from cloud.shards.opening import Opening

# Numbers of epochs and of evidence begin here in each shard: they tell which one they are of.
NUMBERS_EACH = 1 << 40
_HAS_ENTRIES = "SELECT true FROM journal_epoch WHERE journal = $1 AND size > 0 LIMIT 1"
_TABLES = (
    "SELECT to_regclass('schema_version') IS NOT NULL AS schema,"
    " to_regclass('shard') IS NOT NULL AS shard, EXISTS (SELECT FROM pg_class"
    "  WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')) AS any"
)


def shard_of(number: int) -> int:
    """The shard that gave a number to an epoch or to evidence."""
    return max(0, number - 1) // NUMBERS_EACH


class Shards:
    """Open databases of one issuer, in the order of their numbers."""

    def __init__(self, databases: Sequence[Database]) -> None:
        self._databases = tuple(databases)
        self.homes = Homes(databases[HEAD] if len(databases) > 1 else None)

    @property
    def head(self) -> Database:
        """Where officers, keys, lists and online wallets are."""
        return self._databases[HEAD]

    def __len__(self) -> int:
        return len(self._databases)

    def __iter__(self) -> Iterator[tuple[int, Database]]:
        return iter(enumerate(self._databases))

    def database(self, number: int) -> Database:
        """One of them. Raises: ShardError `shard-missing`."""
        if not 0 <= number < len(self._databases):
            raise ShardError("shard-missing", f"shard {number} is not in the configuration")
        return self._databases[number]

    def here(self, number: int) -> Here:
        """What work in one of them has to know of the others."""
        head = self.head if len(self) > 1 else None
        return Here(number=number, homes=self.homes, head=head)

    async def home_of(self, journal: bytes) -> int:
        """The number of a journal's home. Not inside a transaction. Raises: DatabaseError."""
        await self.homes.learn([journal])
        return self.homes.of(journal)

    @contextlib.asynccontextmanager
    async def at_home(self, connection: Connection, journal: bytes) -> AsyncIterator[Connection]:
        """A transaction where a journal lives, inside one at the head."""
        home = HEAD
        if len(self) > 1:
            home = (await homes_of(connection, [journal])).get(journal, HEAD)
        async with self.beside(connection, home) as there:
            yield there

    @contextlib.asynccontextmanager
    async def site(self, connection: Connection, journal: bytes) -> AsyncIterator[Site]:
        """As `at_home`, with both transactions."""
        home = HEAD
        if len(self) > 1:
            known = await homes_of(connection, [journal])
            self.homes.hear(known)
            home = known.get(journal, HEAD)
        async with self.beside(connection, home) as there:
            others = partial(self.beside, connection)
            yield Site(head=connection, home=there, here=self.here(home), others=others)

    @contextlib.asynccontextmanager
    async def beside(self, connection: Connection, number: int) -> AsyncIterator[Connection]:
        """A transaction at a shard, inside one at the head: the same one where that is the shard.

        Never the other way round: those at other shards wait for nobody.
        """
        if number == HEAD:
            yield connection
            return
        async with self.database(number).transaction() as there:
            yield there

    async def house(
        self,
        connection: Connection,
        journal: bytes,
        *,
        now_ms: int,
        before: bytes | None = None,
    ) -> int:
        """Give a journal that enrols its home: where it has been, or where the fewest are.

        `connection`: at the head; `before`: the journal that it goes on for, beside which it lives.
        Raises: DatabaseError; ShardError `journal-elsewhere` where it has another home already.
        """
        # Those who enrol at once are shared out one after the other.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('home', 7))")
        shard = HEAD
        if before is not None:
            shard = (await homes_of(connection, [before])).get(before, HEAD)
        elif len(self) > 1:
            been = await self._been(connection, journal)
            shard = await least_filled(connection, len(self)) if been is None else been
        home = await settle_down(connection, journal, shard, now_ms=now_ms)
        if before is not None and home != shard:
            raise ShardError(
                "journal-elsewhere",
                f"this key's journal lives at shard {home}, what it goes on with at {shard}:"
                " enrol with a new key",
            )
        return home

    async def _been(self, connection: Connection, journal: bytes) -> int | None:
        """Where a journal lives, or has entries that a restored head may have forgotten.

        Raises: DatabaseError where nobody knows it and a shard is away that may.
        """
        known = (await homes_of(connection, [journal])).get(journal)
        if known is not None:
            return known
        away: DatabaseError | None = None
        for number, _ in self:
            try:
                async with self.beside(connection, number) as there:
                    if await there.fetchval(_HAS_ENTRIES, journal):
                        return number
            except DatabaseError as error:
                if number == HEAD:
                    raise
                away = error
        if away is not None:
            raise away
        return None


async def open_shards(
    head: Database,
    config: DatabaseConfig,
    stack: contextlib.AsyncExitStack,
    *,
    random: bytes,
    now_ms: int,
    later: Clock | None = None,
) -> Shards:
    """Connect to the configured shards and bring their schemas up to date.

    `random`: 16 bytes, the issuer's name among databases where this is the first start. `later`:
    tells the time where a shard that is out of reach may be opened in the background; without it
    all have to be there. Raises: DatabaseError; ShardError `shard-mismatch`, `shard-missing`.
    """
    async with head.transaction() as connection:
        issuer = await identify(connection, HEAD, None, random)
    await _require_all(head, 1 + len(config.shards))
    databases = [head]
    for number, shard in enumerate(config.shards, start=HEAD + 1):
        opening = Opening(
            number, shard.dsn, config=config, prove=partial(_prove, number=number, issuer=issuer)
        )
        stack.push_async_callback(opening.close)
        await opening.begin(now_ms=now_ms, later=later)
        databases.append(opening.database)
    return Shards(databases)


async def _prove(connection: Connection, *, number: int, issuer: bytes, now_ms: int) -> None:
    """Bring a shard's schema up to date, unless the database is something else.

    Raises: DatabaseError `schema-too-new`, `schema-changed`; ShardError `shard-mismatch`.
    """
    tables = await connection.fetchrow(_TABLES)
    if tables["shard"] and tables["schema"]:
        await _named(connection, number, issuer)
    elif tables["any"]:
        raise ShardError("shard-mismatch", f"shard {number}: the database has other tables")
    await migrate_within(connection, now_ms=now_ms)
    await identify(connection, number, issuer, issuer)


async def identify(
    connection: Connection, number: int, issuer: bytes | None, random: bytes
) -> bytes:
    """Name a new database, or see that this is the one; answers the issuer that it is of.

    `issuer`: None at the head, whose word it is. Raises: ShardError `shard-mismatch`.
    """
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('shard', 7))")
    if (known := await _named(connection, number, issuer)) is not None:
        return known
    await connection.execute(
        "INSERT INTO shard (number, issuer) VALUES ($1, $2)", number, issuer or random
    )
    await _begin_numbers(connection, number)
    return issuer or random


async def _named(connection: Connection, number: int, issuer: bytes | None) -> bytes | None:
    """The issuer that a database is of; None of one that has no name yet and may get this one.

    Raises: ShardError `shard-mismatch`.
    """
    row = await connection.fetchrow("SELECT number, issuer FROM shard")
    if row is None:
        if number and await connection.fetchval("SELECT EXISTS (SELECT FROM journal_epoch)"):
            raise ShardError("shard-mismatch", f"shard {number}: the database is a head's")
        return None
    if row["number"] != number or issuer not in (None, row["issuer"]):
        raise ShardError(
            "shard-mismatch", f"shard {number}: the address is shard {row['number']}'s"
        )
    found: bytes = row["issuer"]
    return found


async def _begin_numbers(connection: Connection, number: int) -> None:
    if number == HEAD:
        return
    first = number * NUMBERS_EACH + 1
    for table, column in (("journal_epoch", "epoch_id"), ("journal_evidence", "evidence_id")):
        await connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} RESTART WITH {first}")


async def _require_all(head: Database, count: int) -> None:
    async with head.transaction() as connection:
        last = await connection.fetchval("SELECT max(shard) FROM journal_home")
    if count > SHARD_MAX + 1:
        raise ShardError("shard-missing", f"at most {SHARD_MAX} beside the head")
    if last is not None and last >= count:
        raise ShardError("shard-missing", f"journals live at shard {last}")
