"""What all of the cloud's HTTP applications share: bounded bodies, problems, one log line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg
import msgspec
from aiohttp import web

from cloud.errors import CloudError
from cloud.http.problem import RequestRefused, problem_response
from cloud.log import Log
from hsm.api import HsmError
from wallet.protocol.refusals import ProtocolError

BODY_BYTES_MAX = 1 << 19
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
_log = Log("http")


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every failure becomes a problem with a code, and one log line; no trace leaves the house."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        code, detail = "body-too-large", f"at most {request.client_max_size} bytes"
    except web.HTTPNotFound:
        code, detail = "route-unknown", request.path
    except web.HTTPMethodNotAllowed as error:
        response = problem_response("method-not-allowed", request.path)
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except (CloudError, ProtocolError) as error:
        code, detail = str(error.code), error.detail
    except asyncpg.DataError:
        code, detail = "body-invalid", "a value that no column holds"
    except HsmError as error:
        code, detail = error.code, "the issuer's keys are not at hand"
    except Exception as error:  # noqa: BLE001 - no trace may reach a client, whatever failed
        _log.error("request.failed", cause=error, path=request.path)
        code, detail = "internal-fault", ""
    _log.warning("request.refused", path=request.path, method=request.method, code=code)
    return problem_response(code, detail)


async def body_of(request: web.Request, kind: type[T]) -> T:
    """The JSON body. Raises: RequestRefused `body-invalid` for unknown fields and wrong shapes."""
    raw = await request.read()
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestRefused("body-invalid", str(error)) from error


def require_small(request: web.Request) -> None:
    """For an application that takes large envelopes: a body in JSON is small there too.

    Raises: RequestRefused `body-too-large`, before anything of it is read.
    """
    if request.content_length is None or request.content_length > BODY_BYTES_MAX:
        raise RequestRefused("body-too-large", f"at most {BODY_BYTES_MAX} bytes, their count first")


def answer(value: Any, *, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=msgspec.json.encode(value, enc_hook=str),
        status=status,
        content_type="application/json",
    )


def application(*more: Any, bytes_max: int = BODY_BYTES_MAX) -> web.Application:
    """An application with the shared behaviour, and more middlewares inside it."""
    return web.Application(middlewares=[refusals, *more], client_max_size=bytes_max)
