"""What the stream by NATS does when messages, servers or streams fail: nothing is lost silently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest

from cloud.stream.api import StreamError
from cloud.stream.jetstream import JetStream
from cloud.stream.making import PARKED, PARTS
from tests.support.nats import NatsServer, nats_server, stream_config
from tests.support.taking import WAIT_S, first, message, nothing_more, taking

MIB = 1 << 20


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """One node."""
    async with nats_server(tmp_path) as started:
        yield started


@pytest.fixture
async def stream(server: NatsServer) -> AsyncIterator[JetStream]:
    """An open stream at it."""
    opened = await JetStream.connect(stream_config(server))
    yield opened
    await opened.close()


async def test_a_message_that_is_never_done_is_parked_and_holds_up_no_other(
    server: NatsServer,
) -> None:
    stream = await JetStream.connect(stream_config(server, attempts_max=3))
    await stream.publish(message("poison"))
    await stream.publish(message("good"))
    async with taking(stream) as deliveries:
        for attempt in (1, 2, 3):
            delivery = await first(deliveries)
            assert (delivery.message.body, delivery.attempt) == (b"poison", attempt)
            await delivery.again(after_s=0)
        assert (await first(deliveries)).message.body == b"good"
    assert (await stream.figures()).parked == 1
    client = await nats.connect(server.url)
    found = await client.jetstream().get_msg(PARKED, seq=1)
    assert found.data == b"poison"
    await client.close()
    await stream.close()


async def test_what_no_front_published_is_parked(server: NatsServer, stream: JetStream) -> None:
    await stream.publish(message("good"))
    client = await nats.connect(server.url)
    await client.jetstream().publish("cbdc.ingest.3", b"stranger")
    await client.jetstream().publish(
        "cbdc.ingest.3", b"", headers={"Nats-Msg-Id": "ab", "Cbdc-Parts": "many"}
    )
    await client.close()
    async with taking(stream) as deliveries:
        await (await first(deliveries)).done()
        await nothing_more(stream, for_s=1)
    assert (await stream.figures()).parked == 2
    assert (await stream.figures()).waiting == 0


async def test_what_is_parked_is_delivered_again_when_somebody_says_so(
    server: NatsServer,
) -> None:
    stream = await JetStream.connect(stream_config(server, attempts_max=2, repetition_s=1))
    client = await nats.connect(server.url)
    await stream.publish(message("unlucky"))
    await client.jetstream().publish("cbdc.ingest.3", b"stranger")
    async with taking(stream) as deliveries:
        for _ in range(2):
            await (await first(deliveries)).again(after_s=0)
        await nothing_more(stream, for_s=1)
    parked = await stream.parked()
    assert [(one.subject, one.body, one.attempts) for one in parked] == [
        ("ingest.3", b"unlucky", 3),
        ("ingest.3", b"stranger", 1),
    ]
    async with asyncio.timeout(WAIT_S):
        # Not while the server would take it for a repetition.
        while not await stream.retry(parked[0]):
            await asyncio.sleep(0.1)
    assert not await stream.retry(parked[1])
    async with taking(stream) as deliveries:
        delivery = await first(deliveries)
        assert (delivery.message, delivery.attempt) == (message("unlucky"), 1)
        await delivery.done()
    assert [one.body for one in await stream.parked()] == [b"stranger"]
    await client.close()
    await stream.close()


async def test_a_report_whose_parts_are_gone_is_parked(
    server: NatsServer, stream: JetStream
) -> None:
    await stream.publish(message("large", body=bytes(2 * MIB)))
    await stream.publish(message("small"))
    client = await nats.connect(server.url)
    await client.jetstream().purge_stream(PARTS, keep=1)
    await client.close()
    async with taking(stream) as deliveries:
        assert (await first(deliveries)).message.body == b"small"
    assert (await stream.figures()).parked == 1


async def test_a_server_that_restarts_has_what_it_said_it_keeps(
    server: NatsServer, stream: JetStream
) -> None:
    await stream.publish(message("one"))
    async with taking(stream) as deliveries:
        await (await first(deliveries)).done()
        server.kill()
        publishing = asyncio.create_task(stream.publish(message("two")))
        await asyncio.sleep(0)
        await server.start()
        async with asyncio.timeout(WAIT_S):
            await publishing
        delivery = await first(deliveries)
        assert delivery.message.body == b"two"
        await delivery.done()


async def test_streams_that_somebody_removed_are_made_anew(
    server: NatsServer, stream: JetStream
) -> None:
    await stream.publish(message("one"))
    async with taking(stream) as deliveries:
        await (await first(deliveries)).done()
        client = await nats.connect(server.url)
        await client.jetstream().delete_stream("CBDC_INGEST")
        await client.close()
        coming = asyncio.create_task(first(deliveries))
        await stream.publish(message("two"))
        assert (await coming).message.body == b"two"


async def test_a_connection_that_the_server_ended_for_good_is_made_anew(
    stream: JetStream,
) -> None:
    async with stream.listening("word") as heard, taking(stream) as deliveries:
        await stream.publish(message("one"))
        await (await first(deliveries)).done()
        # After this the driver does not come back by itself.
        client = await stream._link.ready()
        assert client._transport is not None
        client._transport.write(b"NONSENSE\r\n")
        coming, hearing = (
            asyncio.ensure_future(first(deliveries)),
            asyncio.ensure_future(anext(heard)),
        )
        async with asyncio.timeout(WAIT_S):
            while not client.is_closed:
                await asyncio.sleep(0.01)
            await stream.publish(message("two"))
            assert (await coming).message.body == b"two"
            while not hearing.done():
                await stream.say("word", b"hello")
                await asyncio.sleep(0.05)
        assert hearing.result() == b"hello"
        assert await stream._link.ready() is not client


async def test_without_a_server_everything_has_an_end_and_a_code(
    server: NatsServer,
) -> None:
    config = stream_config(server, connect_timeout_s=1, request_timeout_s=1)
    stream = await JetStream.connect(config, tries=1)
    await stream.publish(message("one"))
    async with taking(stream) as deliveries:
        delivery = await first(deliveries)
        server.kill()
        with pytest.raises(StreamError, match="stream-unavailable"):
            await delivery.done()
    with pytest.raises(StreamError, match="stream-unavailable"):
        await stream.figures()
    with pytest.raises(StreamError, match="stream-unavailable"):
        await JetStream.connect(config)
    await stream.close()
    with pytest.raises(StreamError, match="stream-unavailable"):
        await stream.say("word", b"")
    await server.start()
