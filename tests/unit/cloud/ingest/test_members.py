"""Who takes which partition, as workers come, go and fall silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from cloud.ingest.handed import partition_of
from cloud.ingest.members import TOPIC, Alone, Members, owner_of
from cloud.stream.api import StreamError
from cloud.stream.local import LocalStream

PARTITIONS = 64
WAIT_S = 20


@given(st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True), st.randoms())
def test_all_come_to_the_same_owner(names: list[str], random: object) -> None:
    mixed = list(names)
    random.shuffle(mixed)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    for partition in range(PARTITIONS):
        assert owner_of(partition, names) == owner_of(partition, mixed)


def test_few_partitions_move_when_one_comes_or_goes() -> None:
    names = ["a", "b", "c"]
    before = {place: owner_of(place, names) for place in range(PARTITIONS)}
    after = {place: owner_of(place, [*names, "d"]) for place in range(PARTITIONS)}
    moved = {place for place in before if before[place] != after[place]}
    assert {after[place] for place in moved} == {"d"}
    assert len(moved) < PARTITIONS // 2
    assert min(Counter(before.values()).values()) > PARTITIONS // 10


def test_a_journal_has_one_partition_for_life() -> None:
    journals = [bytes([number] * 20) for number in range(200)]
    places = [partition_of(journal, partitions=32) for journal in journals]
    assert set(places) == set(range(32))
    # As it is in every release: fronts and workers of two of them may meet.
    assert places[:6] == [0, 28, 9, 7, 8, 14]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def test_workers_share_the_partitions_and_take_over_from_who_left() -> None:
    stream = LocalStream()
    one, two = Members(stream, name="one"), Members(stream, name="two")

    def all_once() -> bool:
        owned = [*one.owned(PARTITIONS), *two.owned(PARTITIONS)]
        return sorted(owned) == list(range(PARTITIONS))

    async with one.meeting(), two.meeting():
        await until(all_once)
        assert one.owned(PARTITIONS) and two.owned(PARTITIONS)
        await two.leave()
        await until(lambda: one.owned(PARTITIONS) == set(range(PARTITIONS)))
        # It stays gone, though it still hears of others and finishes what it has in hand.
        await stream.say(TOPIC, b"three")
        await until(lambda: one.owned(PARTITIONS) != set(range(PARTITIONS)))
        assert "two" not in one._heard


async def test_a_worker_that_is_silent_is_no_longer_counted() -> None:
    stream = LocalStream()
    one = Members(stream, name="one", beat_s=0.02, silent_s=0.1)
    async with one.meeting():
        async with asyncio.timeout(WAIT_S):
            await stream.say(TOPIC, b"killed")
            await one.changed()
        assert one.owned(PARTITIONS) != set(range(PARTITIONS))
        await until(lambda: one.owned(PARTITIONS) == set(range(PARTITIONS)))


class Mute(LocalStream):
    """A stream that is away at first."""

    silent = True

    async def say(self, topic: str, body: bytes) -> None:
        """See `Notices`."""
        if self.silent:
            raise StreamError("stream-unavailable", "away")
        await super().say(topic, body)


async def test_a_beat_that_nobody_hears_is_said_again() -> None:
    stream = Mute()
    one, two = Members(stream, name="one", beat_s=0.02), Members(stream, name="two", beat_s=0.02)
    async with one.meeting(), two.meeting():
        await one.changed()
        assert one.owned(PARTITIONS) == set(range(PARTITIONS))
        stream.silent = False
        await until(lambda: one.owned(PARTITIONS) != set(range(PARTITIONS)))


async def test_strangers_cannot_fill_its_memory() -> None:
    stream = LocalStream()
    one = Members(stream, name="one", members_max=3)
    async with one.meeting():
        for number in range(10):
            await stream.say(TOPIC, b"x" * 1_000 + bytes([number]) + str(number).encode())
            await stream.say(TOPIC, str(number).encode() * 100)
        await until(lambda: len(one._heard) == 3)
        assert all(len(name) <= 64 for name in one._heard)


async def test_one_alone_has_all() -> None:
    alone = Alone()
    assert alone.owned(3) == {0, 1, 2}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            await alone.changed()
            raise AssertionError("nothing ever changes")
