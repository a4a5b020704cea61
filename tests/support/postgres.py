"""One embedded PostgreSQL for a session of tests, and a fresh migrated database for each test.

A test takes the fixture `database` (an open `cloud.database.Database`) or `dsn`. They are copies
of a template, which takes some 20 ms. A `conftest.py` imports the fixtures.
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from cloud.config import DatabaseConfig
from cloud.database import Database, migrate
from cloud.embedded import EmbeddedPostgres

NOW_MS = 1_780_000_000_000
TEMPLATE = "template_cbdc"
CONFIG = DatabaseConfig(pool_max=4, connect_timeout_s=20, statement_timeout_s=30, lock_timeout_s=20)
# A test's data need not survive a power cut.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

MEMORY_BYTES_MIN = 2 << 30

_numbers = itertools.count(1)


class Server:
    """The session's server, with a loop of its own: its process outlives the loops of tests."""

    def __init__(self, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._server = self._runner.run(EmbeddedPostgres.start(folder, settings=FAST))
        self._runner.run(self._make_template())

    async def _make_template(self) -> None:
        dsn = await self._server.ensure_database(TEMPLATE)
        database = await Database.connect(dsn, config=CONFIG)
        await migrate(database, now_ms=NOW_MS)
        await database.close()

    def dsn(self, database: str) -> str:
        """The address of one of its databases."""
        return self._server.dsn(database)

    async def create(self) -> str:
        """Make a fresh database and answer its name."""
        name = f"test_{next(_numbers)}"
        await self.command(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
        return name

    async def drop(self, name: str) -> None:
        """Remove a database and end its sessions."""
        await self.command(f"DROP DATABASE {name} WITH (FORCE)")

    async def command(self, text: str) -> None:
        """Run one command of PostgreSQL outside any transaction."""
        connection = await asyncpg.connect(self.dsn("postgres"), timeout=20)
        try:
            await connection.execute(text)
        finally:
            await connection.close(timeout=20)

    def stop(self) -> None:
        """End the server."""
        self._runner.run(self._server.stop())
        self._runner.close()


def roomy_memory() -> str | None:
    """A folder in memory, where there is one with room: a database is 300 files, slow on disks."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free >= MEMORY_BYTES_MIN:
        return str(memory)
    return None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The session's server; with pytest-xdist, one for each worker."""
    yield from _serve()


@pytest.fixture(scope="module")
def second() -> Iterator[Server]:
    """Another cluster, for tests of several databases."""
    yield from _serve()


def _serve() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="cbdc-test-", dir=roomy_memory()))
    server = Server(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def dsn(postgres: Server) -> AsyncIterator[str]:
    """The address of a fresh database."""
    name = await postgres.create()
    yield postgres.dsn(name)
    await postgres.drop(name)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """A pool on a fresh database."""
    opened = await Database.connect(dsn, config=CONFIG)
    yield opened
    await opened.close()
