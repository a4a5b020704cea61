"""The stream inside a process: order, repetition, bounds, what is parked, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator

import pytest

from cloud.stream.api import Message, StreamError
from cloud.stream.local import REMEMBERED_MAX, LocalDelivery, LocalStream

WAIT_S = 10


def message(word: str, *, subject: str = "ingest.3") -> Message:
    """A message that is known by a word."""
    identity = hashlib.sha256(word.encode()).digest()
    return Message(subject=subject, identity=identity, body=word.encode())


@contextlib.asynccontextmanager
async def taking(
    stream: LocalStream, *, ahead: int = 1
) -> AsyncIterator[AsyncIterator[LocalDelivery]]:
    """Deliveries while the block runs."""
    async with contextlib.aclosing(stream.deliveries("ingest.3", ahead=ahead)) as deliveries:
        yield deliveries


async def first(deliveries: AsyncIterator[LocalDelivery]) -> LocalDelivery:
    """The next one, in a bounded time."""
    async with asyncio.timeout(WAIT_S):
        return await anext(deliveries)


async def nothing_more(stream: LocalStream, *, ahead: int = 1) -> None:
    """Nothing can be delivered now."""
    async with taking(stream, ahead=ahead) as deliveries:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(deliveries)


async def test_messages_come_in_order_one_at_a_time_and_a_repetition_is_one() -> None:
    stream = LocalStream()
    for word in ("one", "two", "one", "three", "two"):
        await stream.publish(message(word))
    async with taking(stream) as deliveries:
        for body in (b"one", b"two", b"three"):
            delivery = await first(deliveries)
            assert (delivery.message.body, delivery.attempt) == (body, 1)
            await nothing_more(stream)
            await delivery.done()
    # It is done for good: also when it is published once more.
    await stream.publish(message("one"))
    await nothing_more(stream)
    assert (await stream.figures()).waiting == 0


async def test_so_many_are_in_hand_as_the_taker_says() -> None:
    stream = LocalStream()
    for number in range(4):
        await stream.publish(message(str(number)))
    async with taking(stream, ahead=3) as deliveries:
        held = [await first(deliveries) for _ in range(3)]
        await nothing_more(stream, ahead=3)
        await held[1].done()
        assert (await first(deliveries)).message.body == b"3"


async def test_what_waits_is_delivered_when_it_comes() -> None:
    stream = LocalStream()
    async with taking(stream) as deliveries:
        coming = asyncio.create_task(first(deliveries))
        await asyncio.sleep(0)
        await stream.publish(message("one"))
        assert (await coming).message.body == b"one"


async def test_what_is_given_back_keeps_its_place_and_says_how_often_it_came() -> None:
    stream = LocalStream()
    for word in ("one", "two", "three"):
        await stream.publish(message(word))
    async with taking(stream, ahead=2) as deliveries:
        one, two = await first(deliveries), await first(deliveries)
        # The second first: the order is that of publication all the same.
        await two.again(after_s=0)
        await one.again(after_s=0)
        assert (await stream.figures()).redelivered == 2
        for body, attempt in ((b"one", 2), (b"two", 2), (b"three", 1)):
            delivery = await first(deliveries)
            assert (delivery.message.body, delivery.attempt) == (body, attempt)
            await delivery.done()
    assert (await stream.figures()).redelivered == 0


async def test_a_message_that_is_never_done_is_parked_and_holds_up_no_other() -> None:
    stream = LocalStream(attempts_max=3)
    await stream.publish(message("poison"))
    await stream.publish(message("good"))
    async with taking(stream) as deliveries:
        for attempt in (1, 2, 3):
            delivery = await first(deliveries)
            assert (delivery.message.body, delivery.attempt) == (b"poison", attempt)
            await delivery.again(after_s=0)
        assert (await first(deliveries)).message.body == b"good"
    assert [parked.body for parked in stream.parked] == [b"poison"]
    found = await stream.figures()
    assert (found.waiting, found.parked) == (1, 1)


async def test_what_a_taker_leaves_undone_comes_again_after_its_time() -> None:
    stream = LocalStream(held_s=0.05)
    await stream.publish(message("one"))
    async with taking(stream) as deliveries:
        left = await first(deliveries)
    async with taking(stream) as deliveries:
        delivery = await first(deliveries)
        assert (delivery.message.body, delivery.attempt) == (b"one", 2)
        # Whoever left it has no say any more in when it comes again.
        await left.again(after_s=0)
        await nothing_more(stream)
        await delivery.done()
        await left.done()
    assert (await stream.figures()).waiting == 0


async def test_what_was_left_may_still_be_done_in_time() -> None:
    stream = LocalStream()
    await stream.publish(message("one"))
    async with taking(stream) as deliveries:
        left = await first(deliveries)
    await left.done()
    await left.done()
    assert (await stream.figures()).waiting == 0


async def test_a_full_stream_refuses_and_takes_again_when_there_is_room() -> None:
    stream = LocalStream(messages_max=2, bytes_max=9)
    await stream.publish(message("one"))
    with pytest.raises(StreamError, match="stream-full"):
        await stream.publish(message("seven of them"))
    await stream.publish(message("two", subject="ingest.4"))
    with pytest.raises(StreamError, match="stream-full"):
        await stream.publish(message("six"))
    async with taking(stream) as deliveries:
        await (await first(deliveries)).done()
    await stream.publish(message("six"))


async def test_what_it_remembers_is_bounded() -> None:
    stream = LocalStream(messages_max=REMEMBERED_MAX * 2)
    for number in range(REMEMBERED_MAX + 1):
        await stream.publish(message(str(number)))
    assert len(stream._known) == REMEMBERED_MAX


async def test_a_closed_stream_ends_its_deliveries_and_takes_nothing() -> None:
    stream = LocalStream()
    async with taking(stream) as deliveries:
        coming = asyncio.create_task(anext(deliveries, None))
        await asyncio.sleep(0)
        await stream.close()
        assert await coming is None
    with pytest.raises(StreamError, match="stream-unavailable"):
        await stream.publish(message("one"))


async def test_words_are_heard_by_all_who_listen_then() -> None:
    stream = LocalStream()
    await stream.say("word", b"too early")
    async with stream.listening("word") as one, stream.listening("word") as two:
        await stream.say("word", b"hello")
        await stream.say("other", b"another topic")
        assert [await anext(one), await anext(two)] == [b"hello", b"hello"]
    await stream.say("word", b"too late")
