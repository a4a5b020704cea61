"""How many requests a caller and an address may make: buckets that refill by the second."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

from aiohttp import web

from cloud.clock import Clock
from cloud.config import LimitsConfig
from cloud.http.app import Handler
from cloud.http.problem import RequestRefused

# Names that are remembered. A forgotten bucket is full again; addresses bound those who make names.
NAMES_MAX = 20_000
_UNIT = 1_000
_NAME_BYTES = 16


class Buckets:
    """One bucket a name: `per_s` requests come back each second, up to `burst` at once."""

    def __init__(self, *, per_s: int, burst: int, names_max: int = NAMES_MAX) -> None:
        self._per_s = per_s
        self._full = burst * _UNIT
        self._names_max = names_max
        # What is left in thousandths of a request, and when that was; the longest unused first.
        self._left: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def take(self, name: bytes, *, now_ms: int) -> bool:
        """Take one request; false where none is left."""
        left, at_ms = self._left.pop(name, (self._full, now_ms))
        left = min(self._full, left + (now_ms - at_ms) * self._per_s)
        taken = left >= _UNIT
        self._left[name] = (left - _UNIT if taken else left, now_ms)
        if len(self._left) > self._names_max:
            self._left.popitem(last=False)
        return taken


def limited(limits: LimitsConfig, clock: Clock) -> Any:
    """A middleware that refuses what is too much: 429, and when to come again."""
    callers = Buckets(per_s=limits.caller_requests_per_s, burst=limits.caller_burst)
    peers = Buckets(per_s=limits.peer_requests_per_s, burst=limits.peer_burst)

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        now_ms = clock.monotonic_ms()
        if not peers.take((request.remote or "").encode(), now_ms=now_ms):
            raise RequestRefused("too-many-requests", "from this address")
        caller = caller_name(request)
        if caller is not None and not callers.take(caller, now_ms=now_ms):
            raise RequestRefused("too-many-requests", "by this caller")
        return await handler(request)

    return count


def caller_name(request: web.Request) -> bytes | None:
    """Whom the request says to come from, by token or certificate; a token is not kept itself."""
    shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if not shown and request.transport is not None:
        tls = request.transport.get_extra_info("ssl_object")
        shown = (None if tls is None else tls.getpeercert(binary_form=True)) or b""
    return hashlib.sha256(shown).digest()[:_NAME_BYTES] if shown else None
