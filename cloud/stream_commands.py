"""`cbdc-cloud stream`: what waits in the stream, and what was set aside for people to look at."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from cloud.config import Config
from cloud.errors import ConfigError
from cloud.stream.jetstream import JetStream
from cloud.stream.labels import Parked

WELL, DEGRADED = 0, 3


def add_stream(verbs: Any) -> None:
    """Add the commands; they talk to the servers themselves."""
    stream = verbs.add_parser("stream", help="what waits between fronts, workers and shards")
    actions = stream.add_subparsers(dest="action", required=True, metavar="ACTION")
    shown = actions.add_parser("status", help="how many messages wait, and which are parked")
    shown.set_defaults(run=status)
    again = actions.add_parser("retry", help="deliver what is parked once more")
    again.set_defaults(run=retry)


@contextlib.asynccontextmanager
async def _connected(config: Config) -> AsyncIterator[JetStream]:
    if not config.stream.servers:
        raise ConfigError("config-invalid", "without stream.servers nothing is kept in a stream")
    stream = await JetStream.connect(config.stream)
    try:
        yield stream
    finally:
        await stream.close()


async def status(config: Config, options: argparse.Namespace) -> int:
    """How many messages there are; 3 where something is parked."""
    async with _connected(config) as stream:
        found, parked = await stream.figures(), await stream.parked()
    print(f"waiting {found.waiting}, of these delivered again {found.redelivered}")
    for one in parked:
        size = f"{len(one.body):,} bytes"
        print(f"parked: {one.subject} {one.identity} after {one.attempts} deliveries, {size}")
    return DEGRADED if found.parked else WELL


async def retry(config: Config, options: argparse.Namespace) -> int:
    """Publish what is parked again; 3 where something stays."""
    stays = 0
    async with _connected(config) as stream:
        for one in await stream.parked():
            done = await stream.retry(one)
            stays += not done
            print(f"{one.subject} {one.identity}: {_said(one, done=done)}")
    return DEGRADED if stays else WELL


def _said(parked: Parked, *, done: bool) -> str:
    if done:
        return "delivered again"
    if parked.message is not None:
        return "was published a moment ago: try it in two minutes"
    return "stays: it is no message of a front or relay, or was too large to keep"
