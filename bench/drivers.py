"""Payments a second by each driver of keys, and by a token that signs five times a second.

SoftHSM2 and swtpm keep keys in files and sign at the pace of this processor: they show what the way
to a token costs. What a slow chip costs, the slowed signer shows: it waits before each signature.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import random
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from bench.branch import Bench, MakeToken, bench_journal, software_token, taken
from bench.engine import CALLERS, rate_of
from bench.figures import Figure, figure, percentile, resident_mib
from hsm import pkcs11
from hsm.api import Algorithm, Counter, Sealer, Token
from tests.support.softhsm import SoftHsm
from wallet.journal.engine import WAITING_MAX
from wallet.memory import collect_seldom, yield_soon

# Short rounds in turn: a machine that changes its pace does so for all drivers.
PAYMENTS = 1_280
ALONE = 40
ROUNDS = 9

SIGNING_S = 0.2
TERMINALS = 64
# How long a receipt and the next order are on their way between a terminal and the gateway.
LINE_S_MAX = 0.01
SLOW_PAYMENTS = 640
SLOW_ROUNDS = 5
ARRIVALS_A_SECOND = 1_000
ARRIVALS = 5_000
ARRIVAL_ROUNDS = 6
SAMPLED_EVERY = 100


class SlowSigner:
    """Signs as its token does, after a wait."""

    def __init__(self, token: Token) -> None:
        self._signer = token.signer
        self.algorithm: Algorithm = token.signer.algorithm
        self.public_key = token.signer.public_key
        self.wait_s = 0.0

    async def sign(self, message: bytes) -> bytes:
        """Wait, then sign. Raises: HsmError."""
        await asyncio.sleep(self.wait_s)
        return await self._signer.sign(message)


class SlowToken:
    """A token that signs slowly, once it is told how slowly."""

    def __init__(self, inner: Token) -> None:
        self._inner = inner
        self.driver = inner.driver
        self.signer = SlowSigner(inner)
        self.sealer: Sealer = inner.sealer
        self.counter: Counter = inner.counter

    async def probe(self) -> None:
        """As the token. Raises: HsmError."""
        await self._inner.probe()

    async def close(self) -> None:
        """As the token. Raises: HsmError."""
        await self._inner.close()


@contextlib.asynccontextmanager
async def benches() -> AsyncIterator[dict[str, Bench]]:
    """A journal on each driver that this machine has."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            made = {"software": await stack.enter_async_context(bench_journal())}
            make = _softhsm(stack, folder)
            made["SoftHSM2"] = await stack.enter_async_context(bench_journal(make))
            if importlib.util.find_spec("tpm2_pytss") is None:
                print("bench: the TPM library is not built here: no swtpm", file=sys.stderr)
            else:
                make = _swtpm(stack, folder)
                made["swtpm"] = await stack.enter_async_context(bench_journal(make))
            yield made


def _softhsm(stack: contextlib.AsyncExitStack, folder: Path) -> MakeToken:
    softhsm = SoftHsm(folder / "softhsm")
    softhsm.init_token()
    stack.enter_context(softhsm.in_this_process())

    async def make(token_folder: Path) -> Token:
        return await pkcs11.create(softhsm.config(token_folder))

    return make


def _swtpm(stack: contextlib.AsyncExitStack, folder: Path) -> MakeToken:
    # Imported here, for a machine without the library measures the others.
    from hsm import tpm
    from tests.support.swtpm import running_swtpm

    chip = stack.enter_context(running_swtpm(folder / "chip"))

    async def make(token_folder: Path) -> Token:
        return await tpm.create(chip.config(token_folder))

    return make


async def by_driver() -> list[Figure]:
    """Rounds of all drivers in turn; the median of each one's ratio to software counts."""
    async with benches() as made:
        for bench in made.values():
            await rate_of(bench, bench.orders(PAYMENTS), callers=CALLERS)  # warm
        rounds, alone = [], {name: list[float]() for name in made}
        for _ in range(ROUNDS):
            rates = dict[str, float]()
            for name, bench in made.items():
                rates[name], _ = await rate_of(bench, bench.orders(PAYMENTS), callers=CALLERS)
                _, times = await rate_of(bench, bench.orders(ALONE), callers=1)
                alone[name] += times
            rounds.append(rates)
    medians = {name: statistics.median(times) * 1000 for name, times in alone.items()}
    return [made for name in medians for made in _figures_of(name, rounds, medians)]


def _figures_of(
    name: str, rounds: list[dict[str, float]], alone: dict[str, float]
) -> tuple[Figure, Figure]:
    middle = sorted(rounds, key=lambda rates: rates[name] / rates["software"])[ROUNDS // 2]
    return (
        figure(
            f"{name}, {CALLERS} callers",
            middle[name],
            "payments/s",
            beside="software, in the same round",
            beside_value=middle["software"],
        ),
        figure(
            f"{name}, one order alone, p50",
            alone[name],
            "ms",
            beside="software",
            beside_value=alone["software"],
        ),
    )


@contextlib.asynccontextmanager
async def slowed() -> AsyncIterator[Bench]:
    """A journal whose token signs five times a second."""
    tokens = list[SlowToken]()

    async def make(folder: Path) -> Token:
        tokens.append(SlowToken(await software_token(folder)))
        return tokens[0]

    async with bench_journal(make) as bench:
        tokens[0].signer.wait_s = SIGNING_S
        yield bench
        tokens[0].signer.wait_s = 0.0


async def terminals_rate(bench: Bench) -> float:
    """Payments a second of terminals that each wait for their receipt, a line away."""
    waiting, loop = iter(bench.orders(SLOW_PAYMENTS)), asyncio.get_running_loop()

    async def terminal() -> None:
        for order in waiting:
            taken(await bench.journal.pay(order))
            await asyncio.sleep(random.uniform(0, LINE_S_MAX))

    start = loop.time()
    await asyncio.gather(*[terminal() for _ in range(TERMINALS)])
    return SLOW_PAYMENTS / (loop.time() - start)


class Arrivals:
    """Orders that come whether or not those before them were answered; all have to be accepted.

    `seconds`: from when each was due until its receipt.
    """

    def __init__(self) -> None:
        self.seconds = list[float]()
        self.waiting = 0
        self.waiting_most = 0
        self.resident_most = 0.0

    async def run(self, bench: Bench) -> None:
        """One round of them."""
        loop = asyncio.get_running_loop()
        orders, start = bench.orders(ARRIVALS), loop.time()
        async with asyncio.TaskGroup() as group:
            for number, order in enumerate(orders):
                due = start + number / ARRIVALS_A_SECOND
                await asyncio.sleep(max(0.0, due - loop.time()))
                group.create_task(self._pay(bench, order, due))
                if number % SAMPLED_EVERY == 0:
                    self.resident_most = max(self.resident_most, resident_mib())

    async def _pay(self, bench: Bench, order: bytes, due: float) -> None:
        self.waiting += 1
        self.waiting_most = max(self.waiting_most, self.waiting)
        taken(await bench.journal.pay(order))
        self.waiting -= 1
        self.seconds.append(asyncio.get_running_loop().time() - due)


async def by_slow_signer() -> list[Figure]:
    """Terminals that wait, then arrivals that do not."""
    async with slowed() as bench:
        await terminals_rate(bench)  # warm
        rates = [await terminals_rate(bench) for _ in range(SLOW_ROUNDS)]
        rounds = [Arrivals() for _ in range(ARRIVAL_ROUNDS)]
        for arrivals in rounds:
            await arrivals.run(bench)
    first, last = rounds[0], rounds[-1]
    return [
        _slow_figure(
            f"{TERMINALS} terminals that wait",
            statistics.median(rates),
            "payments/s",
            beside=f"{TERMINALS} a signing time",
            beside_value=TERMINALS / SIGNING_S,
            goal=">= 0.80",
        ),
        _slow_figure(
            f"{ARRIVALS_A_SECOND:,} arrivals/s, all accepted, p95",
            statistics.median(percentile(one.seconds, 0.95) for one in rounds) * 1000,
            "ms",
            beside="a signing time",
            beside_value=SIGNING_S * 1000,
            goal="< 3",
        ),
        _slow_figure(
            "of them in the gateway at once, at most",
            max(one.waiting_most for one in rounds),
            "orders",
            beside="when it refuses",
            beside_value=WAITING_MAX,
            goal="< 1",
        ),
        _slow_figure(
            f"memory in the last {ARRIVALS:,}, at most",
            last.resident_most,
            "MiB",
            beside=f"in the first {ARRIVALS:,}",
            beside_value=first.resident_most,
            goal="flat: about 1",
        ),
    ]


def _slow_figure(
    name: str, value: float, unit: str, *, beside: str, beside_value: float, goal: str
) -> Figure:
    return figure(
        f"{1 / SIGNING_S:g} signatures/s: {name}",
        value,
        unit,
        beside=beside,
        beside_value=beside_value,
        goal=goal,
    )


async def measure() -> list[Figure]:
    """The drivers, then the slow signer."""
    collect_seldom()
    yield_soon()
    return await by_driver() + await by_slow_signer()


def run() -> list[Figure]:
    """Measure on all the cores that there are: a token's work is another thread's or process's."""
    return uvloop.run(measure())
