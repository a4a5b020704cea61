"""A front and workers over the stream inside a process, with a reconciler that only counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cloud.errors import CloudError, DatabaseError
from cloud.ingest.front import Front
from cloud.ingest.handed import (
    Handed,
    Outcome,
    Unreadable,
    outcome_topic,
    pack,
    partition_of,
    partition_subject,
    unpack_handed,
    unpack_outcome,
)
from cloud.ingest.worker import TRIES, Worker
from cloud.reconciler.values import Ingested
from cloud.stream.api import Message, StreamError
from cloud.stream.local import LocalStream
from hsm.api import TokenGone
from tests.support.cloud_local import StepClock
from tests.support.reporting import Branch
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.refusals import Code, ProtocolError

PARTITIONS = 4
WAIT_S = 10


class Counting:
    """Keeps sizes as the reconciler does: what is there already changes nothing.

    `before`: what happens before a report is kept: it may raise, or wait.
    """

    def __init__(self) -> None:
        self.sizes: dict[bytes, int] = {}
        self.kept: list[tuple[bytes, int]] = []
        self.before: list[BaseException | asyncio.Event] = []
        self.asked: list[tuple[int, int] | None] = []
        self.started = asyncio.Event()

    async def ingest(self, up: VerifiedUp, *, now_ms: int) -> Ingested:
        """Keep what is new."""
        self.started.set()
        if self.before:
            first = self.before.pop(0)
            if isinstance(first, BaseException):
                raise first
            await first.wait()
        claims = up.claims
        size, end = (
            self.sizes.get(claims.journal, 0),
            claims.acknowledged_size + len(claims.entries),
        )
        self.kept += [(claims.journal, index) for index in range(size, end)]
        self.sizes[claims.journal] = max(size, end)
        return Ingested(acknowledged=self.sizes[claims.journal])

    def settled(self, journal: bytes, epoch: int) -> tuple[int, int] | None:
        """Of a size, at a time."""
        return self.sizes.get(journal, 0), 7

    async def settlements_after(
        self, journal: bytes, epoch: int, size: int, *, settled: tuple[int, int] | None = None
    ) -> list[bytes]:
        """One, always."""
        self.asked.append(settled)
        return [b"settlement"]


class Sealed:
    """Reports by what stands for their sealed bytes."""

    def __init__(self, *reports: VerifiedUp) -> None:
        self.reports = {report.raw: report for report in reports}
        self.opened = 0
        self.going_on = asyncio.Event()
        self.going_on.set()

    async def open(self, sealed: bytes) -> VerifiedUp:
        """See `Opening`."""
        self.opened += 1
        await self.going_on.wait()
        if sealed not in self.reports:
            raise ProtocolError(Code.NOT_OPENED, "another's")
        return self.reports[sealed]


class World:
    """A stream, a front and what a worker needs."""

    def __init__(self, *, wait_s: float = WAIT_S, attempts_max: int = 10) -> None:
        self.stream = LocalStream(held_s=0.05, attempts_max=attempts_max)
        self.reconciler = Counting()
        self.branch = Branch("north")
        self.report = self.branch.report()
        self.opening = Sealed(self.report)
        self.front = Front(
            self.stream, self.reconciler, name="front", partitions=PARTITIONS, wait_s=wait_s
        )

    def worker(self, **changed: Any) -> Worker:
        """A new one."""
        return Worker(
            self.stream,
            self.reconciler,
            self.opening,
            clock=StepClock(),
            partitions=PARTITIONS,
            **{"retry_s": 0.002, "drain_s": WAIT_S, **changed},
        )

    async def take(self) -> Any:
        """The report, by the front."""
        async with asyncio.timeout(WAIT_S):
            return await self.front.take(self.report.raw, self.report, now_ms=0)


@contextlib.asynccontextmanager
async def at_work(worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """A worker while the block runs."""
    task = asyncio.create_task(worker.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until_empty(stream: LocalStream) -> None:
    """Wait until nothing is left to do."""
    async with asyncio.timeout(WAIT_S):
        while (await stream.figures()).waiting:
            await asyncio.sleep(0.005)


async def test_a_report_is_kept_once_and_its_outcome_comes_back() -> None:
    world = World()
    async with world.front.listening(), at_work(world.worker()):
        taken = await world.take()
        again = await world.take()
    assert (taken.acknowledged, taken.problem) == (world.branch.size, None)
    assert (taken.settlements, again) == ([b"settlement"], taken)
    assert len(world.reconciler.kept) == world.branch.size
    # What the worker's replica says counts, not what this process happens to know.
    assert world.reconciler.asked == [(world.branch.size, 7)] * 2
    assert (await world.stream.figures()).waiting == 0


async def test_what_this_process_opened_is_not_opened_again() -> None:
    world = World()
    async with world.front.listening(), at_work(world.worker(opened=world.front.opened)):
        await world.take()
        assert world.opening.opened == 0
    async with world.front.listening(), at_work(world.worker()):
        await world.take()
        assert world.opening.opened == 1


async def test_without_a_worker_the_front_says_nothing_of_it_after_its_time() -> None:
    world = World(wait_s=0.05)
    async with world.front.listening():
        taken = await world.take()
        assert (taken.acknowledged, taken.problem) == (None, None)
        # The report waits for a worker all the same.
        async with at_work(world.worker()):
            await until_empty(world.stream)
    assert world.reconciler.sizes == {world.branch.book.journal: world.branch.size}


async def test_a_full_stream_is_told_at_once() -> None:
    world = World()
    world.stream._messages_max = 0
    async with world.front.listening():
        with pytest.raises(StreamError, match="stream-full"):
            await world.take()
    assert world.front._waiting == {}


async def test_a_failure_is_told_to_the_gateway_which_keeps_what_it_has() -> None:
    world = World()
    world.reconciler.before = [CloudError("replica-broken", "the root"), TokenGone("pulled")]
    async with world.front.listening(), at_work(world.worker()):
        with pytest.raises(CloudError, match="replica-broken: the root"):
            await world.take()
        await until_empty(world.stream)
        # It sends it again; the next failure passes by itself.
        assert (await world.take()).acknowledged == world.branch.size


async def test_a_failure_that_passes_is_tried_again_before_anybody_hears_of_it() -> None:
    world = World()
    world.reconciler.before = [DatabaseError("database-busy"), DatabaseError("database-busy")]
    async with world.front.listening(), at_work(world.worker()):
        assert (await world.take()).acknowledged == world.branch.size
        world.reconciler.before = [DatabaseError("database-unavailable")] * TRIES
        with pytest.raises(CloudError, match="database-unavailable"):
            await world.take()
        await until_empty(world.stream)


async def test_a_report_that_breaks_the_rules_of_the_house_stops_no_other() -> None:
    world = World()
    world.reconciler.before = [KeyError("a bug")]
    async with world.front.listening(), at_work(world.worker()) as task:
        with pytest.raises(CloudError, match="internal-fault"):
            await world.take()
        assert (await world.take()).acknowledged == world.branch.size
        assert not task.done()


async def test_what_cannot_be_opened_is_told() -> None:
    world = World()
    world.opening.reports.clear()
    async with world.front.listening(), at_work(world.worker()):
        with pytest.raises(CloudError, match="not-opened"):
            await world.take()


async def test_what_is_no_report_is_parked_and_stops_no_other() -> None:
    world = World(attempts_max=3)
    place = partition_of(world.branch.book.journal, partitions=PARTITIONS)
    await world.stream.publish(
        Message(subject=partition_subject(place), identity=bytes(32), body=b"garbage")
    )
    async with world.front.listening(), at_work(world.worker()):
        assert (await world.take()).acknowledged == world.branch.size
        await until_empty(world.stream)
    assert [message.body for message in world.stream.parked] == [b"garbage"]


async def test_a_worker_that_stops_finishes_what_it_has_in_hand() -> None:
    world = World()
    going_on = asyncio.Event()
    world.reconciler.before = [going_on]
    async with world.front.listening(), at_work(world.worker()) as task:
        taking = asyncio.create_task(world.take())
        await world.reconciler.started.wait()
        task.cancel()
        await asyncio.sleep(0)
        going_on.set()
        assert (await taking).acknowledged == world.branch.size
        await until_empty(world.stream)


async def test_what_a_stopped_worker_could_not_finish_comes_to_another_one() -> None:
    world = World()
    world.reconciler.before = [asyncio.Event()]
    async with world.front.listening():
        async with at_work(world.worker(drain_s=0.01)) as task:
            taking = asyncio.create_task(world.take())
            await world.reconciler.started.wait()
            task.cancel()
        async with at_work(world.worker()):
            assert (await taking).acknowledged == world.branch.size
    assert len(world.reconciler.kept) == world.branch.size


async def test_what_a_stopped_worker_was_opening_goes_back_at_once() -> None:
    world = World()
    world.stream._held_s = 3_600.0
    world.opening.going_on.clear()
    async with world.front.listening():
        async with at_work(world.worker()) as task:
            taking = asyncio.create_task(world.take())
            async with asyncio.timeout(WAIT_S):
                while not world.opening.opened:
                    await asyncio.sleep(0.001)
            task.cancel()
        world.opening.going_on.set()
        async with at_work(world.worker()):
            assert (await taking).acknowledged == world.branch.size


async def test_a_worker_takes_only_what_is_its_own() -> None:
    world = World(wait_s=0.05)

    class Sharing:
        """Nothing at first, then all."""

        def __init__(self) -> None:
            self.places: set[int] = set()
            self.moved = asyncio.Event()

        def owned(self, partitions: int) -> set[int]:
            return self.places

        async def changed(self) -> None:
            await self.moved.wait()
            self.moved.clear()

    sharing = Sharing()
    async with world.front.listening(), at_work(world.worker(sharing=sharing)):
        assert (await world.take()).acknowledged is None
        sharing.places = set(range(PARTITIONS))
        sharing.moved.set()
        await until_empty(world.stream)
        sharing.places = set()
        sharing.moved.set()
        async with asyncio.timeout(WAIT_S):
            while sharing.moved.is_set():
                await asyncio.sleep(0.001)
        assert (await world.take()).acknowledged is None


async def test_a_worker_without_a_stream_ends() -> None:
    world = World()
    async with at_work(world.worker()) as task:
        await asyncio.sleep(0)
        await world.stream.close()
        with pytest.raises(StreamError, match="stream-unavailable"):
            async with asyncio.timeout(WAIT_S):
                await task


async def test_strange_outcomes_change_nothing() -> None:
    world = World()
    async with world.front.listening(), at_work(world.worker()):
        await world.stream.say(outcome_topic("front"), b"garbage")
        await world.stream.say(outcome_topic("front"), pack(Outcome(identity=bytes(32))))
        assert (await world.take()).acknowledged == world.branch.size


def test_what_is_written_is_read_again() -> None:
    handed = Handed(front="one", sealed=b"sealed")
    outcome = Outcome(identity=bytes(32), acknowledged=5, problem="bad-signature", settled=(4, 9))
    assert unpack_handed(pack(handed)) == handed
    assert unpack_outcome(pack(outcome)) == outcome
    for broken in (b"", b"\xc1", pack(handed)[:-1], pack(Outcome(identity=b""))):
        with pytest.raises(Unreadable):
            unpack_handed(broken)
    with pytest.raises(Unreadable):
        unpack_outcome(b"\x80")
