"""What officers call: supply under four eyes, gateways, enrolments, lists, the account of all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from aiohttp import web

from cloud import exchange, wallets
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.http.answers import once
from cloud.http.app import answer, body_of
from cloud.http.octets import from_text, identity_of, journal_of, wallet_of
from cloud.http.tokens import make_holder, officer_of
from cloud.issuer import audit, gateways, lists, policies, supply
from cloud.issuer.enrolments import enrol_wallet
from cloud.issuer.officers import Officer, Role
from cloud.issuer.supply import SupplyAction, SupplyOrder
from cloud.ledger.conservation import conservation
from cloud.service import Cloud
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.keys import from_cose_key
from wallet.protocol.lists import ListId

AUDIT_PAGE = 100


class SupplyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A draft: 32 bytes of identity in hex, and what is to happen."""

    draft_id: str
    action: Literal["issue", "burn"]
    wallet: str
    amount: int
    reason: str


class GatewayBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A gateway that will enrol."""

    name: str
    currency: str
    tiers: list[int]


class EnrolmentBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wallet for a journal; `key` is a COSE_Key in base64url."""

    journal: str
    key: str
    tier: int
    label: str | None = None


class ListBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comes into the list of frozen or revoked wallets, and what leaves it."""

    add: list[str] = []
    remove: list[str] = []


class PolicyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The next policy; limits by their codes."""

    currency: str
    tiers: dict[int, dict[int, int]]
    journal: dict[int, int]


class HolderBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A holder and an online wallet of it."""

    holder: str
    wallet: str
    currency: str


class OfferBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A dealer's standing offer; the rate is a ratio of minor units."""

    receives: str
    pays: str
    numerator: int
    denominator: int
    valid_until_ms: int


Work = Callable[[Connection, Officer, web.Request], Awaitable[Any]]
_WALLET_LISTS = {"wallets": ListId.WALLETS, "frozen": ListId.FROZEN}


def add_officer_routes(app: web.Application, cloud: Cloud) -> None:
    """Routes below /v1/issuer."""

    def route(method: str, path: str, work: Work) -> None:
        async def handle(request: web.Request) -> web.Response:
            now_ms = cloud.clock.now_ms()
            async with cloud.database.transaction() as connection:
                officer = await officer_of(connection, request)
                if method == "GET":
                    return answer(await work(connection, officer, request))
                return await once(
                    connection,
                    request,
                    caller=officer.name,
                    now_ms=now_ms,
                    work=lambda: work(connection, officer, request),
                )

        app.router.add_route(method, f"/v1/issuer{path}", handle)

    desk = OfficerDesk(cloud)
    route("POST", "/supply", desk.draft)
    route("GET", "/supply", desk.drafts)
    route("POST", "/supply/{draft}/approve", desk.approve)
    route("POST", "/supply/{draft}/reject", desk.reject)
    route("POST", "/gateways", desk.add_gateway)
    route("GET", "/gateways", desk.gateways)
    route("POST", "/enrolments", desk.enrol)
    route("POST", "/lists/{list}", desk.change_list)
    route("POST", "/policies", desk.policy)
    route("POST", "/holders", desk.holder)
    route("POST", "/offers", desk.offer)
    route("GET", "/account", desk.account)
    route("GET", "/audit", desk.audit)
    route("GET", "/journals", desk.journals)


class OfficerDesk:
    """The work behind the routes; each returns what is answered."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def _now(self) -> int:
        return self._cloud.clock.now_ms()

    async def draft(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Draft an issue or a burn."""
        body = await body_of(request, SupplyBody)
        order = SupplyOrder(
            draft_id=identity_of(body.draft_id),
            action=SupplyAction(body.action),
            wallet=body.wallet,
            amount=body.amount,
            reason=body.reason,
        )
        return _supply(await supply.draft_supply(c, order, officer=officer, now_ms=self._now()))

    async def drafts(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Drafts that wait for a second officer."""
        found = await supply.list_supply(c, state=supply.SupplyState.DRAFT)
        return {"drafts": [_supply(item) for item in found]}

    async def approve(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Approve a draft of another officer."""
        draft = identity_of(request.match_info["draft"])
        return _supply(await supply.approve_supply(c, draft, officer=officer, now_ms=self._now()))

    async def reject(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Reject a draft."""
        draft = identity_of(request.match_info["draft"])
        return _supply(await supply.reject_supply(c, draft, officer=officer, now_ms=self._now()))

    async def add_gateway(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """A one-time token for a gateway."""
        officer.require(Role.ENROLMENT)
        body = await body_of(request, GatewayBody)
        token = await gateways.add_gateway(
            c,
            self._cloud.desk,
            name=body.name,
            currency=body.currency,
            tiers=body.tiers,
            actor=officer.name,
            now_ms=self._now(),
        )
        return {"token": token}

    async def gateways(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """All gateways."""
        return {"gateways": [gateway_line(item) for item in await gateways.list_gateways(c)]}

    async def enrol(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Enrol a wallet in a journal."""
        officer.require(Role.ENROLMENT)
        body = await body_of(request, EnrolmentBody)
        gateway = await gateways.find_gateway(c, journal_of(body.journal))
        key = from_cose_key(from_text(body.key))
        await enrol_wallet(
            c,
            self._cloud.desk,
            gateway,
            key=key,
            tier=body.tier,
            label=body.label,
            actor=officer.name,
            now_ms=self._now(),
        )
        return {"wallet": wallet_text(key.id), "journal": body.journal}

    async def change_list(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Freeze or revoke wallets, or take them off the list."""
        officer.require(Role.LISTS)
        list_id = _WALLET_LISTS.get(request.match_info["list"])
        if list_id is None:
            raise IssuerError("list-unknown", request.match_info["list"])
        body = await body_of(request, ListBody)
        change = lists.ListChange(
            added={wallet_of(text): () for text in body.add},
            removed={wallet_of(text): () for text in body.remove},
        )
        held = await lists.change_list(
            c, self._cloud.desk, list_id, change, actor=officer.name, now_ms=self._now()
        )
        return {"list": int(list_id), "sequence": held.sequence, "items": len(held.items)}

    async def policy(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Sign the next policy."""
        officer.require(Role.POLICY)
        body = await body_of(request, PolicyBody)
        sequence = await policies.next_policy(
            c,
            self._cloud.desk,
            body.currency,
            tiers=body.tiers,
            journal=body.journal,
            actor=officer.name,
            now_ms=self._now(),
        )
        return {"sequence": sequence}

    async def holder(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Open an online wallet for a holder; answers the holder's token."""
        officer.require(Role.GRANTS)
        body = await body_of(request, HolderBody)
        now_ms = self._now()
        token = await make_holder(c, self._cloud.desk, body.holder, now_ms=now_ms)
        made = await wallets.open_wallet(
            c, body.wallet, holder=body.holder, currency=body.currency, now_ms=now_ms
        )
        return {"wallet": made.wallet, "holder": made.holder, "token": token}

    async def offer(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """A dealer's standing offer of one currency for another."""
        officer.require(Role.DEALER)
        body = await body_of(request, OfferBody)
        rate = exchange.Rate(numerator=body.numerator, denominator=body.denominator)
        made = await exchange.add_offer(
            c,
            receives=body.receives,
            pays=body.pays,
            rate=rate,
            valid_until_ms=body.valid_until_ms,
            now_ms=self._now(),
        )
        return {"offer": made.offer_id}

    async def account(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Where all value is: issued = online + offline + in transit + suspense + loss."""
        return {"currencies": [account_line(item) for item in await conservation(c)]}

    async def journals(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """Journals as the reconciler holds them."""
        rows = await c.fetch(
            "SELECT journal, epoch, state, reason, size FROM journal_epoch ORDER BY epoch_id"
        )
        return {
            "journals": [{**dict(row), "journal": journal_text(row["journal"])} for row in rows]
        }

    async def audit(self, c: Connection, officer: Officer, request: web.Request) -> Any:
        """The newest lines of the audit log."""
        officer.require(Role.AUDITOR)
        return {"lines": [msgspec.to_builtins(line) for line in await audit.read(c)][-AUDIT_PAGE:]}


def _supply(made: supply.Supply) -> dict[str, Any]:
    return {
        "draft_id": made.draft_id.hex(),
        "action": str(made.action),
        "currency": made.currency,
        "amount": made.amount,
        "reason": made.reason,
        "state": str(made.state),
    }


def gateway_line(gateway: gateways.Gateway) -> dict[str, Any]:
    """A gateway for people's tools."""
    return {
        "journal": journal_text(gateway.journal),
        "name": gateway.name,
        "currency": gateway.currency,
        "tiers": gateway.tiers,
        "epoch": gateway.epoch,
        "state": gateway.state,
        "seen_ms": gateway.seen_ms,
    }


def account_line(item: Any) -> dict[str, Any]:
    """The conservation of one currency."""
    return {
        "currency": item.currency,
        "issued": item.issued,
        "online": item.online,
        "offline": item.offline,
        "in_transit": item.in_transit,
        "suspense": item.suspense,
        "loss": item.loss,
        "difference": item.difference,
    }
