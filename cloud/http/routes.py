"""Routes of the API: who may call, what comes in and what goes out, each said once.

The server, the checks around the work and the OpenAPI description are made of the same table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiohttp import web

from cloud.database import Connection
from cloud.errors import DatabaseError
from cloud.http.answers import once
from cloud.http.app import answer, body_of
from cloud.http.octets import identity_of
from cloud.http.problem import RequestRefused
from cloud.http.tokens import bearer, holder_of, officer_of
from cloud.issuer.officers import Officer, Role
from cloud.service import Cloud

BODY_S_MAX = 20
TRIES_MAX = 4
_DIGITS_MAX = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, known and read: its transaction, who calls, the body, the path and query."""

    connection: Connection
    now_ms: int
    caller: Officer | str
    body: Any
    path: Mapping[str, str]
    query: Mapping[str, str]

    @property
    def officer(self) -> Officer:
        """The officer who calls."""
        if isinstance(self.caller, str):
            raise RequestRefused("token-unknown", "an officer's token")
        return self.caller

    @property
    def holder(self) -> str:
        """The holder who calls."""
        if isinstance(self.caller, Officer):
            raise RequestRefused("token-unknown", "a holder's token")
        return self.caller

    def identity(self, name: str) -> bytes:
        """The identity in the path. Raises: RequestRefused `body-invalid`."""
        return identity_of(self.path[name])

    def count(self, name: str) -> int:
        """The count in the path. Raises: RequestRefused `parameter-invalid`."""
        return _count(name, self.path[name])

    @property
    def first(self) -> int:
        """The place where a page begins. Raises: RequestRefused `parameter-invalid`."""
        return self.number("first", default=0)

    def number(self, name: str, *, default: int) -> int:
        """A count of the query. Raises: RequestRefused `parameter-invalid`."""
        text = self.query.get(name)
        return default if text is None else _count(name, text)


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise RequestRefused("parameter-invalid", name)
    return int(text)


Work = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route. `role`: what an officer needs; None where any officer may.

    `query`: names of counts that it takes.
    """

    method: Literal["GET", "POST"]
    path: str
    work: Work
    answer: type[Any]
    body: type[Any] | None = None
    by: Literal["officer", "holder"] = "officer"
    role: Role | None = None
    query: Sequence[str] = ()

    @property
    def secret(self) -> bool:
        """Is there a token in its answer?"""
        return "token" in self.answer.__struct_fields__

    @property
    def name(self) -> str:
        """Its name in the description."""
        return f"{self.by}_{self.work.__name__}"


def add_routes(app: web.Application, cloud: Cloud, routes: Sequence[Route]) -> None:
    """Let an application answer them."""
    for route in routes:
        app.router.add_route(route.method, route.path, _handler(cloud, route))


def _handler(cloud: Cloud, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        bearer(request)
        await read_body(request, within_s=BODY_S_MAX)
        tries_left = TRIES_MAX
        while True:
            try:
                async with cloud.database.transaction() as connection:
                    return await _answer(cloud, route, connection, request)
            except DatabaseError as error:
                # It was rolled back: another transaction was in its way.
                tries_left -= 1
                if error.code != "database-busy" or tries_left == 0:
                    raise

    return handle


async def read_body(request: web.Request, *, within_s: float) -> None:
    """Take the whole body in before a connection of the pool is held for it.

    Raises: RequestRefused `body-too-slow`.
    """
    try:
        async with asyncio.timeout(within_s):
            await request.read()
    except TimeoutError as error:
        raise RequestRefused("body-too-slow", f"within {within_s} seconds") from error


async def _answer(
    cloud: Cloud, route: Route, connection: Connection, request: web.Request
) -> web.Response:
    now_ms = cloud.clock.now_ms()
    caller = await _caller(route, connection, request)
    # What is in a body is told to those alone who are known.
    call = Call(
        connection=connection,
        now_ms=now_ms,
        caller=caller,
        body=None if route.body is None else await body_of(request, route.body),
        path=dict(request.match_info),
        query=dict(request.query),
    )
    if unknown := request.query.keys() - set(route.query):
        raise RequestRefused("parameter-invalid", sorted(unknown)[0])
    if route.method == "GET":
        return answer(await route.work(call))
    name = caller if isinstance(caller, str) else caller.name
    return await once(
        connection,
        request,
        caller=f"{route.by} {name}",
        now_ms=now_ms,
        sealer=cloud.desk.vault.sealer if route.secret else None,
        work=lambda: route.work(call),
    )


async def _caller(route: Route, connection: Connection, request: web.Request) -> Officer | str:
    if route.by == "holder":
        return await holder_of(connection, request)
    officer = await officer_of(connection, request)
    if route.role is not None:
        officer.require(route.role)
    return officer
