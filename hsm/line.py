"""The way from the loop to a driver's keys: each call in the driver's thread, with a timeout."""

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from hsm.api import TokenTimeout
from hsm.driver_thread import DriverThread

Keys = TypeVar("Keys")
Keys_co = TypeVar("Keys_co", covariant=True)
Result = TypeVar("Result")


class Connection(Protocol[Keys_co]):
    """What a driver has of its keys; everything of it runs in the driver's thread."""

    def run(self, work: Callable[[Keys_co], Result]) -> Result:
        """Do something with the keys. Raises: HsmError."""
        ...

    def close(self) -> None:
        """Let the keys go, whatever the token says to it."""
        ...


class Line(Generic[Keys]):
    """The way to the keys of one connection."""

    def __init__(
        self, connection: Connection[Keys], thread: DriverThread, *, timeout_s: float
    ) -> None:
        self._connection = connection
        self._thread = thread
        self._timeout_s = timeout_s

    async def begin(self, first: Callable[[], Result]) -> Result:
        """Create or open; whoever gives up on it leaves nothing open."""
        try:
            return await self.call(first)
        except (TokenTimeout, asyncio.CancelledError):
            self._thread.post(self._connection.close)
            raise

    async def run(self, work: Callable[[Keys], Result]) -> Result:
        """Do something with the keys."""
        return await self.call(lambda: self._connection.run(work))

    async def close(self) -> None:
        """Let the keys go."""
        await self.call(self._connection.close)

    async def call(self, work: Callable[[], Result]) -> Result:
        """Do anything in the driver's thread.

        Raises:
            TokenTimeout: it was not done in time.
        """
        return await self._thread.call(work, timeout_s=self._timeout_s)
