"""What officers call about entries that are held: they look, propose and decide."""

from __future__ import annotations

from functools import partial

from cloud.compliance import decisions
from cloud.compliance.decisions import Action, Decision, HeldEntry
from cloud.http import compliance_types as types
from cloud.http.octets import journal_of, kind_text
from cloud.http.routes import Call, Route
from cloud.issuer.officers import Role
from cloud.service import Cloud
from wallet.protocol.ids import JournalId, journal_text, wallet_text

UNREADABLE = "unreadable"


def compliance_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/compliance."""
    desk = ComplianceDesk(cloud)
    page = partial(Route, method="GET", role=Role.COMPLIANCE, query=("first",))
    post = partial(Route, method="POST", role=Role.COMPLIANCE)
    path, answer = "/v1/compliance/decisions", types.DecisionAnswer
    return [
        page(path="/v1/compliance/held", work=desk.held, answer=types.HeldEntriesAnswer),
        page(path=path, work=desk.decisions, answer=types.DecisionsAnswer),
        post(path=path, work=desk.draft_decision, body=types.DecisionBody, answer=answer),
        post(path=f"{path}/{{draft}}/approve", work=desk.approve_decision, answer=answer),
        post(path=f"{path}/{{draft}}/reject", work=desk.reject_decision, answer=answer),
    ]


class ComplianceDesk:
    """The work behind the routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._desk = cloud.desk
        self._shards = cloud.shards

    async def held(self, call: Call) -> types.HeldEntriesAnswer:
        """Entries that wait for a decision."""
        found = await decisions.list_held_everywhere(
            call.connection, self._shards, first=call.first
        )
        return types.HeldEntriesAnswer(entries=[_held(item) for item in found])

    async def decisions(self, call: Call) -> types.DecisionsAnswer:
        """Drafts of decisions that wait for a second officer."""
        found = await decisions.list_decisions(call.connection, first=call.first)
        return types.DecisionsAnswer(decisions=[await self._decision(call, item) for item in found])

    async def draft_decision(self, call: Call) -> types.DecisionAnswer:
        """Propose to release or to reject a held entry."""
        made = await decisions.draft_decision(
            call.connection,
            self._shards,
            draft_id=bytes.fromhex(call.body.draft_id),
            journal=journal_of(call.body.journal),
            epoch=call.body.epoch,
            index=call.body.index,
            action=Action(call.body.action),
            freeze=call.body.freeze,
            reason=call.body.reason,
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return await self._decision(call, made)

    async def approve_decision(self, call: Call) -> types.DecisionAnswer:
        """Decide as another officer proposed: the next settlement tells the gateway."""
        made = await decisions.approve_decision(
            call.connection,
            self._desk,
            self._shards,
            call.identity("draft"),
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return await self._decision(call, made)

    async def reject_decision(self, call: Call) -> types.DecisionAnswer:
        """Decide against another officer's proposal: the entry is held as before."""
        made = await decisions.reject_decision(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return await self._decision(call, made)

    async def _decision(self, call: Call, made: Decision) -> types.DecisionAnswer:
        journal, epoch = await decisions.place_of(call.connection, self._shards, made)
        return types.DecisionAnswer(
            draft_id=made.draft_id.hex(),
            journal=journal_text(JournalId(journal)),
            epoch=epoch,
            index=made.index,
            action=made.action.value,
            freeze=made.freezes,
            reason=made.reason,
            state=made.state.value,
        )


def _held(item: HeldEntry) -> types.HeldAnswer:
    order = item.order
    return types.HeldAnswer(
        journal=journal_text(JournalId(item.journal)),
        epoch=item.epoch,
        index=item.index,
        kind=UNREADABLE if item.entry is None else kind_text(item.entry.kind),
        amount=0 if order is None else order.amount_minor,
        payer=None if order is None else wallet_text(order.payer),
        payee=None if order is None else wallet_text(order.payee),
        code=item.code,
        held_ms=item.held_ms,
        decidable=item.is_applied,
    )
