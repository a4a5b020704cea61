"""The pool, transactions and migrations."""

import asyncio
from pathlib import Path

import asyncpg
import msgspec
import pytest

from cloud.config import Config, DatabaseConfig
from cloud.database import Database, migrate, migrations, open_database
from cloud.errors import DatabaseError, LedgerError
from tests.support.postgres import CONFIG, Server

NOW_MS = 1_780_000_000_000


async def test_a_transaction_commits_at_its_end_and_rolls_back_on_an_error(
    database: Database,
) -> None:
    async with database.transaction() as connection:
        await connection.execute("CREATE TABLE seen (n int)")
    with pytest.raises(LedgerError):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO seen VALUES (1)")
            raise LedgerError("refused")
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM seen") == 0


async def test_migrations_are_applied_once_even_by_several_programs(postgres: Server) -> None:
    await postgres.command("CREATE DATABASE empty")
    databases = [await Database.connect(postgres.dsn("empty"), config=CONFIG) for _ in range(3)]
    applied = await asyncio.gather(*(migrate(each, now_ms=NOW_MS) for each in databases))
    everything = [migration.version for migration in migrations()]
    assert sorted(applied) == [[], [], everything]
    for each in databases:
        await each.close()
    await postgres.drop("empty")


async def test_a_database_that_is_not_there_is_unavailable(dsn: str, tmp_path: Path) -> None:
    nowhere = f"postgresql://postgres@/none?host={tmp_path}"
    with pytest.raises(DatabaseError, match="database-unavailable"):
        await Database.connect(nowhere, config=CONFIG)


async def test_a_lost_connection_is_unavailable_and_the_next_one_works(
    database: Database,
) -> None:
    with pytest.raises(DatabaseError, match="database-unavailable"):
        async with database.transaction() as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_lock_that_is_not_given_in_time_is_busy(dsn: str) -> None:
    config = msgspec.structs.replace(CONFIG, lock_timeout_s=1)
    database = await Database.connect(dsn, config=config)
    async with database.transaction() as holder:
        await holder.execute("SELECT pg_advisory_xact_lock(7)")
        with pytest.raises(DatabaseError, match="database-busy"):
            async with database.transaction() as waiter:
                await waiter.execute("SELECT pg_advisory_xact_lock(7)")
    await database.close()


async def test_a_pool_without_a_free_connection_is_unavailable_in_time(dsn: str) -> None:
    config = DatabaseConfig(pool_max=1, connect_timeout_s=1)
    database = await Database.connect(dsn, config=config)
    async with database.transaction():
        with pytest.raises(DatabaseError, match="database-unavailable"):
            async with database.transaction():
                pass
    await database.close()


async def test_closing_does_not_wait_for_ever(dsn: str) -> None:
    database = await Database.connect(dsn, config=DatabaseConfig(statement_timeout_s=1))
    with pytest.raises(DatabaseError, match="database-unavailable"):
        async with database.transaction() as connection:
            await database.close()
            await connection.execute("SELECT 1")


async def test_a_dsn_is_used_where_one_is_given(dsn: str, tmp_path: Path) -> None:
    config = Config(folder=tmp_path, database=DatabaseConfig(dsn=dsn))
    async with open_database(config, now_ms=NOW_MS) as database:
        assert (database.dsn, database.server) == (dsn, None)
    assert not (tmp_path / "postgres").exists()


async def test_without_a_dsn_the_server_runs_as_long_as_it_is_used(tmp_path: Path) -> None:
    async with open_database(Config(folder=tmp_path), now_ms=NOW_MS) as database:
        server = database.server
        assert server is not None
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT count(*) FROM schema_version") >= 3
    assert await server.wait() == 0
    with pytest.raises(OSError, match="No such file"):
        await asyncpg.connect(database.dsn, timeout=5)
