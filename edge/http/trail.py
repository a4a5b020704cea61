"""The audit trail on the local socket: its rows, and whether they hold."""

from __future__ import annotations

import msgspec
from aiohttp import web

from edge.http.body import answer
from edge.http.context import Context
from edge.http.parameters import number_from
from edge.http.problem import HttpCode, problem
from edge.http.types import Answer
from wallet.store.audit import AuditRow, audit_anchor, page_audit, parse_head, verify_audit
from wallet.store.connection import Connection
from wallet.store.errors import Tampered

PAGE = 500


class AuditEntry(Answer, frozen=True, kw_only=True):
    """One row; `hash` covers all the rest of it and the row before."""

    seq: int
    time_ms: int
    action: str
    details: msgspec.Raw
    hash: str


class AuditPage(Answer, frozen=True, kw_only=True):
    """Rows in order; empty behind the last one."""

    rows: list[AuditEntry]


class AuditCheck(Answer, frozen=True, kw_only=True):
    """Whether the log holds: its head as NUMBER:HASH, or the first finding.

    `told` is the head that the issuer was told last.
    """

    head: str | None = None
    finding: str | None = None
    told: str | None = None


async def get_audit(context: Context, request: web.Request) -> web.Response:
    """Rows after the number `after`."""
    after = number_from(request.query.get("after", "0"))
    if after is None:
        raise problem(HttpCode.PARAMETER_INVALID, "after")
    rows = await context.opened.database.read(lambda c: page_audit(c, after, PAGE))
    return answer(request, AuditPage(rows=[audit_entry(row) for row in rows]))


async def get_audit_check(context: Context, request: web.Request) -> web.Response:
    """Check every row; `head` is one that was told elsewhere."""
    told = request.query.get("head")
    try:
        anchors = [] if told is None else [parse_head(told)]
    except ValueError as error:
        raise problem(HttpCode.PARAMETER_INVALID, "head") from error

    def check(connection: Connection) -> AuditCheck:
        # A finding is an answer here: whoever asks wants to read on in what is left.
        try:
            head = verify_audit(connection, anchors)
            return AuditCheck(head=str(head), told=str(audit_anchor(connection)))
        except Tampered as found:
            return AuditCheck(finding=found.detail)

    return answer(request, await context.opened.database.read(check))


def audit_entry(row: AuditRow) -> AuditEntry:
    """The row as it is shown."""
    return AuditEntry(
        seq=row.seq,
        time_ms=row.time_ms,
        action=row.action,
        details=msgspec.Raw(row.details),
        hash=row.hash.hex(),
    )
