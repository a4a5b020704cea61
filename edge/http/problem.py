"""RFC 9457 problem details: one table of statuses for every code that a client can meet."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec
from aiohttp import web

from wallet.protocol.refusals import Code, Refusal

CONTENT_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:cbdc:problem:"
# A token that is gone is asked every two seconds; an exchange comes every minute.
_MOMENT_MS, _TOKEN_MS, _EXCHANGE_MS = 1_000, 5_000, 60_000


class HttpCode(enum.StrEnum):
    """Codes of the HTTP interface itself, beside those of limits.md."""

    HEAD_INVALID = "head-invalid"
    HEAD_TOO_LARGE = "head-too-large"
    BODY_INVALID = "body-invalid"
    BODY_TOO_LARGE = "body-too-large"
    BODY_TYPE_UNKNOWN = "body-type-unknown"
    BODY_TOO_SLOW = "body-too-slow"
    PARAMETER_INVALID = "parameter-invalid"
    HOST_UNKNOWN = "host-unknown"
    ROUTE_UNKNOWN = "route-unknown"
    METHOD_UNKNOWN = "method-not-allowed"
    TERMINAL_UNKNOWN = "terminal-unknown"
    TERMINAL_REVOKED = "terminal-revoked"
    NEIGHBOUR_UNKNOWN = "neighbour-unknown"
    PAYMENT_UNKNOWN = "payment-unknown"
    CURSOR_INVALID = "cursor-invalid"
    KEY_MISSING = "idempotency-key-missing"
    KEY_REUSED = "idempotency-key-reused"
    KEY_RUNNING = "idempotency-key-running"
    OUTCOME_UNKNOWN = "outcome-unknown"
    ONLINE_UNAVAILABLE = "online-unavailable"
    PAIRING_REFUSED = "pairing-refused"
    SYNC_UNAVAILABLE = "sync-unavailable"
    BACKUP_FAILED = "backup-failed"
    ROTATION_REFUSED = "rotation-refused"
    FAULT = "internal-fault"


_INVALID, _PAYMENT, _FORBIDDEN, _UNKNOWN, _CONFLICT = 422, 402, 403, 404, 409
_BUSY = 503

STATUSES: Mapping[str, int] = {
    # Limits and balance: the payment would need something else than it has.
    Code.PAYMENT_ABOVE_LIMIT: _PAYMENT,
    Code.PAYMENT_BELOW_LIMIT: _PAYMENT,
    Code.AUTHORISATION_REQUIRED: _PAYMENT,
    Code.BALANCE_ABOVE_LIMIT: _PAYMENT,
    Code.SPENT_ABOVE_LIMIT: _PAYMENT,
    Code.COUNT_ABOVE_LIMIT: _PAYMENT,
    Code.RECEIVED_ABOVE_LIMIT: _PAYMENT,
    Code.DAY_AMOUNT_ABOVE_LIMIT: _PAYMENT,
    Code.DAY_COUNT_ABOVE_LIMIT: _PAYMENT,
    Code.PAIR_ABOVE_LIMIT: _PAYMENT,
    Code.HOPS_ABOVE_LIMIT: _PAYMENT,
    Code.OFFLINE_TOO_LONG: _PAYMENT,
    Code.REFUND_TOO_LATE: _PAYMENT,
    Code.CATEGORY_NOT_ALLOWED: _FORBIDDEN,
    Code.INSUFFICIENT_FUNDS: _PAYMENT,
    Code.REFUND_ABOVE_PAYMENT: _PAYMENT,
    Code.GATEWAY_EXPOSURE: _PAYMENT,
    # The box must synchronise, or cannot work now.
    Code.JOURNAL_FULL: _BUSY,
    Code.LISTS_STALE: _BUSY,
    Code.POLICY_EXPIRED: _BUSY,
    Code.FROZEN_ROLLBACK: _BUSY,
    Code.FROZEN_TAMPER: _BUSY,
    Code.FROZEN_BY_ISSUER: _BUSY,
    Code.NOT_PROVISIONED: _BUSY,
    Code.SEALED: _BUSY,
    Code.BUSY: _BUSY,
    # Bytes and shapes.
    Code.NOT_CANONICAL: _INVALID,
    Code.MALFORMED: _INVALID,
    Code.WEAK_KEY: _INVALID,
    Code.PARENT_MISSING: _INVALID,
    Code.NOT_PROVEN: _INVALID,
    Code.UNKNOWN_KEY: _INVALID,
    Code.NOT_OPENED: _INVALID,
    Code.TOO_LARGE: 413,
    Code.UNKNOWN_VERSION: _INVALID,
    Code.UNKNOWN_TYPE: _INVALID,
    Code.WRONG_CURRENCY: _INVALID,
    Code.WRONG_JOURNAL: _INVALID,
    Code.ORDER_EXPIRED: _INVALID,
    Code.ORDER_FROM_THE_FUTURE: _INVALID,
    Code.REQUEST_EXPIRED: _INVALID,
    Code.REQUEST_MISMATCH: _INVALID,
    Code.NOTE_NOT_FOR_US: _INVALID,
    Code.NOTE_EXPIRED: _INVALID,
    Code.CERTIFICATE_INVALID: _INVALID,
    Code.PROOF_INVALID: _INVALID,
    Code.GRANT_GAP: _INVALID,
    Code.GRANT_EXPIRED: _INVALID,
    # Who may not.
    Code.WALLET_LOCKED: _FORBIDDEN,
    Code.WALLET_FROZEN: _FORBIDDEN,
    Code.ENROLMENT_EXPIRED: _FORBIDDEN,
    Code.BAD_SIGNATURE: _FORBIDDEN,
    Code.WRONG_ROLE: _FORBIDDEN,
    Code.JOURNAL_REVOKED: _FORBIDDEN,
    Code.WALLET_REVOKED: _FORBIDDEN,
    Code.SANCTIONED: _FORBIDDEN,
    Code.PIN_WRONG: _FORBIDDEN,
    # What is not here.
    Code.UNKNOWN_WALLET: _UNKNOWN,
    Code.UNKNOWN_REQUEST: _UNKNOWN,
    Code.REFUND_UNKNOWN: _UNKNOWN,
    # Identities that are used, or not yet in turn.
    Code.SEQUENCE_USED: _CONFLICT,
    Code.SEQUENCE_GAP: _CONFLICT,
    Code.REQUEST_PAID: _CONFLICT,
    Code.REQUEST_VOID: _CONFLICT,
    Code.NOTE_REDEEMED: _CONFLICT,
    Code.GRANT_REPLAYED: _CONFLICT,
    # The interface's own.
    HttpCode.HEAD_INVALID: 400,
    HttpCode.HEAD_TOO_LARGE: 431,
    HttpCode.BODY_INVALID: _INVALID,
    HttpCode.BODY_TOO_LARGE: 413,
    HttpCode.BODY_TYPE_UNKNOWN: 415,
    HttpCode.BODY_TOO_SLOW: 408,
    HttpCode.PARAMETER_INVALID: _INVALID,
    HttpCode.HOST_UNKNOWN: 421,
    HttpCode.ROUTE_UNKNOWN: _UNKNOWN,
    HttpCode.METHOD_UNKNOWN: 405,
    HttpCode.TERMINAL_UNKNOWN: _FORBIDDEN,
    HttpCode.TERMINAL_REVOKED: _FORBIDDEN,
    HttpCode.NEIGHBOUR_UNKNOWN: _FORBIDDEN,
    HttpCode.PAYMENT_UNKNOWN: _UNKNOWN,
    HttpCode.CURSOR_INVALID: _INVALID,
    HttpCode.KEY_MISSING: 400,
    HttpCode.KEY_REUSED: _INVALID,
    HttpCode.KEY_RUNNING: _CONFLICT,
    HttpCode.OUTCOME_UNKNOWN: _CONFLICT,
    HttpCode.ONLINE_UNAVAILABLE: _BUSY,
    HttpCode.PAIRING_REFUSED: _FORBIDDEN,
    HttpCode.SYNC_UNAVAILABLE: _BUSY,
    HttpCode.BACKUP_FAILED: _CONFLICT,
    HttpCode.ROTATION_REFUSED: _CONFLICT,
    HttpCode.FAULT: 500,
}
# When the same call may do better, where the refusal itself does not know: each code with 503 is
# here. What an exchange or a person has to mend takes a while.
_RETRY_AFTER_MS: Mapping[str, int] = {
    Code.BUSY: _MOMENT_MS,
    HttpCode.KEY_RUNNING: _MOMENT_MS,
    HttpCode.ONLINE_UNAVAILABLE: _MOMENT_MS,
    HttpCode.SYNC_UNAVAILABLE: _MOMENT_MS,
    Code.SEALED: _TOKEN_MS,
    Code.JOURNAL_FULL: _EXCHANGE_MS,
    Code.LISTS_STALE: _EXCHANGE_MS,
    Code.POLICY_EXPIRED: _EXCHANGE_MS,
    Code.FROZEN_ROLLBACK: _EXCHANGE_MS,
    Code.FROZEN_TAMPER: _EXCHANGE_MS,
    Code.FROZEN_BY_ISSUER: _EXCHANGE_MS,
    Code.NOT_PROVISIONED: _EXCHANGE_MS,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details (RFC 9457). `limit`, `left`: in the limit's own unit; `retry_after`: s."""

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None
    limit: int | None = None
    left: int | None = None
    retry_after: int | None = None


class ProblemRaised(Exception):
    """Ends a handler with a refusal; the guard around every handler answers it."""

    def __init__(self, refusal: Refusal | HttpRefusal) -> None:
        super().__init__(str(refusal.code))
        self.refusal = refusal


class HttpRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """A refusal of the interface itself, in the shape of the protocol's."""

    code: HttpCode
    detail: str = ""
    limit: int | None = None
    left: int | None = None
    retry_after_ms: int | None = None


AnyRefusal = Refusal | HttpRefusal
_encode = msgspec.json.Encoder().encode


def problem_of(refusal: AnyRefusal) -> Problem:
    """The details of a refusal."""
    waits = refusal.retry_after_ms
    return Problem(
        type=TYPE_PREFIX + refusal.code,
        title=refusal.code.replace("-", " "),
        status=STATUSES[refusal.code],
        code=str(refusal.code),
        detail=refusal.detail or None,
        limit=refusal.limit,
        left=refusal.left,
        retry_after=retry_after_s(refusal.code) if waits is None else -(-waits // 1000),
    )


def retry_after_s(code: str) -> int | None:
    """When to come back after a code that waiting helps."""
    waits = _RETRY_AFTER_MS.get(code)
    return None if waits is None else waits // 1000


def problem_response(refusal: AnyRefusal) -> web.Response:
    """The answer to a client."""
    problem = problem_of(refusal)
    headers = {"Retry-After": str(problem.retry_after)} if problem.retry_after else None
    return web.Response(
        body=_encode(problem), status=problem.status, headers=headers, content_type=CONTENT_TYPE
    )


def problem(code: HttpCode, detail: str = "") -> ProblemRaised:
    """A refusal of the interface, to be raised."""
    return ProblemRaised(HttpRefusal(code=code, detail=detail))
