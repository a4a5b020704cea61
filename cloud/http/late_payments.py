"""What officers call about receipts that came when their epoch had its statement."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from cloud.http import recovery_types as types
from cloud.http.recovery import claim_answer
from cloud.http.routes import Call, Route
from cloud.issuer.officers import Role
from cloud.recovery import late_payments
from cloud.recovery.closures import Closure, find_closure, keep_closed
from cloud.recovery.late import UNREADABLE, Late, review
from cloud.recovery.late_payments import LatePayment
from cloud.service import Cloud
from cloud.shards.homes import Site
from wallet.protocol.ids import WalletId, wallet_text

_CLOSURE = "/v1/issuer/closures/{closure}"


def late_payment_routes(cloud: Cloud) -> list[Route]:
    """Routes of late receipts and of the drafts that pay them."""
    desk = LatePaymentDesk(cloud)
    page = partial(Route, method="GET", role=Role.RECOVERY, query=("first",))
    post = partial(Route, method="POST", role=Role.RECOVERY)
    drafts, one = f"{_CLOSURE}/late-payments", "/v1/issuer/late-payments/{draft}"
    answer = types.LatePaymentAnswer
    return [
        page(
            path=f"{_CLOSURE}/late-receipts",
            work=desk.late_receipts,
            answer=types.LateReceiptsAnswer,
        ),
        post(path=drafts, work=desk.draft_late, body=types.LatePaymentBody, answer=answer),
        page(path=drafts, work=desk.late_payments, answer=types.LatePaymentsAnswer),
        post(path=f"{one}/approve", work=desk.approve_late, answer=answer),
        post(path=f"{one}/reject", work=desk.reject_late, answer=answer),
    ]


class LatePaymentDesk:
    """The work behind the routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def late_receipts(self, call: Call) -> types.LateReceiptsAnswer:
        """Receipts that came after the statement, and which of them may be paid."""
        async with self._of_closure(call) as (site, closure):
            reviewed = await review(site, self._cloud.desk, closure)
            found = await reviewed.page(first=call.first)
        return types.LateReceiptsAnswer(
            borne=reviewed.borne,
            bound=reviewed.bound,
            receipts=[_receipt(item) for item in found],
        )

    async def draft_late(self, call: Call) -> types.LatePaymentAnswer:
        """Propose to pay a late receipt out of the loss account; another officer approves."""
        async with self._of_closure(call) as (site, closure):
            made = await late_payments.draft_late(
                site,
                self._cloud.desk,
                draft_id=bytes.fromhex(call.body.draft_id),
                closure_id=closure.closure_id,
                leaf=bytes.fromhex(call.body.claim),
                reason=call.body.reason,
                bear_max=call.body.bear_max,
                officer=call.officer,
                now_ms=call.now_ms,
            )
        return _payment(made)

    async def late_payments(self, call: Call) -> types.LatePaymentsAnswer:
        """Late receipts of a closure that are, or may be, paid."""
        found = await late_payments.list_late(
            call.connection, call.identity("closure"), first=call.first
        )
        return types.LatePaymentsAnswer(payments=[_payment(item) for item in found])

    async def approve_late(self, call: Call) -> types.LatePaymentAnswer:
        """Pay a late receipt as another officer proposed: online, once."""
        async with self._of_draft(call) as (site, draft_id):
            made = await late_payments.approve_late(
                site, self._cloud.desk, draft_id, officer=call.officer, now_ms=call.now_ms
            )
        return _payment(made)

    async def reject_late(self, call: Call) -> types.LatePaymentAnswer:
        """Decide against another officer's proposal: nobody is paid."""
        async with self._of_draft(call) as (site, draft_id):
            made = await late_payments.reject_late(
                site, draft_id, officer=call.officer, now_ms=call.now_ms
            )
        return _payment(made)

    @contextlib.asynccontextmanager
    async def _of_closure(self, call: Call) -> AsyncIterator[tuple[Site, Closure]]:
        """The closure in the path, and its journal's two transactions."""
        closure = await find_closure(call.connection, call.identity("closure"))
        async with self._cloud.shards.site(call.connection, closure.journal) as site:
            await keep_closed(site, closure, now_ms=call.now_ms)
            yield site, closure

    @contextlib.asynccontextmanager
    async def _of_draft(self, call: Call) -> AsyncIterator[tuple[Site, bytes]]:
        """The draft in the path, and its journal's two transactions."""
        draft_id = call.identity("draft")
        closure = await late_payments.late_closure(call.connection, draft_id)
        async with self._cloud.shards.site(call.connection, closure.journal) as site:
            yield site, draft_id


def _receipt(item: Late) -> types.ClaimAnswer:
    judged = item.judged
    if judged.kind != UNREADABLE:
        return claim_answer(judged)
    return types.ClaimAnswer(
        claim=judged.leaf.hex(), index=judged.index, kind="unreadable", amount=0, code=judged.code
    )


def _payment(made: LatePayment) -> types.LatePaymentAnswer:
    return types.LatePaymentAnswer(
        draft_id=made.draft_id.hex(),
        closure_id=made.closure_id.hex(),
        claim=made.leaf.hex(),
        index=made.index,
        payee=wallet_text(WalletId(made.payee)),
        amount=made.amount,
        reason=made.reason,
        bear_max=made.bear_max,
        state=made.state.value,
    )
