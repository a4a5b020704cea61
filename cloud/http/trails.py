"""What officers call about gateways' audit logs: heads that were told, and contradictions."""

from __future__ import annotations

from functools import partial

from cloud.http import types
from cloud.http.octets import to_text
from cloud.http.routes import Call, Route
from cloud.trails import findings
from cloud.trails.findings import Finding, Trail
from wallet.protocol.ids import journal_text


class TrailFindingAnswer(types.Answer, frozen=True, kw_only=True):
    """Two reports of a gateway that contradict; `detail` is for people."""

    finding: int
    code: str
    detail: str
    row: int
    told: int | None
    found_ms: int


class TrailAnswer(types.Answer, frozen=True, kw_only=True):
    """A gateway's audit log as it was told last: `head` is NUMBER:HASH."""

    journal: str
    epoch: int
    name: str
    head: str
    told_ms: int
    findings: list[TrailFindingAnswer]


class TrailsAnswer(types.Answer, frozen=True, kw_only=True):
    """All gateways that told of an audit log, by name."""

    trails: list[TrailAnswer]


class TrailReportsAnswer(types.Answer, frozen=True, kw_only=True):
    """The two signed reports, base64url: COSE_Sign1 as in wire.cddl, `up`."""

    earlier: str
    later: str


def trail_routes() -> list[Route]:
    """Routes below /v1/issuer/trails."""
    desk, get = TrailDesk(), partial(Route, method="GET")
    return [
        get(path="/v1/issuer/trails", work=desk.trails, answer=TrailsAnswer),
        get(path="/v1/issuer/trails/{finding}", work=desk.trail_reports, answer=TrailReportsAnswer),
    ]


class TrailDesk:
    """The work behind the routes."""

    async def trails(self, call: Call) -> TrailsAnswer:
        """Gateways' audit logs as they were told, and where they contradict themselves."""
        found = await findings.trails(call.connection)
        return TrailsAnswer(trails=[_trail(trail) for trail in found])

    async def trail_reports(self, call: Call) -> TrailReportsAnswer:
        """The signed reports that a contradiction is proven by."""
        found = await findings.reports_of(call.connection, call.count("finding"))
        return TrailReportsAnswer(earlier=to_text(found.earlier), later=to_text(found.later))


def _trail(trail: Trail) -> TrailAnswer:
    return TrailAnswer(
        journal=journal_text(trail.journal),
        epoch=trail.epoch,
        name=trail.name,
        head=f"{trail.row}:{trail.hash.hex()}",
        told_ms=trail.told_ms,
        findings=[_finding(finding) for finding in trail.findings],
    )


def _finding(finding: Finding) -> TrailFindingAnswer:
    return TrailFindingAnswer(
        finding=finding.finding_id,
        code=finding.code.value,
        detail=finding.sentence,
        row=finding.row,
        told=finding.told,
        found_ms=finding.found_ms,
    )
