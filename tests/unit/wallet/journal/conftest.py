"""A gateway's journal for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.gateway import Gateway, gateway


@pytest_asyncio.fixture
async def box(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A journal with three funded wallets."""
    async with gateway(tmp_path) as made:
        yield made
