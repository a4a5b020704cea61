"""A shard beside the head is opened: at the start, or later in the background, once it is there.

Until somebody has proven what a database is and brought its schema up to date, all in one
transaction, nobody gets another one there.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from cloud.clock import Clock
from cloud.config import DatabaseConfig
from cloud.database import Connection, Database
from cloud.errors import CloudError, DatabaseError
from cloud.log import Log

# Waits between two attempts: from the first to the second, twice as long each time.
AGAIN_S, AGAIN_MAX_S = 0.5, 10.0
_PASSING = ("database-unavailable", "database-busy")
_log = Log("shards")


class Proving(Protocol):
    """Sees what a database is and brings its schema up to date, or writes nothing and raises."""

    async def __call__(self, connection: Connection, *, now_ms: int) -> None:
        """Raises: DatabaseError, ShardError."""


class Opening:
    """Opens one shard. `database` refuses every transaction until that is done."""

    def __init__(self, number: int, dsn: str, *, config: DatabaseConfig, prove: Proving) -> None:
        self.database = Database.away(dsn, config=config)
        self._number = number
        self._config = config
        self._prove = prove
        self._opening: asyncio.Task[None] | None = None
        self._said = ""

    async def begin(self, *, now_ms: int, later: Clock | None) -> None:
        """Open it now; where it is out of reach in the background, if `later` tells the time.

        Raises: DatabaseError, ShardError.
        """
        try:
            await self._open(now_ms=now_ms)
        except DatabaseError as error:
            if later is None or error.code not in _PASSING:
                raise
            self._say(error)
            self._opening = asyncio.create_task(self._open_later(later))

    async def close(self) -> None:
        """Open it no more, and close what is open."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        await self.database.close()

    async def _open_later(self, clock: Clock) -> None:
        wait_s = AGAIN_S
        while True:
            await asyncio.sleep(wait_s)
            try:
                await self._open(now_ms=clock.now_ms())
            except Exception as error:  # noqa: BLE001 - the other shards go on; the log has it
                self._say(error)
            else:
                _log.info("shard.opened", shard=self._number)
                return
            wait_s = min(2 * wait_s, AGAIN_MAX_S)

    async def _open(self, *, now_ms: int) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                opened = await Database.connect(self.database.dsn, config=self._config)
                stack.push_async_callback(opened.close)
                async with opened.transaction() as connection:
                    await self._prove(connection, now_ms=now_ms)
                self.database.take_over(opened)
        except DatabaseError as error:
            raise DatabaseError(error.code, f"shard {self._number}: {error.detail}") from error

    def _say(self, error: Exception) -> None:
        """Once for each thing that is wrong, not for each attempt."""
        said, self._said = self._said, str(error)
        if said == self._said:
            return
        if isinstance(error, CloudError) and error.code in _PASSING:
            _log.warning("shard.away", shard=self._number, code=error.code, detail=error.detail)
        else:
            _log.error("shard.refused", cause=error, shard=self._number)
