"""Reports through the stream: what `run` hands on, and the process of `cbdc-cloud worker`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator

import uvloop

from cloud.clock import SystemClock
from cloud.config import Config
from cloud.errors import CloudError, ConfigError
from cloud.ingest.front import Front
from cloud.ingest.members import NAME_BYTES_MAX, Members
from cloud.ingest.opening import DeskOpening
from cloud.ingest.worker import Worker
from cloud.log import Log, start_logging
from cloud.service import Cloud, open_cloud
from cloud.shards.carrying import carrying
from cloud.stream.api import Carrier
from cloud.stream.jetstream import JetStream
from cloud.stream.local import LocalStream
from cloud.stream.settings import StreamConfig
from hsm.api import HsmError
from wallet.memory import collect_seldom

REFRESH_S = 900
# What the queue inside a process may hold of its memory.
LOCAL_BYTES_MAX = 256 << 20
_log = Log("worker")


@contextlib.asynccontextmanager
async def open_stream(config: StreamConfig) -> AsyncIterator[Carrier]:
    """The configured stream while the block runs. Raises: StreamError, ConfigError."""
    stream: Carrier
    if config.servers:
        stream = await JetStream.connect(config)
    else:
        stream = LocalStream(
            messages_max=config.messages_max,
            bytes_max=min(config.bytes_max, LOCAL_BYTES_MAX),
            attempts_max=config.attempts_max,
        )
    try:
        yield stream
    finally:
        await stream.close()


@contextlib.asynccontextmanager
async def handing_on(cloud: Cloud) -> AsyncIterator[Carrier]:
    """Reports go through the stream while the block runs; gives the stream.

    Where no servers are configured, this process takes them from it itself.
    """
    config = cloud.config.stream
    # A worker of this process is not killed: its gateways wait as long as a report may take.
    wait_s = config.outcome_wait_s if config.servers else cloud.config.limits.report_timeout_s
    async with open_stream(config) as stream, contextlib.AsyncExitStack() as stack:
        front = Front(
            stream,
            cloud.reconciler,
            name=process_name(),
            partitions=config.partitions,
            wait_s=wait_s,
        )
        await stack.enter_async_context(front.listening())
        if not config.servers:
            await stack.enter_async_context(_carrying(cloud, stream))
            opening = DeskOpening(cloud.database, cloud.desk)
            worker = Worker(
                stream,
                cloud.reconciler,
                opening,
                clock=cloud.clock,
                partitions=config.partitions,
                opened=front.opened,
            )
            await stack.enter_async_context(_working(worker))
        before, cloud.exchange.intake, cloud.stream = cloud.exchange.intake, front, stream
        try:
            yield stream
        finally:
            cloud.exchange.intake, cloud.stream = before, None


def _carrying(cloud: Cloud, stream: Carrier) -> contextlib.AbstractAsyncContextManager[None]:
    """What shards tell each other goes through the same stream, by whoever reconciles."""
    return carrying(cloud.shards, stream, anchor=cloud.desk.anchor, clock=cloud.clock)


def process_name() -> str:
    """A name that no other process has: machine, number and chance."""
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    allowed = "".join(letter if letter.isalnum() else "-" for letter in name)
    return allowed.encode("ascii", "replace").decode().replace("?", "-")[-NAME_BYTES_MAX:]


@contextlib.asynccontextmanager
async def _working(worker: Worker) -> AsyncIterator[None]:
    """A worker while the block runs; what it has in hand then is finished. Raises: what ends it."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run())
        try:
            yield
        finally:
            task.cancel()


async def work(config: Config) -> None:
    """Reconcile what fronts hand on, until SIGTERM or SIGINT. Raises: CloudError, HsmError."""
    if not config.stream.servers:
        raise ConfigError("config-invalid", "a worker needs stream.servers")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    opening = open_cloud(
        config,
        clock=SystemClock(),
        verifying_processes=config.stream.verifying_processes,
        patient=True,
    )
    async with (
        opening as cloud,
        open_stream(config.stream) as stream,
        _carrying(cloud, stream),
    ):
        members = Members(stream, name=process_name())
        worker = Worker(
            stream,
            cloud.reconciler,
            DeskOpening(cloud.database, cloud.desk),
            clock=cloud.clock,
            partitions=config.stream.partitions,
            sharing=members,
        )
        async with members.meeting(), asyncio.TaskGroup() as group:
            collect_seldom()
            working = group.create_task(worker.run())
            refreshing = group.create_task(_refresh(cloud))
            _log.info("worker.ready", name=members.name)
            await stopping.wait()
            refreshing.cancel()
            await members.leave()
            working.cancel()
        _log.info("worker.stopped", name=members.name)


async def _refresh(cloud: Cloud) -> None:
    """Have the keys and certificates of now; a failure is tried again at the next turn."""
    while True:
        await asyncio.sleep(REFRESH_S)
        try:
            async with cloud.database.transaction() as connection:
                await cloud.desk.refresh(connection, now_ms=cloud.clock.now_ms())
        except (CloudError, HsmError) as error:
            _log.warning("refresh.failed", code=error.code)


def run_worker(config: Config) -> None:
    """Run the loop. Raises: CloudError, HsmError, OSError."""
    start_logging("info")
    uvloop.run(work(config))
