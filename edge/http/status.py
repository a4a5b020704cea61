"""The gateway at a glance, health for machines, metrics for Prometheus."""

from __future__ import annotations

from aiohttp import web

from edge.health import gateway_answer, readiness
from edge.http.body import answer
from edge.http.context import Context
from edge.http.problem import retry_after_s
from edge.http.reports import x_report
from edge.http.types import Health


async def get_gateway(context: Context, request: web.Request) -> web.Response:
    """Mode, policy and list ages, exposure, how long it may stay offline."""
    return answer(request, gateway_answer(context.gateway, online=context.control.online()))


async def get_health(context: Context, request: web.Request) -> web.Response:
    """The process lives."""
    return answer(request, Health(status="ok"))


async def get_ready(context: Context, request: web.Request) -> web.Response:
    """Whether a payment would be taken now."""
    ready = readiness(context.gateway)
    response = answer(request, ready, status=200 if ready.code is None else 503)
    if ready.code is not None:
        response.headers["Retry-After"] = str(retry_after_s(ready.code))
    return response


async def get_metrics(context: Context, request: web.Request) -> web.Response:
    """Prometheus's text format."""
    text = context.metrics.text()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4"})


async def get_x_report(context: Context, request: web.Request) -> web.Response:
    """Totals of the epoch so far."""
    return answer(request, await x_report(context.opened))
