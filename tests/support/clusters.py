"""A PostgreSQL cluster that a test stops, starts again and restores from a copy."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud.embedded import EmbeddedPostgres
from tests.support.postgres import FAST, roomy_memory


class Cluster:
    """Its databases keep their addresses, whether it runs or not."""

    def __init__(self, folder: Path) -> None:
        # Short enough for a socket in it, whose place stays the same.
        self._folder = folder / "data"
        self._copy = folder / "copy"
        self._server: EmbeddedPostgres | None = None

    async def start(self) -> None:
        """Start it; nothing where it runs."""
        if self._server is None:
            self._server = await EmbeddedPostgres.start(self._folder, settings=FAST)

    async def stop(self) -> None:
        """End all sessions and stop; nothing where it stands."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def address(self, name: str) -> str:
        """The address of a database, which is made where it is missing."""
        assert self._server is not None
        return await self._server.ensure_database(name)

    async def back_up(self) -> None:
        """Copy it while it stands."""
        assert self._server is None
        await _run("cp", "-a", str(self._folder), str(self._copy))

    async def restore(self) -> None:
        """Put the copy into its place while it stands."""
        assert self._server is None
        await _run("rm", "-r", str(self._folder))
        await _run("mv", str(self._copy), str(self._folder))


async def _run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0, words


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """One that runs at first."""
    folder = Path(tempfile.mkdtemp(prefix="cbdc-test-", dir=roomy_memory()))
    made = Cluster(folder)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        shutil.rmtree(folder)
