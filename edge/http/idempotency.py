"""`Idempotency-Key`: same key and body, the stored answer; same key and other body, refused.

A signed order carries its own identity, so that sending it again is safe without a key. A hosted
payment has none before the gateway signs: a key is needed, and what is not known after a crash is
said to be unknown rather than done twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from aiohttp import web

from edge.http.body import CBOR, JSON, wants_cbor
from edge.http.context import Context
from edge.http.problem import HttpCode, ProblemRaised, problem
from wallet.protocol.policy import Limit
from wallet.protocol.refusals import Code, ProtocolError
from wallet.store.connection import Connection
from wallet.store.errors import Conflict
from wallet.store.idempotency import StoredAnswer, get_answer, put_answer

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 128
RUNNING = 102
WEEK_MS = 7 * 24 * 3_600_000
OFFLINE_S = 30 * 24 * 3600

Work = Callable[[], Awaitable[web.Response]]


def key_of(request: web.Request, *, needed: bool) -> str | None:
    """The key of a request, if it has one. Raises: ProblemRaised when it is needed or too long."""
    key = request.headers.get(HEADER)
    if key is None and needed:
        raise problem(HttpCode.KEY_MISSING, f"send {HEADER}, so that a retry pays once")
    if key is not None and not (0 < len(key) <= KEY_LENGTH_MAX and key.isascii()):
        raise problem(HttpCode.PARAMETER_INVALID, HEADER)
    return key


async def once(
    context: Context, request: web.Request, raw: bytes, work: Work, *, needed: bool = False
) -> web.Response:
    """Do the work once for a key; without a key, just do it."""
    key = key_of(request, needed=needed)
    if key is None:
        return await work()
    place = (f"{request.method} {request.path}", key)
    if place in context.keys_running:
        raise problem(HttpCode.KEY_RUNNING, "the first call is still being answered")
    context.keys_running.add(place)
    try:
        return await _once(context, request, hashlib.sha256(raw).digest(), place, work)
    finally:
        context.keys_running.discard(place)


async def _once(
    context: Context, request: web.Request, body_hash: bytes, place: tuple[str, str], work: Work
) -> web.Response:
    now_ms = context.gateway.clock.now_ms()
    database = context.opened.database
    stored = await database.read(lambda c: get_answer(c, *place, now_ms=now_ms))
    if stored is not None:
        return _repeat(stored, body_hash, request)
    await _store(
        context,
        place,
        StoredAnswer(
            body_hash=body_hash, status=RUNNING, answer=b"", expires_ms=_expires(context, now_ms)
        ),
    )
    try:
        response = await work()
    except (ProblemRaised, ProtocolError) as error:
        # A refusal left nothing behind: the same key may try again, as after a wrong PIN. Only
        # `sealed` may come after the entry was recorded.
        code = error.refusal.code if isinstance(error, ProblemRaised) else error.code
        if code is not Code.SEALED:
            await _forget(context, place)
        raise
    answer = response.body if isinstance(response.body, bytes) else b""
    await _store(
        context,
        place,
        StoredAnswer(
            body_hash=body_hash,
            status=response.status,
            answer=answer,
            expires_ms=_expires(context, now_ms),
        ),
    )
    return response


def _repeat(stored: StoredAnswer, body_hash: bytes, request: web.Request) -> web.Response:
    if stored.body_hash != body_hash:
        raise problem(HttpCode.KEY_REUSED, "this key came with another body before")
    if stored.status == RUNNING:
        raise problem(
            HttpCode.OUTCOME_UNKNOWN,
            "the first call was cut off; look for the payment by its reference",
        )
    kind = CBOR if wants_cbor(request) else JSON
    return web.Response(
        body=stored.answer,
        status=stored.status,
        content_type=kind,
        headers={"Idempotent-Replay": "true"},
    )


async def _store(context: Context, place: tuple[str, str], stored: StoredAnswer) -> None:
    now_ms = context.gateway.clock.now_ms()

    def write(connection: Connection) -> bool:
        connection.execute("DELETE FROM answers WHERE scope = ? AND key = ?", place)
        return put_answer(connection, *place, stored, now_ms=now_ms)

    try:
        kept = await context.opened.database.write(write)
    except Conflict as error:
        raise problem(HttpCode.KEY_RUNNING) from error
    if not kept:
        raise problem(HttpCode.KEY_RUNNING, "too many keys are kept; try again later")


async def _forget(context: Context, place: tuple[str, str]) -> None:
    def write(connection: Connection) -> None:
        connection.execute("DELETE FROM answers WHERE scope = ? AND key = ?", place)

    await context.opened.database.write(write)


def _expires(context: Context, now_ms: int) -> int:
    """The longest offline limit of the policy and a week more."""
    policy = context.opened.journal.state.policy
    tiers = {} if policy is None else policy.tiers
    limits = [tier.get(Limit.OFFLINE_AGE_HARD_S, OFFLINE_S) for tier in tiers.values()]
    return now_ms + max(limits, default=OFFLINE_S) * 1000 + WEEK_MS
