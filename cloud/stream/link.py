"""The connection to NATS: made again whenever it is lost, with a bounded wait each time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import nats.errors
from nats.aio.client import Client, Server
from nats.js import JetStreamContext

from cloud.log import Log
from cloud.stream.api import StreamError
from cloud.stream.settings import StreamConfig, connection_options
from sync.backoff import delay_ms

RETRY_FIRST_MS, RETRY_MOST_MS = 100, 5_000
PING_S, PINGS_MAX = 5, 2
HEARD_S = 5.0
END_S = 2.0
# The driver says these for whatever happens to a connection and to what is asked over it.
TROUBLE = (nats.errors.Error, OSError, TimeoutError)
_log = Log("stream")


class Link:
    """One connection at a time; `ready` gives it, and makes another where the last one ended."""

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def ready(self) -> Client:
        """The connection. Raises: StreamError `stream-unavailable`."""
        if self._closed:
            raise StreamError("stream-unavailable", "it is closed")
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
        return self._client

    async def jetstream(self) -> JetStreamContext:
        """The same for JetStream."""
        return (await self.ready()).jetstream(timeout=self.config.request_timeout_s)

    async def close(self) -> None:
        """End it: what was said before is sent."""
        self._closed = True
        async with self._connecting:
            if self._client is not None and not self._client.is_closed:
                with contextlib.suppress(*TROUBLE):
                    async with asyncio.timeout(self.config.request_timeout_s):
                        await self._client.flush()
                await _end(self._client)

    async def _connect(self) -> Client:
        options, client = connection_options(self.config), Client()
        try:
            async with asyncio.timeout(self.config.connect_timeout_s):
                await client.connect(
                    list(self.config.servers),
                    name="cbdc-cloud",
                    connect_timeout=self.config.request_timeout_s,
                    max_reconnect_attempts=-1,
                    ping_interval=PING_S,
                    max_outstanding_pings=PINGS_MAX,
                    reconnect_to_server_handler=_next_server,
                    error_cb=_failed,
                    disconnected_cb=_disconnected,
                    reconnected_cb=_reconnected,
                    **options,
                )
        except TROUBLE as error:
            await _end(client)
            raise unavailable(error) from error
        return client

    # ---- notices ----------------------------------------------------------------------------
    async def say(self, topic: str, body: bytes) -> None:
        """See `Notices`."""
        client = await self.ready()
        try:
            await client.publish(topic, body)
        except TROUBLE as error:
            raise unavailable(error) from error

    @contextlib.asynccontextmanager
    async def listening(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Notices`."""
        client = await self.ready()
        subscription = await self._subscribed(client, topic)
        heard = self._heard(topic, subscription)
        try:
            yield heard
        finally:
            await heard.aclose()

    async def _subscribed(self, client: Client, topic: str) -> Any:
        try:
            subscription = await client.subscribe(topic)
            await client.flush(timeout=self.config.request_timeout_s)
        except TROUBLE as error:
            raise unavailable(error) from error
        return subscription

    async def _heard(self, topic: str, subscription: Any) -> Any:
        """What is said; the driver resumes it after a lost connection, and this after an end."""
        failures = 0
        try:
            while True:
                heed()
                try:
                    message = await subscription.next_msg(timeout=HEARD_S)
                    heed()
                    failures = 0
                    yield message.data
                except TimeoutError:
                    continue
                except TROUBLE:
                    failures += 1
                    await pause(failures)
                    with contextlib.suppress(StreamError):
                        subscription = await self._subscribed(await self.ready(), topic)
        finally:
            with contextlib.suppress(*TROUBLE):
                await subscription.unsubscribe()


async def _end(client: Client) -> None:
    """Close it, also where there never was a connection or is none any more."""
    with contextlib.suppress(*TROUBLE):
        async with asyncio.timeout(END_S):
            await client.close()


def heed() -> None:
    """End a task that was cancelled while it waited for the driver.

    Before Python 3.12 `asyncio.wait_for` gives what came in the same moment, and forgets that.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def pause(failures: int) -> None:
    """The wait after so many failures in a row."""
    jitter = random.random()
    wait_ms = delay_ms(failures, jitter=jitter, first_ms=RETRY_FIRST_MS, most_ms=RETRY_MOST_MS)
    await asyncio.sleep(wait_ms / 1000)


def unavailable(error: BaseException) -> StreamError:
    """Whatever the driver says: the outcome is unknown."""
    return StreamError("stream-unavailable", f"{type(error).__name__}: {error}")


def _next_server(servers: list[Server], info: dict[str, Any]) -> tuple[Server, float]:
    """The server that failed least often lately, and how long to wait for it."""
    chosen = min(servers, key=lambda server: server.reconnects)
    wait_ms = delay_ms(
        chosen.reconnects,
        jitter=random.random(),
        first_ms=RETRY_FIRST_MS,
        most_ms=RETRY_MOST_MS,
    )
    return chosen, wait_ms / 1000


async def _failed(error: Exception) -> None:
    _log.warning("stream.trouble", error=type(error).__name__)


async def _disconnected() -> None:
    _log.info("stream.disconnected")


async def _reconnected() -> None:
    _log.info("stream.reconnected")
