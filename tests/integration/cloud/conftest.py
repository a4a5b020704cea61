"""The fixtures of every test here: a fresh PostgreSQL database, and a cloud with gateways."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud.database import Database
from tests.support.clouds import clouds
from tests.support.postgres import database, dsn, postgres, second
from tests.support.recovery import CARA, Box, Story, told

__all__ = ["clouds", "database", "dsn", "postgres", "second"]


@pytest.fixture
async def story(database: Database, tmp_path: Path) -> AsyncIterator[Story]:
    """A cloud and its officers."""
    async with told(database, tmp_path) as opened:
        yield opened


@pytest.fixture
async def north(story: Story) -> Box:
    """Anna's and Bert's gateway; Anna has 1,000, and the issuer knows."""
    return await story.funded(await story.gateway("north"))


@pytest.fixture
async def south(story: Story) -> Box:
    """Cara's gateway."""
    box = await story.gateway("south")
    await story.enrol(box, CARA)
    await box.sync()
    return box
