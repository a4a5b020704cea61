"""What officers call: supply and policies under four eyes, gateways, enrolments, holders."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from cloud import exchange, wallets
from cloud.attestation.levels import Level, set_demand
from cloud.http import types
from cloud.http.octets import from_text, journal_of, wallet_of
from cloud.http.routes import Call, Route
from cloud.http.tokens import make_holder
from cloud.issuer import audit, gateways, policy_drafts, supply, wishes
from cloud.issuer.enrolments import enrol_wallet
from cloud.issuer.officers import Role
from cloud.issuer.policy_drafts import PolicyContent, PolicyDraft
from cloud.issuer.supply import SupplyAction, SupplyOrder
from cloud.service import Cloud
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.keys import from_cose_key

_get = partial(Route, method="GET")
_post = partial(Route, method="POST")


def officer_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/issuer that change something, and those that show what is to decide."""
    desk = OfficerDesk(cloud)
    return [*_four_eyes(desk), *_journals(desk), *_people(desk)]


def _four_eyes(desk: OfficerDesk) -> list[Route]:
    supply_answer, policy_answer = types.SupplyAnswer, types.PolicyAnswer
    return [
        _post(
            path="/v1/issuer/supply", work=desk.draft, body=types.SupplyBody, answer=supply_answer
        ),
        _get(path="/v1/issuer/supply", work=desk.drafts, answer=types.DraftsAnswer),
        _post(path="/v1/issuer/supply/{draft}/approve", work=desk.approve, answer=supply_answer),
        _post(path="/v1/issuer/supply/{draft}/reject", work=desk.reject, answer=supply_answer),
        _post(
            path="/v1/issuer/policies",
            work=desk.policy,
            body=types.PolicyBody,
            answer=policy_answer,
        ),
        _post(
            path="/v1/issuer/policies/window",
            work=desk.window,
            body=types.WindowBody,
            answer=policy_answer,
        ),
        _get(path="/v1/issuer/policies", work=desk.policies, answer=types.PoliciesAnswer),
        _post(
            path="/v1/issuer/policies/{draft}/approve",
            work=desk.approve_policy,
            answer=policy_answer,
        ),
        _post(
            path="/v1/issuer/policies/{draft}/reject",
            work=desk.reject_policy,
            answer=policy_answer,
        ),
    ]


def _journals(desk: OfficerDesk) -> list[Route]:
    return [
        _post(
            path="/v1/issuer/gateways",
            work=desk.add_gateway,
            body=types.GatewayBody,
            answer=types.TokenAnswer,
            role=Role.ENROLMENT,
        ),
        _get(path="/v1/issuer/gateways", work=desk.gateways, answer=types.GatewaysAnswer),
        _post(
            path="/v1/issuer/enrolments",
            work=desk.enrol,
            body=types.EnrolmentBody,
            answer=types.EnrolmentAnswer,
            role=Role.ENROLMENT,
        ),
        _get(path="/v1/issuer/wishes", work=desk.wishes, answer=types.WishesAnswer),
        _post(path="/v1/issuer/wishes/{wish}/approve", work=desk.grant, answer=types.WishAnswer),
        _post(path="/v1/issuer/wishes/{wish}/refuse", work=desk.refuse, answer=types.WishAnswer),
    ]


def _people(desk: OfficerDesk) -> list[Route]:
    return [
        _post(
            path="/v1/issuer/holders",
            work=desk.holder,
            body=types.HolderBody,
            answer=types.HolderAnswer,
            role=Role.GRANTS,
        ),
        _post(
            path="/v1/issuer/redeem-targets",
            work=desk.redeem_target,
            body=types.RedeemTargetBody,
            answer=types.RedeemTargetAnswer,
            role=Role.GRANTS,
        ),
        _post(
            path="/v1/issuer/offers",
            work=desk.offer,
            body=types.OfferBody,
            answer=types.OfferAnswer,
            role=Role.DEALER,
        ),
    ]


class OfficerDesk:
    """The work behind the routes."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def draft(self, call: Call) -> types.SupplyAnswer:
        """Draft an issue or a burn."""
        order = SupplyOrder(
            draft_id=bytes.fromhex(call.body.draft_id),
            action=SupplyAction(call.body.action),
            wallet=call.body.wallet,
            amount=call.body.amount,
            reason=call.body.reason,
        )
        made = await supply.draft_supply(
            call.connection, order, officer=call.officer, now_ms=call.now_ms
        )
        return _supply(made)

    async def drafts(self, call: Call) -> types.DraftsAnswer:
        """Drafts of supply that wait for a second officer."""
        found = await supply.list_supply(call.connection, state=supply.SupplyState.DRAFT)
        return types.DraftsAnswer(drafts=[_supply(item) for item in found])

    async def approve(self, call: Call) -> types.SupplyAnswer:
        """Approve a draft of another officer: the ledger moves."""
        made = await supply.approve_supply(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _supply(made)

    async def reject(self, call: Call) -> types.SupplyAnswer:
        """Reject a draft of another officer."""
        made = await supply.reject_supply(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _supply(made)

    async def policy(self, call: Call) -> types.PolicyAnswer:
        """Draft the next policy of a currency."""
        made = await policy_drafts.draft_policy(
            call.connection,
            draft_id=bytes.fromhex(call.body.draft_id),
            currency=call.body.currency,
            content=_content(call.body),
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _policy(made)

    async def window(self, call: Call) -> types.PolicyAnswer:
        """Draft the policy in force with another window of the gateways' counters."""
        made = await policy_drafts.draft_window(
            call.connection,
            draft_id=bytes.fromhex(call.body.draft_id),
            currency=call.body.currency,
            window=call.body.window,
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _policy(made)

    async def policies(self, call: Call) -> types.PoliciesAnswer:
        """Drafts of policies, the newest first."""
        found = await policy_drafts.list_drafts(call.connection)
        return types.PoliciesAnswer(policies=[_policy(item) for item in found])

    async def approve_policy(self, call: Call) -> types.PolicyAnswer:
        """Approve another officer's policy: it is signed and goes out to the gateways."""
        made = await policy_drafts.approve_policy(
            call.connection,
            self._cloud.desk,
            call.identity("draft"),
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _policy(made)

    async def reject_policy(self, call: Call) -> types.PolicyAnswer:
        """Reject another officer's policy."""
        made = await policy_drafts.reject_policy(
            call.connection, call.identity("draft"), officer=call.officer, now_ms=call.now_ms
        )
        return _policy(made)

    async def add_gateway(self, call: Call) -> types.TokenAnswer:
        """A one-time token for a gateway, good for a week."""
        token = await gateways.add_gateway(
            call.connection,
            self._cloud.desk,
            name=call.body.name,
            currency=call.body.currency,
            tiers=call.body.tiers,
            actor=call.officer.name,
            now_ms=call.now_ms,
        )
        await set_demand(
            call.connection,
            token,
            level=Level(call.body.level),
            pcr_policy=call.body.pcr_policy,
            actor=call.officer.name,
            now_ms=call.now_ms,
        )
        return types.TokenAnswer(token=token)

    async def gateways(self, call: Call) -> types.GatewaysAnswer:
        """All gateways."""
        found = await gateways.list_gateways(call.connection)
        return types.GatewaysAnswer(gateways=[_gateway(item) for item in found])

    async def enrol(self, call: Call) -> types.EnrolmentAnswer:
        """Enrol a wallet in a journal."""
        gateway = await gateways.find_gateway(call.connection, journal_of(call.body.journal))
        key = from_cose_key(from_text(call.body.key))
        await enrol_wallet(
            call.connection,
            self._cloud.desk,
            gateway,
            key=key,
            tier=call.body.tier,
            label=call.body.label,
            actor=call.officer.name,
            now_ms=call.now_ms,
        )
        return types.EnrolmentAnswer(
            wallet=wallet_text(key.id), journal=journal_text(gateway.journal)
        )

    async def wishes(self, call: Call) -> types.WishesAnswer:
        """Wallets that gateways ask for and may not enrol by themselves."""
        found = await wishes.list_wishes(call.connection)
        return types.WishesAnswer(wishes=[_wish(item) for item in found])

    async def grant(self, call: Call) -> types.WishAnswer:
        """Enrol the wallet that a gateway asked for."""
        return await self._decide_wish(call, granted=True)

    async def refuse(self, call: Call) -> types.WishAnswer:
        """Refuse the wallet that a gateway asked for."""
        return await self._decide_wish(call, granted=False)

    async def _decide_wish(self, call: Call, *, granted: bool) -> types.WishAnswer:
        decided = await wishes.decide_wish(
            call.connection,
            self._cloud.desk,
            call.count("wish"),
            granted=granted,
            officer=call.officer,
            now_ms=call.now_ms,
        )
        return _wish(decided)

    async def holder(self, call: Call) -> types.HolderAnswer:
        """Open an online wallet for a holder."""
        token = await make_holder(
            call.connection, self._cloud.desk, call.body.holder, now_ms=call.now_ms
        )
        made = await wallets.open_wallet(
            call.connection,
            call.body.wallet,
            holder=call.body.holder,
            currency=call.body.currency,
            now_ms=call.now_ms,
        )
        await _record(call, "holder.open", made.wallet, {"holder": made.holder})
        return types.HolderAnswer(wallet=made.wallet, holder=made.holder, token=token)

    async def redeem_target(self, call: Call) -> types.RedeemTargetAnswer:
        """Let a hosted wallet redeem to an online wallet."""
        found = await wallets.find_wallet(call.connection, call.body.wallet)
        offline = wallet_text(wallet_of(call.body.offline_wallet))
        await wallets.set_redeem_target(call.connection, offline, found.wallet)
        await _record(call, "redeem-target.set", offline, {"wallet": found.wallet})
        return types.RedeemTargetAnswer(offline_wallet=offline, wallet=found.wallet)

    async def offer(self, call: Call) -> types.OfferAnswer:
        """A dealer's standing offer of one currency for another."""
        rate = exchange.Rate(numerator=call.body.numerator, denominator=call.body.denominator)
        made = await exchange.add_offer(
            call.connection,
            receives=call.body.receives,
            pays=call.body.pays,
            rate=rate,
            valid_until_ms=call.body.valid_until_ms,
            now_ms=call.now_ms,
        )
        detail = {"receives": call.body.receives, "pays": call.body.pays}
        await _record(call, "offer.add", str(made.offer_id), detail)
        return types.OfferAnswer(offer=made.offer_id)


async def _record(call: Call, action: str, subject: str, detail: dict[str, str]) -> None:
    await audit.record(
        call.connection,
        actor=call.officer.name,
        action=action,
        subject=subject,
        detail=detail,
        now_ms=call.now_ms,
    )


def _supply(made: supply.Supply) -> types.SupplyAnswer:
    return types.SupplyAnswer(
        draft_id=made.draft_id.hex(),
        action=made.action.value,
        currency=made.currency,
        amount=made.amount,
        reason=made.reason,
        state=made.state.value,
    )


def _content(body: types.PolicyBody) -> PolicyContent:
    tiers = {int(tier): _limits(limits) for tier, limits in body.tiers.items()}
    return PolicyContent(tiers=tiers, journal=_limits(body.journal))


def _limits(limits: Mapping[str, int]) -> dict[int, int]:
    return {int(code): value for code, value in limits.items()}


def _policy(made: PolicyDraft) -> types.PolicyAnswer:
    return types.PolicyAnswer(
        draft_id=made.draft_id.hex(),
        currency=made.currency,
        state=made.state.value,
        sequence=made.sequence,
        tiers=made.content.tiers,
        journal=made.content.journal,
    )


def _gateway(gateway: gateways.Gateway) -> types.GatewayAnswer:
    return types.GatewayAnswer(
        journal=journal_text(gateway.journal),
        name=gateway.name,
        currency=gateway.currency,
        tiers=gateway.tiers,
        epoch=gateway.epoch,
        state=gateway.state,
        seen_ms=gateway.seen_ms,
    )


def _wish(wish: wishes.WaitingWish) -> types.WishAnswer:
    return types.WishAnswer(
        wish=wish.wish_id,
        journal=journal_text(wish.journal),
        wallet=wallet_text(wish.wallet),
        tier=wish.tier,
        label=wish.label,
        hosted=wish.hosted,
        asked_ms=wish.asked_ms,
    )
