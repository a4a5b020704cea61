"""Sends many signed orders over mutual TLS and measures: rate, percentiles, refusals."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import msgspec

from edge.errors import GatewayUnreachable
from edge.http.octets import to_text
from edge.pos.client import Client

PERCENTILES = (50, 95, 99, 100)


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. Latencies in microseconds, by percentile."""

    sent: int
    accepted: int
    seconds_ms: int
    rate: int
    latency_us: dict[str, int]
    refusals: dict[str, int]


class _Code(msgspec.Struct):
    code: str = "unknown"


async def send_all(
    client: Client, chains: Sequence[Sequence[bytes]], *, connections: int
) -> LoadResult:
    """Send every order; the orders of one chain, such as one payer's, one after another.

    Raises: GatewayUnreachable when no connection holds.
    """
    waiting: asyncio.Queue[Sequence[bytes]] = asyncio.Queue(maxsize=len(chains) or 1)
    for chain in chains:
        waiting.put_nowait(chain)
    latencies: list[int] = []
    outcomes: Counter[str] = Counter()
    begin = time.perf_counter_ns()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(connections, len(chains))):
            group.create_task(_send(client, waiting, latencies, outcomes))
    return _result(latencies, outcomes, elapsed_ns=time.perf_counter_ns() - begin)


async def _send(
    client: Client,
    waiting: asyncio.Queue[Sequence[bytes]],
    latencies: list[int],
    outcomes: Counter[str],
) -> None:
    while not waiting.empty():
        for order in waiting.get_nowait():
            body = b'{"order":"%s"}' % to_text(order).encode()
            begin = time.perf_counter_ns()
            try:
                status, raw = await client.raw("POST", "/v1/payments", body)
            except GatewayUnreachable:
                outcomes["unreachable"] += 1
                continue
            latencies.append((time.perf_counter_ns() - begin) // 1000)
            outcomes["" if status < 300 else msgspec.json.decode(raw, type=_Code).code] += 1


def _result(latencies: list[int], outcomes: Counter[str], *, elapsed_ns: int) -> LoadResult:
    latencies.sort()
    accepted = outcomes.pop("", 0)
    return LoadResult(
        sent=accepted + outcomes.total(),
        accepted=accepted,
        seconds_ms=elapsed_ns // 1_000_000,
        rate=accepted * 1_000_000_000 // max(1, elapsed_ns),
        latency_us={f"p{percent}": _percentile(latencies, percent) for percent in PERCENTILES},
        refusals=dict(sorted(outcomes.items())),
    )


def _percentile(ordered: list[int], percent: int) -> int:
    if not ordered:
        return 0
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
