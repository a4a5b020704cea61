"""The stream by a real NATS server: order, repetition, bounds, parts, and what is parked."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest

from cloud.stream.api import StreamError
from cloud.stream.jetstream import JetStream
from cloud.stream.making import PARTS
from tests.support.nats import NatsServer, nats_server, stream_config
from tests.support.taking import WAIT_S, first, message, nothing_more, taking
from tests.support.tls_pair import Authority

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


async def test_messages_come_in_order_one_at_a_time_and_a_repetition_is_one(
    stream: JetStream,
) -> None:
    for word in ("one", "two", "one", "three", "two"):
        await stream.publish(message(word))
    async with taking(stream) as deliveries:
        for body in (b"one", b"two", b"three"):
            delivery = await first(deliveries)
            assert (delivery.message.body, delivery.attempt) == (body, 1)
            assert (await stream.figures()).waiting >= 1
            await delivery.done()
        await nothing_more(stream)
    assert (await stream.figures()).waiting == 0


async def test_two_takers_of_a_subject_share_it_and_the_order_stays(stream: JetStream) -> None:
    for number in range(6):
        await stream.publish(message(str(number)))
    seen: list[bytes] = []

    async def take() -> None:
        async with taking(stream) as deliveries:
            async for delivery in deliveries:
                seen.append(delivery.message.body)
                await delivery.done()

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(take()) for _ in range(2)]
        while len(seen) < 6:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
    assert seen == [str(number).encode() for number in range(6)]


async def test_what_is_given_back_comes_again_before_the_next_and_says_so(
    stream: JetStream,
) -> None:
    await stream.publish(message("one"))
    await stream.publish(message("two"))
    async with taking(stream) as deliveries:
        await (await first(deliveries)).again(after_s=0.2)
        delivery = await first(deliveries)
        assert (delivery.message.body, delivery.attempt) == (b"one", 2)
        assert (await stream.figures()).redelivered == 1
        await delivery.done()
        assert (await first(deliveries)).message.body == b"two"


async def test_a_taker_that_is_killed_leaves_its_message_to_another_one(server: NatsServer) -> None:
    killed = await JetStream.connect(stream_config(server))
    other = await JetStream.connect(stream_config(server))
    await other.publish(message("one"))
    async with taking(killed) as deliveries:
        assert (await first(deliveries)).attempt == 1
        # A dead process says nothing any more.
        await killed.close()
    async with taking(other) as deliveries:
        delivery = await first(deliveries)
        assert (delivery.message.body, delivery.attempt) == (b"one", 2)
        await delivery.done()
    await other.close()


async def test_who_works_long_keeps_its_message(server: NatsServer) -> None:
    stream = await JetStream.connect(stream_config(server, ack_wait_s=1))
    await stream.publish(message("one"))
    async with taking(stream) as deliveries:
        delivery = await first(deliveries)
        await nothing_more(stream, for_s=2.5)
        await delivery.done()
    await nothing_more(stream, for_s=1.2)
    await stream.close()


async def test_a_full_subject_refuses_and_takes_again_when_there_is_room(
    server: NatsServer,
) -> None:
    stream = await JetStream.connect(stream_config(server, messages_max=2))
    await stream.publish(message("one"))
    await stream.publish(message("two"))
    with pytest.raises(StreamError, match="stream-full"):
        await stream.publish(message("three"))
    # Another partition has room of its own.
    await stream.publish(message("other", subject="ingest.4"))
    async with taking(stream) as deliveries:
        await (await first(deliveries)).done()
    await stream.publish(message("three"))
    await stream.close()


async def test_full_disks_refuse(server: NatsServer) -> None:
    stream = await JetStream.connect(stream_config(server, bytes_max=2 * MIB))
    await stream.publish(message("one", body=bytes(MIB - 8192)))
    await stream.publish(message("two", body=bytes(MIB - 8192)))
    with pytest.raises(StreamError, match="stream-full"):
        await stream.publish(message("three", body=bytes(MIB - 8192)))
    await stream.close()


async def test_a_large_report_goes_in_parts_and_comes_whole(
    server: NatsServer, stream: JetStream
) -> None:
    large = b"".join(hashlib.sha256(bytes([n % 256])).digest() for n in range(3 * MIB // 32)) + b"."
    await stream.publish(message("large", body=large))
    await stream.publish(message("small"))
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    assert (await jetstream.stream_info(PARTS)).state.messages == 4
    async with taking(stream) as deliveries:
        delivery = await first(deliveries)
        assert delivery.message.body == large
        await delivery.done()
        assert (await first(deliveries)).message.body == b"small"
    # Nothing of it is left.
    assert (await jetstream.stream_info(PARTS)).state.messages == 0
    await client.close()


async def test_what_must_not_be_forgotten_is_never_cut(stream: JetStream) -> None:
    with pytest.raises(StreamError, match="message-too-large"):
        await stream.publish(message("large", subject="shard.1", body=bytes(2 * MIB)))
    await stream.publish(message("small", subject="shard.1"))
    async with taking(stream, "shard.1") as deliveries:
        assert (await first(deliveries)).message.subject == "shard.1"


async def test_another_configuration_is_taken_over(server: NatsServer) -> None:
    before = await JetStream.connect(stream_config(server, messages_max=1))
    await before.publish(message("one"))
    after = await JetStream.connect(stream_config(server, messages_max=3))
    async with taking(after, ahead=2) as deliveries:
        await after.publish(message("two"))
        # Two may be in hand at once now.
        assert (await first(deliveries)).message.body == b"one"
        assert (await first(deliveries)).message.body == b"two"
    await before.close()
    await after.close()


async def test_words_are_heard_by_who_listens_and_after_a_restart(
    server: NatsServer, stream: JetStream
) -> None:
    async with stream.listening("word") as one, stream.listening("word") as two:
        await stream.say("word", b"hello")
        async with asyncio.timeout(WAIT_S):
            assert [await anext(one), await anext(two)] == [b"hello", b"hello"]
        server.kill()
        await server.start()

        async def say() -> None:
            while True:
                with contextlib.suppress(StreamError):
                    await stream.say("word", b"again")
                await asyncio.sleep(0.05)

        saying = asyncio.create_task(say())
        async with asyncio.timeout(WAIT_S):
            assert await anext(one) == b"again"
        saying.cancel()


async def test_the_servers_are_reached_by_tls_with_secrets_from_files(tmp_path: Path) -> None:
    authority = Authority()
    ours = authority.credentials()
    texts = {
        "server.pem": authority.pair,
        "ca.pem": authority.certificate,
        "ours.pem": ours.certificate,
        "ours.key": ours.key,
        "password": "a long word\n",
        "wrong": "another word",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    paths = {name: tmp_path / name for name in texts}
    more = (
        f'tls {{ cert_file: "{paths["server.pem"]}", key_file: "{paths["server.pem"]}",'
        f' ca_file: "{paths["ca.pem"]}", verify: true }}\n'
        'authorization { user: "cloud", password: "a long word" }\n'
    )
    async with nats_server(tmp_path / "nats", more=more) as server:
        known: dict[str, Any] = {
            "ca_file": paths["ca.pem"],
            "certificate_file": paths["ours.pem"],
            "key_file": paths["ours.key"],
            "user": "cloud",
            "password_file": paths["password"],
            "connect_timeout_s": 1,
        }
        stream = await JetStream.connect(stream_config(server, **known))
        await stream.publish(message("one"))
        await stream.close()
        changes: list[dict[str, Any]] = [
            {"password_file": paths["wrong"]},
            {"certificate_file": None, "key_file": None},
        ]
        for changed in changes:
            with pytest.raises(StreamError, match="stream-unavailable"):
                await JetStream.connect(stream_config(server, **{**known, **changed}))
