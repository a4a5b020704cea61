"""The guard around what a technician may do on the local socket: each act leaves a record."""

from __future__ import annotations

import functools
import socket
import struct

from aiohttp import web

from edge.audit import Detail
from edge.http.context import EXPECTED, Context, Handler, refusal_of

_DETAILS = web.RequestKey("audit_details", dict)
_CREDENTIALS = struct.Struct("=iII")


def tell(request: web.Request, **details: Detail) -> None:
    """What the record of this act should say beside who did it and what came of it.

    Never a code, a PIN or a key, nor an amount beside a name.
    """
    request.setdefault(_DETAILS, {}).update(details)


def audited(handler: Handler, act: str) -> Handler:
    """The handler, whose act is on the disk before its answer leaves; refused ones too."""

    @functools.wraps(handler)
    async def recorded(context: Context, request: web.Request) -> web.StreamResponse:
        outcome = "failed"
        try:
            response = await handler(context, request)
            outcome = "done"
        except EXPECTED as error:
            outcome = str(refusal_of(error).code)
            raise
        finally:
            details = request.get(_DETAILS, {})
            await context.gateway.audit.record(act, outcome=outcome, user=_user(request), **details)
        return response

    return recorded


def _user(request: web.Request) -> int | None:
    """The system's number of who is at the other end of the local socket."""
    transport = request.transport
    peer = None if transport is None else transport.get_extra_info("socket")
    if peer is None:
        return None
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
