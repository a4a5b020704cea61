"""Several fresh databases in one test: one for each way in which things may have happened."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from cloud.database import Database
from tests.support.postgres import CONFIG, Server


class Clouds:
    """Fresh databases, one for each order of arrival."""

    def __init__(self, postgres: Server) -> None:
        self._postgres = postgres
        self._opened: list[tuple[str, Database]] = []

    async def fresh(self) -> Database:
        """Another one."""
        name = await self._postgres.create()
        database = await Database.connect(self._postgres.dsn(name), config=CONFIG)
        self._opened.append((name, database))
        return database

    async def close(self) -> None:
        """Remove all."""
        for name, database in self._opened:
            await database.close()
            await self._postgres.drop(name)


@pytest.fixture
async def clouds(postgres: Server) -> AsyncIterator[Clouds]:
    """Databases that go away."""
    made = Clouds(postgres)
    yield made
    await made.close()
