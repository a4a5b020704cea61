"""The engine in process on one core: durable payments with receipts, batches as they form."""

from __future__ import annotations

import asyncio
import os
import time

import uvloop

from bench.branch import Bench, bench_journal, taken
from bench.figures import Figure, figure, percentile, verify_rate
from wallet.memory import collect_seldom
from wallet.store.journal import entry_count

PAYMENTS = 3_200
ALONE = 300
CALLERS = 512
# Short rounds: a machine that changes its pace does so for the payments and for their ceiling.
ROUNDS = 15


async def rate_of(bench: Bench, orders: list[bytes], *, callers: int) -> tuple[float, list[float]]:
    """(payments a second, seconds that each took)."""
    waiting, times = iter(orders), list[float]()

    async def pay() -> None:
        for order in waiting:
            start = time.perf_counter()
            taken(await bench.journal.pay(order))
            times.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*[pay() for _ in range(callers)])
    # What the payments left to do in the background belongs to them.
    while bench.journal._engine.names.moving is not None:
        await bench.database.read(entry_count)
    return len(orders) / (time.perf_counter() - start), times


async def measure() -> list[Figure]:
    """Rounds, each with its own ceiling right before and after; the median counts."""
    async with bench_journal() as bench:
        await rate_of(bench, bench.orders(2_000), callers=CALLERS)  # warm
        collect_seldom()
        rounds = []
        for _ in range(ROUNDS):
            orders = bench.orders(PAYMENTS)
            before = verify_rate()
            rate, times = await rate_of(bench, orders, callers=CALLERS)
            ceiling = (before + verify_rate()) / 2
            rounds.append((rate / ceiling, rate, ceiling, percentile(times, 0.99)))
        _, rate, ceiling, p99 = sorted(rounds)[ROUNDS // 2]
        _, times = await rate_of(bench, bench.orders(ALONE), callers=1)
    return [
        figure(
            "engine, one core, 512 callers",
            rate,
            "payments/s",
            beside="libsodium verify, one core",
            beside_value=ceiling,
            goal=">= 0.40",
        ),
        figure(
            "engine, one order alone, p50",
            percentile(times, 0.5) * 1000,
            "ms",
            beside="p99 with 512 callers",
            beside_value=p99 * 1000,
        ),
    ]


def run() -> list[Figure]:
    """Pin this process to one core and measure."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return uvloop.run(measure())
