"""What officers call about grants that an issuer forgot, when it was restored from a backup."""

from __future__ import annotations

from functools import partial

from cloud.http import recovery_types as types
from cloud.http.octets import journal_of
from cloud.http.routes import Call, Route
from cloud.issuer import lost_grants
from cloud.issuer.lost_grants import GrantClosing, LostGrant
from cloud.issuer.officers import Role
from wallet.protocol.ids import JournalId, WalletId, journal_text, wallet_text


def lost_grant_routes() -> list[Route]:
    """Routes below /v1/issuer/lost-grants."""
    desk = LostGrantDesk()
    page = partial(Route, method="GET", role=Role.RECOVERY, query=("first",))
    post = partial(Route, method="POST", role=Role.RECOVERY)
    path, answer = "/v1/issuer/lost-grants", types.GrantClosingAnswer
    return [
        page(path=path, work=desk.lost_grants, answer=types.LostGrantsAnswer),
        page(path=f"{path}/closings", work=desk.closings, answer=types.GrantClosingsAnswer),
        post(
            path=f"{path}/closings",
            work=desk.draft_closing,
            body=types.GrantClosingBody,
            answer=answer,
        ),
        post(path=f"{path}/closings/{{draft}}/approve", work=desk.approve_closing, answer=answer),
        post(path=f"{path}/closings/{{draft}}/reject", work=desk.reject_closing, answer=answer),
    ]


class LostGrantDesk:
    """The work behind the routes."""

    async def lost_grants(self, call: Call) -> types.LostGrantsAnswer:
        """Lost grants, those that are not closed first."""
        found = await lost_grants.list_lost_grants(call.connection, first=call.first)
        return types.LostGrantsAnswer(grants=[_lost(item) for item in found])

    async def closings(self, call: Call) -> types.GrantClosingsAnswer:
        """Drafts that wait for a second officer."""
        found = await lost_grants.list_closings(call.connection, first=call.first)
        return types.GrantClosingsAnswer(closings=[_closing(item) for item in found])

    async def draft_closing(self, call: Call) -> types.GrantClosingAnswer:
        """Say where the value of a lost grant comes from; another officer approves."""
        made = await lost_grants.draft_closing(
            call.connection,
            draft_id=bytes.fromhex(call.body.draft_id),
            journal=journal_of(call.body.journal),
            epoch=call.body.epoch,
            sequence=call.body.sequence,
            wallet=call.body.wallet,
            taken=call.body.taken,
            reason=call.body.reason,
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _closing(made)

    async def approve_closing(self, call: Call) -> types.GrantClosingAnswer:
        """Close a lost grant as another officer proposed: suspense is whole again."""
        made = await lost_grants.approve_closing(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _closing(made)

    async def reject_closing(self, call: Call) -> types.GrantClosingAnswer:
        """Reject another officer's draft."""
        made = await lost_grants.reject_closing(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _closing(made)


def _lost(item: LostGrant) -> types.LostGrantAnswer:
    return types.LostGrantAnswer(
        journal=journal_text(JournalId(item.journal)),
        epoch=item.epoch,
        sequence=item.sequence,
        offline_wallet=wallet_text(WalletId(item.offline_wallet)),
        amount=item.amount,
        currency=item.currency,
        found_ms=item.found_ms,
        closed=item.is_closed,
    )


def _closing(made: GrantClosing) -> types.GrantClosingAnswer:
    return types.GrantClosingAnswer(
        draft_id=made.draft_id.hex(),
        journal=journal_text(JournalId(made.journal)),
        epoch=made.epoch,
        sequence=made.sequence,
        wallet=made.wallet,
        taken=made.taken,
        reason=made.reason,
        state=made.state.value,
    )
