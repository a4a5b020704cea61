"""An open store for each test that asks for one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY
from wallet.store.database import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where this test's store is or will be."""
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Database]:
    """A new, empty store."""
    database = await Database.open(path, key=KEY)
    yield database
    await database.close()
