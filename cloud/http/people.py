"""What administrators call: officers, under four eyes."""

from __future__ import annotations

from functools import partial

from cloud.http import types
from cloud.http.routes import Call, Route
from cloud.issuer import officer_drafts
from cloud.issuer.officer_drafts import OfficerDraft, OfficerOrder
from cloud.issuer.officers import Role, list_officers


def people_routes() -> list[Route]:
    """Routes below /v1/issuer/officers."""
    desk = PeopleDesk()
    get = partial(Route, method="GET", role=Role.ADMIN)
    post = partial(Route, method="POST", role=Role.ADMIN)
    one, answer = "/v1/issuer/officers/{draft}", types.OfficerDraftAnswer
    return [
        get(path="/v1/issuer/officers", work=desk.officers, answer=types.OfficersAnswer),
        post(
            path="/v1/issuer/officers",
            work=desk.draft_officer,
            body=types.OfficerBody,
            answer=answer,
        ),
        post(
            path="/v1/issuer/officers/disable",
            work=desk.draft_disabling,
            body=types.DisableBody,
            answer=answer,
        ),
        post(path=f"{one}/approve", work=desk.approve_officer, answer=answer),
        post(path=f"{one}/reject", work=desk.reject_officer, answer=answer),
    ]


class PeopleDesk:
    """The work behind the routes."""

    async def officers(self, call: Call) -> types.OfficersAnswer:
        """Officers, and drafts that wait for a second administrator."""
        found = await list_officers(call.connection)
        drafts = await officer_drafts.list_officer_drafts(call.connection)
        return types.OfficersAnswer(
            officers=[
                types.OfficerAnswer(name=officer.name, roles=sorted(officer.roles))
                for officer in found
            ],
            drafts=[_draft(draft) for draft in drafts],
        )

    async def draft_officer(self, call: Call) -> types.OfficerDraftAnswer:
        """Draft an officer: a new one, other roles, or another token."""
        body = call.body
        order = OfficerOrder(
            draft_id=bytes.fromhex(body.draft_id),
            name=body.name,
            roles=frozenset(Role(role) for role in body.roles),
            token_hash=None if body.token_hash is None else bytes.fromhex(body.token_hash),
        )
        made = await officer_drafts.draft_officer(
            call.connection, order, officer=call.officer, now_ms=call.now_ms
        )
        return _draft(made)

    async def draft_disabling(self, call: Call) -> types.OfficerDraftAnswer:
        """Draft that an officer may act no more, for ever."""
        order = OfficerOrder(
            draft_id=bytes.fromhex(call.body.draft_id),
            name=call.body.name,
            roles=frozenset(),
            disabled=True,
        )
        made = await officer_drafts.draft_officer(
            call.connection, order, officer=call.officer, now_ms=call.now_ms
        )
        return _draft(made)

    async def approve_officer(self, call: Call) -> types.OfficerDraftAnswer:
        """Approve another administrator's draft: compare the hash with the officer's own words."""
        made = await officer_drafts.approve_officer(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _draft(made)

    async def reject_officer(self, call: Call) -> types.OfficerDraftAnswer:
        """Reject another administrator's draft."""
        made = await officer_drafts.reject_officer(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _draft(made)


def _draft(made: OfficerDraft) -> types.OfficerDraftAnswer:
    return types.OfficerDraftAnswer(
        draft_id=made.draft_id.hex(),
        name=made.name,
        roles=sorted(made.roles),
        token_hash=None if made.token_hash is None else made.token_hash.hex(),
        disabled=made.disabled,
        state=made.state.value,
    )
