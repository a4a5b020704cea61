"""Events for terminals and tools: gathered for a moment, stored, then streamed by rising id.

They are a convenience: what counts is in the journal. Payments of one moment share one event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from edge.log import Log
from wallet.clock import Clock
from wallet.journal import Event
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import StoreError
from wallet.store.events import StoredEvent, append_events, events_after, prune_events

GATHER_S = 0.25
RETRY_S = 2.0
ALIVE_S = 15
PAYMENTS_A_EVENT = 200
WAITING_MAX = 50_000
PAGE = 200
ACCEPTED = "payment.accepted"
_log = Log("events")


class Events:
    """The outbox of one open gateway."""

    def __init__(self, *, database: Database, clock: Clock, kept: int) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept
        self._payments: deque[dict[str, Any]] = deque(maxlen=WAITING_MAX)
        self._others: deque[tuple[str, dict[str, Any]]] = deque(maxlen=WAITING_MAX)
        self._arrived = asyncio.Event()
        self._stored = asyncio.Event()
        self._ended = False

    def take(self, event: Event) -> None:
        """Remember an event of the journal; never waits."""
        self.tell(event.name, **event.data)

    def tell(self, name: str, **data: Any) -> None:
        """Remember an event of the gateway."""
        if name == ACCEPTED:
            self._payments.append(data)
        else:
            self._others.append((name, data))
        self._arrived.set()

    async def run(self) -> None:
        """Store what arrives until cancelled; what a full disk refuses is tried again."""
        while True:
            await self._arrived.wait()
            await asyncio.sleep(GATHER_S)
            self._arrived.clear()
            if not await self.flush():
                await asyncio.sleep(RETRY_S)
                self._arrived.set()

    def stop(self) -> None:
        """End every stream."""
        self._ended = True
        self._wake()

    async def flush(self) -> bool:
        """Store what waits; false, and all of it kept, when the store refuses."""
        payments, others = list(self._payments), list(self._others)
        rows = [(name, data) for name, data in others]
        for first in range(0, len(payments), PAYMENTS_A_EVENT):
            rows.append((ACCEPTED, {"payments": payments[first : first + PAYMENTS_A_EVENT]}))
        if not rows:
            return True
        now_ms = self._clock.now_ms()
        encoded = [(name, msgspec.json.encode(data), now_ms) for name, data in rows]

        def write(connection: Connection) -> None:
            append_events(connection, encoded)

        try:
            await self._database.write(write)
        except StoreError as error:
            _log.warning("events.waiting", code=error.code)
            return False
        for _ in payments:
            self._payments.popleft()
        for _ in others:
            self._others.popleft()
        self._wake()
        return True

    async def prune(self) -> None:
        """Forget all but the newest. Raises: StoreError."""
        await self._database.write(lambda connection: prune_events(connection, self._kept))

    async def after(self, event_id: int, *, limit: int = PAGE) -> list[StoredEvent]:
        """Stored events after an id. Raises: StoreError."""
        return await self._database.read(lambda c: events_after(c, event_id, limit))

    async def stream(self, event_id: int) -> AsyncIterator[list[StoredEvent]]:
        """Pages of events after an id, then those that come; an empty page is a sign of life."""
        while not self._ended:
            changed = self._stored
            page = await self.after(event_id)
            if page:
                event_id = page[-1].id
                yield page
                continue
            try:
                async with asyncio.timeout(ALIVE_S):
                    await changed.wait()
            except TimeoutError:
                yield []

    def _wake(self) -> None:
        changed, self._stored = self._stored, asyncio.Event()
        changed.set()
