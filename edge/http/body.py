"""Bodies in and out: JSON or deterministic CBOR, decoded straight into their types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from edge.http.octets import decode_hook, encode_bytes_hook, encode_text_hook
from edge.http.problem import HttpCode, problem
from edge.http.reply import Reply
from wallet.protocol.codec import decode as decode_cbor
from wallet.protocol.codec import encode as encode_cbor
from wallet.protocol.refusals import ProtocolError

T = TypeVar("T")
CBOR = "application/cbor"
JSON = "application/json"
_encode_json = msgspec.json.Encoder(enc_hook=encode_text_hook).encode


class BodyType(Generic[T]):
    """One type of body, with its decoder."""

    def __init__(self, kind: type[T], *, timeout_s: int = 30) -> None:
        self.kind = kind
        self._timeout_s = timeout_s
        self._decode_json: Callable[[bytes], T] = msgspec.json.Decoder(
            kind, dec_hook=decode_hook
        ).decode

    async def read(self, request: web.Request) -> T:
        """The body. Raises: ProblemRaised, TimeoutError, HTTPRequestEntityTooLarge."""
        return self.decode(await read_bytes(request, timeout_s=self._timeout_s), request)

    def decode(self, raw: bytes, request: web.Request) -> T:
        """The value of bytes in the request's content type. Raises: ProblemRaised."""
        kind = request.headers.get("Content-Type")
        if kind != JSON:
            kind = request.content_type
        try:
            if kind == JSON:
                return self._decode_json(raw)
            if kind == CBOR:
                value = decode_cbor(raw, bytes_max=len(raw))
                return msgspec.convert(value, self.kind, dec_hook=decode_hook)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise problem(HttpCode.BODY_INVALID, str(error)) from error
        except ProtocolError as error:
            raise problem(HttpCode.BODY_INVALID, f"CBOR: {error.code}") from error
        raise problem(HttpCode.BODY_TYPE_UNKNOWN, f"{JSON} or {CBOR}")


async def read_bytes(request: web.Request, *, timeout_s: int) -> bytes:
    """The whole body, within a time. Raises: TimeoutError, HTTPRequestEntityTooLarge."""
    content = request.content
    if content.is_eof():
        # It came with the head, as a payment does: no timer is needed, and no copy.
        raw = content.read_nowait()
        if len(raw) > request.client_max_size:
            most = request.client_max_size
            raise web.HTTPRequestEntityTooLarge(max_size=most, actual_size=len(raw))
        return raw
    async with asyncio.timeout(timeout_s):
        return await request.read()


def wants_cbor(request: web.Request) -> bool:
    """Whether the answer is to be CBOR: by `Accept`, else as the body came."""
    accept = request.headers.get("Accept")
    if accept is None or accept == "*/*":
        return request.content_type == CBOR
    return CBOR in accept and JSON not in accept


def encode(value: Any, *, cbor: bool) -> bytes:
    """The bytes of an answer."""
    if not cbor:
        return _encode_json(value)
    plain = msgspec.to_builtins(value, enc_hook=encode_bytes_hook, builtin_types=(bytes,))
    return encode_cbor(plain)


def answer(request: web.Request, value: Any, *, status: int = 200) -> web.Response:
    """An answer in the form that the client wants."""
    cbor = wants_cbor(request)
    body = encode(value, cbor=cbor)
    return Reply(body=body, status=status, content_type=CBOR if cbor else JSON)
