"""What watches over the cloud asks: health, readiness, the account at a glance, metrics."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud.errors import DatabaseError
from cloud.http import types
from cloud.http.app import answer
from cloud.http.openapi import describe
from cloud.http.overview import account_line
from cloud.http.routes import Route
from cloud.service import Cloud
from cloud.shards.account import account_of_all, waiting_of
from cloud.shards.messages import HEAD
from cloud.stream.api import Figures, StreamError

METRICS_TYPE = "text/plain; version=0.0.4"
_JOURNALS = (
    "SELECT state, count(*) AS count, sum(size)::bigint AS size FROM journal_epoch GROUP BY state"
)


class _Readings(Collector):
    """What was read from the database for one answer."""

    def __init__(
        self,
        entries: int,
        journals: Mapping[str, int],
        gateways: int,
        waiting: Mapping[int, int | None],
        stream: Figures | None,
        *,
        certificates_end_ms: int,
    ) -> None:
        self._entries = entries
        self._journals = journals
        self._gateways = gateways
        self._certificates_end_ms = certificates_end_ms
        self._waiting = waiting
        self._stream = stream

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        yield CounterMetricFamily("cbdc_entries", "Entries of all journals", value=self._entries)
        journals = GaugeMetricFamily("cbdc_journals", "Epochs of journals", labels=["state"])
        for state, count in sorted(self._journals.items()):
            journals.add_metric([state], count)
        yield journals
        yield GaugeMetricFamily("cbdc_gateways", "Enrolled gateways", value=self._gateways)
        yield GaugeMetricFamily(
            "cbdc_issuer_certificates_end_seconds",
            "When the first certificate by the root ends, as Unix time",
            value=self._certificates_end_ms / 1_000,
        )
        waiting = GaugeMetricFamily(
            "cbdc_shard_messages", "Messages to other shards, not taken", labels=["shard"]
        )
        up = GaugeMetricFamily("cbdc_shard_up", "Databases in reach", labels=["shard"])
        for shard, known in sorted(self._waiting.items()):
            up.add_metric([str(shard)], known is not None)
            if known is not None:
                waiting.add_metric([str(shard)], known)
        yield from (up, waiting)
        yield GaugeMetricFamily("cbdc_stream_up", "Stream in reach", value=self._stream is not None)
        if self._stream is not None:
            found = GaugeMetricFamily("cbdc_stream_messages", "Messages", labels=["state"])
            for state in Figures.__struct_fields__:
                found.add_metric([state], getattr(self._stream, state))
            yield found


def add_watch(app: web.Application, cloud: Cloud, routes: Sequence[Route]) -> None:
    """Routes that need no token; they show no holder."""
    description = msgspec.json.encode(describe(routes))

    async def alive(request: web.Request) -> web.Response:
        return answer(types.HealthAnswer(status="alive"))

    async def ready(request: web.Request) -> web.Response:
        async with cloud.database.transaction() as connection:
            await connection.fetchval("SELECT 1")
        return answer(types.HealthAnswer(status="ready"))

    async def status(request: web.Request) -> web.Response:
        async with cloud.database.transaction() as connection:
            found = await account_of_all(cloud.shards, connection)
        pki = cloud.desk.pki
        made = types.StatusAnswer(
            status="ready",
            currencies=[account_line(item) for item in found],
            root="away" if pki.root.key is None else "here",
            certificates_end_ms=pki.ends_ms,
        )
        return answer(made)

    async def metrics(request: web.Request) -> web.Response:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(await _read(cloud))
        return web.Response(body=generate_latest(registry), headers={"Content-Type": METRICS_TYPE})

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=description, content_type="application/json")

    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/statusz", status)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/openapi.json", openapi)


async def _read(cloud: Cloud) -> _Readings:
    entries, journals, waiting = 0, Counter[str](), dict[int, int]()
    async with cloud.database.transaction() as connection:
        gateways = await connection.fetchval("SELECT count(*) FROM gateway")
        for number, _ in cloud.shards:
            try:
                async with cloud.shards.beside(connection, number) as there:
                    rows = await there.fetch(_JOURNALS)
                    waiting[number] = await waiting_of(there)
            except DatabaseError:
                # Of the head it is for the caller: there is nothing to show.
                if number == HEAD:
                    raise
                continue
            entries += sum(row["size"] for row in rows)
            journals.update({row["state"]: row["count"] for row in rows})
    stream = None
    if cloud.stream is not None:
        with contextlib.suppress(StreamError):
            stream = await cloud.stream.figures()
    return _Readings(
        entries=entries,
        journals=journals,
        gateways=gateways,
        waiting={number: waiting.get(number) for number, _ in cloud.shards},
        certificates_end_ms=cloud.desk.pki.ends_ms,
        stream=stream,
    )
