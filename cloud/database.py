"""The cloud's PostgreSQL: a bounded pool of connections, transactions and migrations."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.resources
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeAlias

import asyncpg
import msgspec

from cloud.config import Config, DatabaseConfig
from cloud.embedded import EmbeddedPostgres
from cloud.errors import CloudError, DatabaseError

# asyncpg carries no types.
Connection: TypeAlias = Any

_MIGRATION = re.compile(r"(\d{4})_(\w+)\.sql")
_MIGRATION_LOCK = 0x63626463  # "cbdc": the key of PostgreSQL's advisory lock
_UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    ConnectionError,
    TimeoutError,
)
# While a connection is made nothing is asked of the database: whatever goes wrong, it is not there.
_NOT_CONNECTED = (OSError, asyncpg.PostgresError)
_AGAIN = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """A numbered step of the schema; its checksum is the SHA-256 of the text."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> bytes:
        """What the applied step is compared with ever after."""
        return hashlib.sha256(self.text.encode()).digest()


class Database:
    """An open pool; `connect` makes one, `close` ends it. Without one it refuses transactions."""

    def __init__(self, pool: Any | None, *, dsn: str, config: DatabaseConfig) -> None:
        self.dsn = dsn
        # The embedded server, whose end is the end of the program that watches it.
        self.server: EmbeddedPostgres | None = None
        self._pool = pool
        self._config = config

    @classmethod
    async def connect(cls, dsn: str, *, config: DatabaseConfig) -> Database:
        """Open the pool. Raises: DatabaseError `database-unavailable`."""
        with _unavailable(*_NOT_CONNECTED):
            pool = await asyncpg.create_pool(
                dsn,
                min_size=config.pool_min,
                max_size=config.pool_max,
                timeout=config.connect_timeout_s,
                command_timeout=config.statement_timeout_s,
                server_settings={
                    "application_name": "cbdc-cloud",
                    "lock_timeout": f"{config.lock_timeout_s}s",
                    "statement_timeout": f"{config.statement_timeout_s}s",
                },
            )
        return cls(pool, dsn=dsn, config=config)

    @classmethod
    def away(cls, dsn: str, *, config: DatabaseConfig) -> Database:
        """One to which nobody is connected: it refuses transactions until it takes over another."""
        return cls(None, dsn=dsn, config=config)

    def take_over(self, opened: Database) -> None:
        """Go on with the pool of another one, which has none then."""
        self._pool, opened._pool = opened._pool, None

    async def answers(self) -> bool:
        """Whether it is there."""
        try:
            async with self.transaction() as connection:
                await connection.fetchval("SELECT 1")
        except DatabaseError:
            return False
        return True

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction (READ COMMITTED); it commits at the end, or rolls back.

        Raises: DatabaseError `database-unavailable`, where the outcome may be unknown: try again
        under the same identity; `database-busy`, where it was rolled back.
        """
        pool = self._pool
        with _unavailable(*_NOT_CONNECTED):
            if pool is None:
                raise ConnectionError
            connection = await pool.acquire(timeout=self._config.connect_timeout_s)
        try:
            with _unavailable():
                async with connection.transaction():
                    yield connection
        finally:
            with _unavailable():
                await pool.release(connection, timeout=self._config.connect_timeout_s)

    async def close(self) -> None:
        """Close the pool: wait for its users first, for a bounded time."""
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), self._config.statement_timeout_s)
        except TimeoutError:
            self._pool.terminate()


@contextlib.contextmanager
def constraints_as(error_type: type[CloudError], code: str) -> Iterator[None]:
    """Give values that a table refuses a code; the transaction is broken then."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        raise error_type(code, error.constraint_name or "") from error
    except asyncpg.DataError as error:
        raise error_type(code, type(error).__name__) from error


@contextlib.contextmanager
def _unavailable(*more: type[Exception]) -> Iterator[None]:
    try:
        yield
    except _AGAIN as error:
        raise DatabaseError("database-busy", type(error).__name__) from error
    except (*_UNAVAILABLE, *more) as error:
        raise DatabaseError("database-unavailable", type(error).__name__) from error


@contextlib.asynccontextmanager
async def open_database(config: Config, *, now_ms: int) -> AsyncIterator[Database]:
    """The configured database, migrated: an embedded server runs as long as the context.

    Raises: DatabaseError.
    """
    async with contextlib.AsyncExitStack() as stack:
        dsn, server = config.database.dsn, None
        if dsn is None:
            server = await EmbeddedPostgres.start(config.folder / "postgres")
            stack.push_async_callback(server.stop)
            dsn = await server.ensure_database("cbdc")
        database = await Database.connect(dsn, config=config.database)
        database.server = server
        stack.push_async_callback(database.close)
        await migrate(database, now_ms=now_ms)
        yield database


def migrations() -> list[Migration]:
    """The steps that this release knows, in order."""
    files = importlib.resources.files("cloud.sql").iterdir()
    named = ((_MIGRATION.fullmatch(file.name), file) for file in files)
    found = [
        Migration(version=int(match[1]), name=match[2], text=file.read_text(encoding="utf-8"))
        for match, file in named
        if match
    ]
    return sorted(found, key=lambda migration: migration.version)


async def migrate(database: Database, *, now_ms: int) -> list[int]:
    """Apply the steps that are missing, all or none, and answer their numbers.

    Several programs may start at once: an advisory lock makes the others wait and find them done.
    Raises: DatabaseError `schema-too-new`, `schema-changed`.
    """
    async with database.transaction() as connection:
        return await migrate_within(connection, now_ms=now_ms)


async def migrate_within(connection: Connection, *, now_ms: int) -> list[int]:
    """The same in a transaction that does more."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version int PRIMARY KEY,"
        " name text NOT NULL, checksum bytea NOT NULL, applied_ms bigint NOT NULL)"
    )
    rows = await connection.fetch("SELECT version, checksum FROM schema_version")
    applied = {row["version"]: row["checksum"] for row in rows}
    missing = check_migrations(migrations(), applied)
    for migration in missing:
        await connection.execute(migration.text)
        await connection.execute(
            "INSERT INTO schema_version VALUES ($1, $2, $3, $4)",
            *(migration.version, migration.name, migration.checksum, now_ms),
        )
    return [migration.version for migration in missing]


def check_migrations(known: list[Migration], applied: dict[int, bytes]) -> list[Migration]:
    """The steps still to apply. Raises: DatabaseError `schema-too-new`, `schema-changed`."""
    if foreign := applied.keys() - {migration.version for migration in known}:
        raise DatabaseError("schema-too-new", f"version {max(foreign)} is of a newer release")
    for migration in known:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise DatabaseError("schema-changed", f"version {migration.version} was another one")
    return [migration for migration in known if migration.version not in applied]
