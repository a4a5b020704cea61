"""The streams that are needed at the servers: made when they are first used, and kept as wanted."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.js.errors
from nats.js import JetStreamContext, api

from cloud.stream.link import TROUBLE, Link, unavailable
from cloud.stream.settings import StreamConfig

PREFIX = "cbdc"
PARTS, PARKED = "CBDC_PARTS", "CBDC_PARKED"
# Of these families messages may be forgotten and cut: whoever made them has them still. Parts whose
# message was never published go by their age.
EXPIRING = frozenset({"ingest"})
_OTHER_CONFIGURATION = 10_058


class Making:
    """Makes streams, each once."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._made: set[str] = set()
        self._making = asyncio.Lock()

    async def family(self, subject: str) -> str:
        """The family of a subject, whose stream is there then. Raises: StreamError."""
        family = subject.split(".")[0]
        await self.ensure(stream_of(family))
        return family

    async def ensure(self, name: str) -> None:
        """Make a stream where it is missing, or give it today's configuration.

        Raises: StreamError.
        """
        async with self._making:
            if name in self._made:
                return
            wanted = configuration(self._link.config, name)
            jetstream = await self._link.jetstream()
            try:
                await _make(jetstream, wanted)
            except TROUBLE as error:
                raise unavailable(error) from error
            self._made.add(name)

    def forget(self) -> None:
        """Look after all of them again: somebody may have removed one."""
        self._made.clear()


async def _make(jetstream: JetStreamContext, wanted: api.StreamConfig) -> None:
    try:
        await jetstream.add_stream(wanted)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _OTHER_CONFIGURATION:
            raise
        await jetstream.update_stream(wanted)


def configuration(config: StreamConfig, name: str) -> api.StreamConfig:
    """Of a family, a work queue; of parts and of what is parked, a store."""
    word = name.removeprefix("CBDC_").lower()
    store = name in (PARTS, PARKED)
    more: dict[str, Any] = {}
    if not store:
        more = {
            "retention": api.RetentionPolicy.WORK_QUEUE,
            "max_msgs_per_subject": config.messages_max,
            "discard_new_per_subject": True,
        }
    if word in EXPIRING or name == PARTS:
        more["max_age"] = config.age_max_s
    return api.StreamConfig(
        name=name,
        subjects=[f"{PREFIX}.{word}.>"],
        storage=api.StorageType.FILE,
        num_replicas=config.replicas,
        max_bytes=config.bytes_max if store or word in EXPIRING else -1,
        discard=api.DiscardPolicy.NEW,
        duplicate_window=config.repetition_s,
        allow_direct=True,
        **more,
    )


def stream_of(family: str) -> str:
    """The stream's name."""
    return f"CBDC_{family.upper()}"
