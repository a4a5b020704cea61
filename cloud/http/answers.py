"""Answers by Idempotency-Key: the same key and body get the stored answer, another body 422."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from cloud.database import Connection
from cloud.http.app import answer
from cloud.http.problem import RequestRefused
from hsm.api import Sealer

HEADER = "Idempotency-Key"
KEPT_MS = 42 * 24 * 3_600_000
KEY_LENGTH_MAX = 128
_LABEL = "api-answer"


async def once(
    connection: Connection,
    request: web.Request,
    *,
    caller: str,
    now_ms: int,
    sealer: Sealer | None,
    work: Callable[[], Awaitable[Any]],
) -> web.Response:
    """Do the work once for a key; the answer stands in the same transaction as the work.

    With a `sealer` the answer is kept sealed: there is a token in it.
    Raises: RequestRefused `idempotency-conflict`, `body-invalid`.
    """
    key = request.headers.get(HEADER)
    if key is None:
        return answer(await work(), status=201)
    if not 1 <= len(key) <= KEY_LENGTH_MAX:
        raise RequestRefused("body-invalid", f"{HEADER}: 1 to {KEY_LENGTH_MAX} characters")
    scope = f"{caller} {request.method} {request.path}"
    digest = hashlib.sha256(await request.read()).digest()
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 7))", f"{scope} {key}"
    )
    known = await connection.fetchrow(
        "SELECT body_hash, answer FROM api_answer WHERE scope = $1 AND key = $2", scope, key
    )
    if known is not None:
        if known["body_hash"] != digest:
            raise RequestRefused("idempotency-conflict", "the key was used with another body")
        stored = known["answer"]
        if sealer is not None:
            stored = await sealer.unseal(stored, label=_LABEL)
        return answer(msgspec.Raw(stored), status=200)
    made = msgspec.json.encode(await work(), enc_hook=str)
    await connection.execute(
        "INSERT INTO api_answer (scope, key, body_hash, status, answer, expires_ms)"
        " VALUES ($1, $2, $3, 201, $4, $5)",
        *(scope, key, digest),
        made if sealer is None else await sealer.seal(made, label=_LABEL),
        now_ms + KEPT_MS,
    )
    return answer(msgspec.Raw(made), status=201)


async def forget(connection: Connection, *, now_ms: int) -> None:
    """Remove answers whose time is over."""
    await connection.execute("DELETE FROM api_answer WHERE expires_ms < $1", now_ms)
