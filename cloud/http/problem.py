"""Refusals over HTTP: RFC 9457 problem details, and the one table of their statuses."""

from __future__ import annotations

import msgspec
from aiohttp import web

from cloud.attestation.checks import Flaw
from cloud.errors import CloudError

CONTENT_TYPE = "application/problem+json"
# A bucket of requests gets at least one back each second.
RETRY_AFTER_S = {429: 1, 503: 2}
_BY_CODE = {
    "token-unknown": 401,
    "token-missing": 401,
    "token-used": 409,
    "token-expired": 403,
    "certificate-missing": 401,
    "wrong-gateway": 403,
    "role-missing": 403,
    "four-eyes": 403,
    "same-officer": 403,
    "key-proof-invalid": 403,
    **{flaw.value: 403 for flaw in Flaw},
    "token-exhausted": 403,
    "draft-undecided": 409,
    "suspension-kept": 409,
    "journal-not-suspended": 409,
    "unknown-wallet": 404,
    "unknown-funding": 404,
    "unknown-quote": 404,
    "draft-unknown": 404,
    "closure-unknown": 404,
    "grant-unknown": 404,
    "grant-closed-already": 409,
    "statement-unknown": 404,
    "wish-unknown": 404,
    "evidence-unknown": 404,
    "officer-unknown": 404,
    "officer-exists": 409,
    "officer-disabled": 409,
    "admins-too-few": 409,
    "gateway-unknown": 404,
    "finding-unknown": 404,
    "route-unknown": 404,
    "list-unknown": 404,
    "policy-unknown": 404,
    "journal-unknown": 404,
    "insufficient-funds": 402,
    "journal-suspended": 403,
    "journal-closed": 403,
    "claims-open": 409,
    "claim-unknown": 404,
    "closure-open": 409,
    "closure-stated": 409,
    "closure-unstated": 409,
    "paid-late-already": 409,
    "draft-expired": 409,
    "draft-stale": 409,
    "entries-held": 409,
    "entry-not-held": 409,
    "entry-not-applied": 409,
    "entry-irreversible": 409,
    "entry-pending": 409,
    "epoch-open": 409,
    "statement-foreign": 403,
    "statement-pending": 409,
    "statement-too-large": 409,
    "window-unset": 409,
    "loss-above-limit": 409,
    "claims-window-short": 422,
    "wallet-frozen": 403,
    "wallet-closed": 403,
    "idempotency-conflict": 422,
    "body-too-large": 413,
    "body-too-slow": 408,
    "body-invalid": 400,
    "parameter-invalid": 422,
    "method-not-allowed": 405,
    "too-many-requests": 429,
    "internal-fault": 500,
    "database-unavailable": 503,
    "database-busy": 503,
    "journal-elsewhere": 409,
    "arrivals-pending": 409,
    "shard-missing": 503,
    "stream-unavailable": 503,
    "stream-full": 503,
    "message-too-large": 413,
    # The issuer's own token: nothing that a caller could do better.
    "token-gone": 503,
    "token-timeout": 503,
    "token-refused": 500,
    "token-pin-wrong": 500,
    "key-missing": 500,
    "seal-broken": 500,
}
_CONFLICTS = ("-conflict", "-decided", "-known", "-unchanged", "-used")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details. `code` is stable; `detail` is for people."""

    title: str
    status: int
    code: str
    detail: str = ""


def status_of(code: str) -> int:
    """The status of a code: the table, then conflicts, else 422."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    return 409 if code.endswith(_CONFLICTS) else 422


def problem_response(code: str, detail: str = "") -> web.Response:
    """The answer that a refusal becomes."""
    status = status_of(code)
    problem = Problem(
        title=code.replace("-", " ").capitalize(), status=status, code=code, detail=detail
    )
    wait_s = RETRY_AFTER_S.get(status)
    headers = None if wait_s is None else {"Retry-After": str(wait_s)}
    return web.Response(
        body=msgspec.json.encode(problem),
        status=status,
        content_type=CONTENT_TYPE,
        headers=headers,
    )


class RequestRefused(CloudError):
    """A request that is refused before it reaches what it asks for."""
