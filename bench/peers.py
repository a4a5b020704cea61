"""Peers that run here: Nutshell (a Cashu mint) beside our gateway, pgbench beside our engine.

What they do that we don't, and the other way round, stands in README beside the figures. The same
load tool fires prepared requests at the gateway and at the mint, so that no client is measured.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

import msgspec
import uvloop

from bench.branch import bench_journal
from bench.engine import CALLERS, PAYMENTS, rate_of
from bench.figures import Figure, cpu_seconds, figure, percentile
from bench.https import Till, open_till
from bench.loadtool import accepted, closed_loop
from bench.mint import Mint, install, mint, version
from cloud.embedded import EmbeddedPostgres
from cloud.runner import programs_folder

# Rounds of both in turn: a machine that changes its pace does so for both.
ROUNDS = 5
PAYMENTS_OVER_HTTP = 2_560
SWAPS = 100
CLIENTS = (1, 4, 8)
PGBENCH_S = 8
PGBENCH_CLIENTS = 8


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a server did for its clients: operations a second, and seconds."""

    rate: float
    p95: float
    cpu: float
    clients: int


async def payments(till: Till, count: int) -> Served:
    """Payments over mutual TLS, one a request, by as many callers as the till has connections."""
    requests = till.requests(count)
    before = cpu_seconds(till.gateway_process_id)
    load = accepted(await closed_loop(till.connections, requests), status=201)
    cpu = cpu_seconds(till.gateway_process_id) - before
    return Served(
        rate=load.rate,
        p95=percentile(load.seconds, 0.95),
        cpu=cpu / count,
        clients=len(till.connections),
    )


async def swaps(server: Mint, *, clients: int) -> Served:
    """Swaps over plain HTTP, one a request."""
    rate, p95, cpu = await server.swap(SWAPS, clients=clients)
    return Served(rate=rate, p95=p95, cpu=cpu, clients=clients)


async def beside_nutshell() -> list[Figure]:
    """Rounds of the gateway and the mint in turn; the mint with the clients that suit it best."""
    await asyncio.to_thread(install)
    async with open_till() as till:
        with mint() as server:
            await asyncio.to_thread(server.prepare, SWAPS * (1 + ROUNDS * len(CLIENTS)))
            # Caches are warm, and every page of code was touched once.
            await payments(till, PAYMENTS_OVER_HTTP)
            await swaps(server, clients=max(CLIENTS))
            rounds = [await _round(till, server) for _ in range(ROUNDS)]
    return _rows(rounds)


async def _round(till: Till, server: Mint) -> tuple[Served, Served]:
    ours = await payments(till, PAYMENTS_OVER_HTTP)
    theirs = [await swaps(server, clients=clients) for clients in CLIENTS]
    return ours, max(theirs, key=lambda served: served.rate)


async def pgbench_rate() -> float:
    """TPC-B like transactions a second, with fsync: debit and credit, no signatures."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        Path(name).chmod(0o755)
        server = await EmbeddedPostgres.start(Path(name) / "postgres")
        try:
            dsn = await server.ensure_database("bench")
            program = programs_folder() / "pgbench"
            await asyncio.to_thread(_pgbench, program, "-i", "-q", "-s", "4", dsn)
            options = ("-c", str(PGBENCH_CLIENTS), "-j", "2", "-T", str(PGBENCH_S))
            told = await asyncio.to_thread(_pgbench, program, *options, dsn)
        finally:
            await server.stop()
    found = re.search(r"tps = ([0-9.]+)", told)
    if found is None:
        raise RuntimeError(f"pgbench said: {told[-300:]}")
    return float(found[1])


def _pgbench(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


async def engine_rate() -> float:
    """Our engine in one process, both cores allowed, as pgbench has them: the median round."""
    async with bench_journal() as bench:
        await rate_of(bench, bench.orders(2_000), callers=CALLERS)
        rates = [
            (await rate_of(bench, bench.orders(PAYMENTS), callers=CALLERS))[0]
            for _ in range(ROUNDS)
        ]
    return statistics.median(rates)


def _rows(rounds: list[tuple[Served, Served]]) -> list[Figure]:
    """The round of the median ratio counts; that of the CPU may be another one."""
    ours, theirs = sorted(rounds, key=lambda pair: pair[0].rate / pair[1].rate)[ROUNDS // 2]
    payment, swap = sorted(rounds, key=lambda pair: pair[0].cpu / pair[1].cpu)[ROUNDS // 2]
    tried = ", ".join(map(str, CLIENTS))
    nutshell = f"Nutshell {version()}, plain HTTP, best of {tried} clients: {theirs.clients}"
    return [
        figure(
            f"payments over mutual TLS, {ours.clients} connections",
            ours.rate,
            "payments/s",
            beside=f"swaps of one proof: {nutshell}",
            beside_value=theirs.rate,
        ),
        figure(
            "CPU of the gateway's processes for each",
            payment.cpu * 1e6,
            "us",
            beside="CPU of the mint's process for each swap",
            beside_value=swap.cpu * 1e6,
        ),
        figure(
            "p95 of those payments",
            ours.p95 * 1000,
            "ms",
            beside="p95 of those swaps",
            beside_value=theirs.p95 * 1000,
        ),
    ]


async def beside_pgbench() -> Figure:
    """Our engine in process beside debit and credit in PostgreSQL: neither speaks TLS."""
    return figure(
        "engine in process, both cores, durable",
        await engine_rate(),
        "payments/s",
        beside=f"pgbench TPC-B: {PGBENCH_CLIENTS} clients, durable, no signatures",
        beside_value=await pgbench_rate(),
    )


async def measure() -> list[Figure]:
    """The gateway beside Nutshell, the engine beside PostgreSQL."""
    return [*await beside_nutshell(), await beside_pgbench()]


def run() -> list[Figure]:
    """Measure."""
    return uvloop.run(measure())
