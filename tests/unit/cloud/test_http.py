"""What every application of the cloud does with failures, identities and base64url."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any, cast

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from cloud.database import Connection
from cloud.errors import CloudError, DatabaseError
from cloud.http.app import application
from cloud.http.octets import from_text, identity_of, to_text
from cloud.http.problem import RequestRefused, status_of
from cloud.http.routes import Call
from cloud.issuer.officers import Officer, Role
from hsm.api import TokenGone
from wallet.protocol.refusals import Code, ProtocolError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def problem_of(error: Exception) -> tuple[int, dict[str, Any]]:
    """What becomes of a failure in a handler."""

    async def fail(request: web.Request) -> web.Response:
        raise error

    app = application()
    app.router.add_get("/", fail)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            assert response.content_type == "application/problem+json"
            return response.status, json.loads(await response.read())
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (CloudError("draft-known", "why"), 409, "draft-known"),
        (DatabaseError("database-busy"), 503, "database-busy"),
        (ProtocolError(Code.BAD_SIGNATURE, "why"), 422, "bad-signature"),
        (asyncpg.DataError("a value"), 400, "body-invalid"),
        (TokenGone("gone"), 503, "token-gone"),
        (ZeroDivisionError("a secret"), 500, "internal-fault"),
    ],
)
async def test_every_failure_becomes_a_problem_with_a_code(
    error: Exception, status: int, code: str
) -> None:
    found, problem = await problem_of(error)
    assert (found, problem["status"], problem["code"]) == (status, status, code)
    assert "secret" not in json.dumps(problem)


def test_a_code_has_one_status() -> None:
    assert [status_of(code) for code in ("token-used", "x-conflict", "unheard-of")] == [
        409,
        409,
        422,
    ]


def test_base64url_is_without_padding_and_identities_are_32_bytes() -> None:
    assert from_text(to_text(b"\xff\xfe\xfd\xfc")) == b"\xff\xfe\xfd\xfc"
    assert identity_of("00" * 32) == bytes(32)
    for read, text in ((from_text, "a*"), (from_text, "é"), (identity_of, "zz"), (identity_of, "")):
        with pytest.raises(RequestRefused) as caught:
            read(text)
        assert caught.value.code == "body-invalid"


def test_a_call_is_an_officers_or_a_holders() -> None:
    officer = Officer(officer_id=1, name="a", roles=frozenset({Role.SUPPLY}))

    def call(caller: Officer | str) -> Call:
        nothing = MappingProxyType[str, str]({})
        connection = cast(Connection, None)
        return Call(
            connection=connection, now_ms=0, caller=caller, body=None, path=nothing, query=nothing
        )

    assert (call(officer).officer, call("h").holder) == (officer, "h")
    for mistaken in (lambda: call("h").officer, lambda: call(officer).holder):
        with pytest.raises(RequestRefused) as caught:
            mistaken()
        assert caught.value.code == "token-unknown"
