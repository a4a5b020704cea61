"""The page over HTTP: read-only, without scripts, for hosts that are this gateway's own."""

from __future__ import annotations

import functools
from pathlib import Path
from urllib.parse import urlsplit

import jinja2
from aiohttp import web

from edge.config import TechnicianConfig
from edge.http.context import Context, Handler
from edge.http.problem import HttpCode, problem
from edge.http.routes import Route
from edge.moments import duration, moment
from edge.technician.facts import Facts, gather
from edge.technician.notices import notices
from edge.technician.tables import age_level, tables

HERE = Path(__file__).parent
# How often the page that keeps itself up to date asks again.
REFRESH_S = 10
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        # Causes hold texts of token libraries and names of files.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"duration": duration, "moment": moment, "age_level": age_level}
    return made


_template = _environment().get_template("page.html")
_style = (HERE / "page.css").read_bytes()
_icon = (HERE / "icon.svg").read_bytes()


def render(facts: Facts, *, live: bool) -> str:
    """The page of some facts; `live`: one that asks again by itself."""
    first, *rest = notices(facts)
    return _template.render(
        facts=facts,
        first=first,
        rest=rest,
        tables=tables(facts),
        refresh_s=REFRESH_S if live else None,
    )


async def get_page(context: Context, request: web.Request) -> web.Response:
    """How the gateway is, and what to do."""
    return _answer(render(await gather(context), live=False).encode(), "text/html")


async def get_live_page(context: Context, request: web.Request) -> web.Response:
    """The same; it asks again by itself."""
    return _answer(render(await gather(context), live=True).encode(), "text/html")


async def get_style(context: Context, request: web.Request) -> web.Response:
    """Its style sheet."""
    return _answer(_style, "text/css")


async def get_icon(context: Context, request: web.Request) -> web.Response:
    """Its icon."""
    return _answer(_icon, "image/svg+xml")


def _answer(body: bytes, kind: str) -> web.Response:
    charset = "utf-8" if kind.startswith("text/") else None
    return web.Response(body=body, content_type=kind, charset=charset, headers=HEADERS)


# ---- who may read it -------------------------------------------------------------------------


def own_hosts(handler: Handler) -> Handler:
    """The handler for requests that name this gateway as their host.

    A page of another site that lets its name point here (DNS rebinding) reads nothing.
    """

    @functools.wraps(handler)
    async def checked(context: Context, request: web.Request) -> web.StreamResponse:
        if host_of(request.headers.get("Host", "")) not in _own(context.gateway.config.technician):
            raise problem(HttpCode.HOST_UNKNOWN, "name it in [technician] names")
        return await handler(context, request)

    return checked


def host_of(field: str) -> str | None:
    """The host of a Host field, without its port; None for what is none."""
    try:
        return urlsplit(f"//{field}").hostname if field else None
    except ValueError:
        return None


def _own(config: TechnicianConfig) -> frozenset[str]:
    return LOOPBACK | {config.host} | {name.lower() for name in config.names}


def _route(path: str, handler: Handler) -> Route:
    return Route(
        method="GET", path=path, handler=own_hosts(handler), answers={200: None}, closed=False
    )


TECHNICIAN = [
    _route("/", get_page),
    _route("/live", get_live_page),
    _route("/page.css", get_style),
    _route("/icon.svg", get_icon),
]
