"""Reports of one, two and four journals at once: by the reconciler directly, and by JetStream.

Both begin with sealed reports and end with outcomes that are committed. Directly means one process,
as without `[stream]`; by JetStream a front hands them on, and two worker processes take them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvloop

from bench.branch import Bench, bench_journal
from bench.figures import Figure, figure, verify_pair
from bench.reconciler import Signing, agree, bench_database, middle, open_bank, reports
from bench.streamworker import READY, BenchOpening, stream_config
from cloud.database import Database
from cloud.ingest.front import Front
from cloud.ingest.intake import Directly, Intake
from cloud.reconciler.reconciler import Reconciler
from cloud.stream.jetstream import JetStream
from tests.support.live_issuer import LiveIssuer
from tests.support.nats import nats_server
from wallet.memory import collect_seldom
from wallet.protocol.sealed import seal

JOURNALS = (1, 2, 4)
ROUNDS, ROUND_REPORTS = 5, 16
# Of each journal, as several links would have it.
IN_FLIGHT = 4
WORKERS, HELPERS, DIRECT_HELPERS = 2, 1, 2
SEED = b"\x09" * 32

Round = tuple[float, float]


class Taking:
    """Sealed reports on their way through an intake, some of each journal at once."""

    def __init__(self, intake: Intake, opening: BenchOpening, journals: int) -> None:
        self._intake = intake
        self._opening = opening
        self._turns = [asyncio.Semaphore(IN_FLIGHT) for _ in range(journals)]
        self._order = [asyncio.Lock() for _ in range(journals)]

    async def take(self, number: int, sealed: bytes) -> int:
        """One report of a journal; its entries, once they are committed."""
        async with self._turns[number]:
            async with self._order[number]:
                up = await self._opening.open(sealed)
                now_ms = time.time_ns() // 1_000_000
                taking = asyncio.ensure_future(self._intake.take(sealed, up, now_ms=now_ms))
                await asyncio.sleep(0)  # it is on its way before the next one is opened
            taken = await taking
            end = up.claims.acknowledged_size + len(up.claims.entries)
            if taken.problem is not None or (taken.acknowledged or 0) < end:
                raise RuntimeError(f"not taken: {taken.acknowledged} of {end}, {taken.problem}")
            return len(up.claims.entries)

    async def rate(self, given: list[tuple[int, bytes]]) -> float:
        """Entries a second of these."""
        start = time.perf_counter()
        taken = await asyncio.gather(*[self.take(*report) for report in given])
        return sum(taken) / (time.perf_counter() - start)


async def rounds_of(
    taking: Taking, given: list[list[bytes]], ceiling: Callable[[], float]
) -> list[Round]:
    """The rounds: what each journal begins with, and what warms up, is not counted."""
    for at in (0, 1):
        await taking.rate([(number, each[at]) for number, each in enumerate(given)])
    collect_seldom()
    in_turn = itertools.chain.from_iterable(
        zip(
            *[[(number, one) for one in each[2:]] for number, each in enumerate(given)], strict=True
        )
    )
    rounds: list[Round] = []
    for chosen in _chunks(list(in_turn)):
        before = await asyncio.to_thread(ceiling)
        rate = await taking.rate(chosen)
        rounds.append((rate, (before + await asyncio.to_thread(ceiling)) / 2))
    return rounds


def _chunks(given: list[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    for at in range(0, len(given), ROUND_REPORTS):
        yield given[at : at + ROUND_REPORTS]


@contextlib.asynccontextmanager
async def directly(database: Database, bench: Bench) -> AsyncIterator[Intake]:
    """The reconciler in this process."""
    reconciler = Reconciler(
        database, anchor=bench.anchor, signing=Signing(bench.issuer), workers=DIRECT_HELPERS
    )
    try:
        yield Directly(reconciler)
    finally:
        await reconciler.close()


@contextlib.asynccontextmanager
async def by_jetstream(database: Database, bench: Bench) -> AsyncIterator[Intake]:
    """A front in this process; one node and the workers in their own."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cbdc-bench-")))
        server = await stack.enter_async_context(nats_server(folder))
        config = stream_config(server.url)
        for _ in range(WORKERS):
            stack.enter_context(worker_process(database.dsn, server.url, bench.issuer.root))
        stream = await JetStream.connect(config)
        stack.push_async_callback(stream.close)
        settlements = Reconciler(database, anchor=bench.anchor, signing=Signing(bench.issuer))
        stack.push_async_callback(settlements.close)
        front = Front(
            stream,
            settlements,
            name="bench",
            partitions=config.partitions,
            wait_s=config.outcome_wait_s,
        )
        await stack.enter_async_context(front.listening())
        yield front


@contextlib.contextmanager
def worker_process(dsn: str, url: str, root: bytes) -> Iterator[None]:
    """A worker that is ready."""
    given = [dsn, url, root.hex(), SEED.hex(), str(HELPERS)]
    command = [sys.executable, "-m", "bench.streamworker", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != READY:
                raise RuntimeError("a worker did not start")
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


Way = Callable[[Database, Bench], contextlib.AbstractAsyncContextManager[Intake]]


async def measured(way: Way, benches: list[Bench], given: list[list[bytes]]) -> Round:
    """The round of the median ratio, on a fresh database, whose account adds up afterwards."""
    opening = BenchOpening(SEED, benches[0].anchor)
    async with bench_database() as database:
        for bench in benches:
            await open_bank(database, bench)
        with verify_pair() as ceiling:
            async with way(database, benches[0]) as intake:
                taking = Taking(intake, opening, len(benches))
                found = middle(await rounds_of(taking, given, ceiling))
        await agree(database, sum(bench.journal.state.balance_total() for bench in benches))
    return found


async def sealed_reports(bench: Bench, segments: int) -> list[bytes]:
    """A journal's life, sealed to the bench's key."""
    envelopes, _ = await reports(bench, segments)
    recipient = BenchOpening(SEED, bench.anchor).recipient
    return [seal(envelope, recipient=recipient) for envelope in envelopes]


async def compare(journals: int) -> list[Figure]:
    """Both ways, with the same reports."""
    async with contextlib.AsyncExitStack() as stack:
        issuer = LiveIssuer()
        benches = [
            await stack.enter_async_context(bench_journal(issuer=issuer)) for _ in range(journals)
        ]
        segments = ROUNDS * ROUND_REPORTS // journals
        given = [await sealed_reports(bench, segments) for bench in benches]
        found = []
        ways: tuple[tuple[str, Way], ...] = (
            ("directly", directly),
            ("by JetStream, two workers", by_jetstream),
        )
        for name, way in ways:
            rate, beside = await measured(way, benches, given)
            found.append(
                figure(
                    f"reports of {journals} journal{'s' * (journals > 1)}, {name}",
                    rate,
                    "entries/s",
                    beside="libsodium verify, two processes",
                    beside_value=beside,
                )
            )
    return found


async def measure() -> list[Figure]:
    """All of them."""
    return [line for journals in JOURNALS for line in await compare(journals)]


def run() -> list[Figure]:
    """Measure on all the cores that there are: two."""
    return uvloop.run(measure())
