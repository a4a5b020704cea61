"""What wallet apps call: balances, funding a journal, transfers, exchange of currencies."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from cloud import exchange, funding, wallets
from cloud.database import Connection
from cloud.errors import WalletError
from cloud.http.answers import once
from cloud.http.app import answer, body_of
from cloud.http.octets import from_text, identity_of, journal_of, wallet_of
from cloud.http.tokens import holder_of
from cloud.issuer.enrolments import require_enrolled
from cloud.issuer.gateways import find_gateway
from cloud.service import Cloud
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.keys import from_cose_key

TARGET_CONTEXT = b"cbdc-redeem-target/1"


class FundBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Value of an online wallet for a wallet in a journal."""

    funding_id: str
    journal: str
    offline_wallet: str
    amount: int


class TransferBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transfer between two online wallets."""

    identity: str
    payee: str
    amount: int
    reference: str | None = None


class TargetBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A wallet in a journal whose redeemed value comes here: its COSE_Key, and its consent.

    `proof` is the key's signature over TARGET_CONTEXT and the SHA-256 of this wallet's name.
    """

    key: str
    proof: str


class QuoteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An amount of this wallet for value in another wallet of the same holder."""

    quote_id: str
    target: str
    amount: int


Work = Callable[[Connection, str, web.Request], Awaitable[Any]]


def add_wallet_routes(app: web.Application, cloud: Cloud) -> None:
    """Routes below /v1/wallets."""

    def route(method: str, path: str, work: Work) -> None:
        async def handle(request: web.Request) -> web.Response:
            async with cloud.database.transaction() as connection:
                holder = await holder_of(connection, request)
                if method == "GET":
                    return answer(await work(connection, holder, request))
                return await once(
                    connection,
                    request,
                    caller=f"holder {holder}",
                    now_ms=cloud.clock.now_ms(),
                    work=lambda: work(connection, holder, request),
                )

        app.router.add_route(method, f"/v1/wallets{path}", handle)

    counter = Counter(cloud)
    route("GET", "", counter.all)
    route("GET", "/{wallet}", counter.one)
    route("POST", "/{wallet}/fundings", counter.fund)
    route("GET", "/{wallet}/fundings/{funding}", counter.funding)
    route("POST", "/{wallet}/transfers", counter.transfer)
    route("POST", "/{wallet}/redeem-target", counter.target)
    route("POST", "/{wallet}/quotes", counter.quote)
    route("POST", "/{wallet}/quotes/{quote}/accept", counter.accept)


class Counter:
    """The work behind the routes; each returns what is answered."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def _now(self) -> int:
        return self._cloud.clock.now_ms()

    async def _own(self, c: Connection, holder: str, request: web.Request) -> wallets.OnlineWallet:
        found = await wallets.find_wallet(c, request.match_info["wallet"])
        if found.holder != holder:
            raise WalletError("unknown-wallet", found.wallet)
        return found

    async def all(self, c: Connection, holder: str, request: web.Request) -> Any:
        """All wallets of the holder."""
        return {"wallets": [_wallet(item) for item in await wallets.wallets_of(c, holder)]}

    async def one(self, c: Connection, holder: str, request: web.Request) -> Any:
        """One wallet."""
        return _wallet(await self._own(c, holder, request))

    async def fund(self, c: Connection, holder: str, request: web.Request) -> Any:
        """Take value out of the wallet and send it into a journal at its next exchange."""
        body = await body_of(request, FundBody)
        own = await self._own(c, holder, request)
        gateway = await find_gateway(c, journal_of(body.journal))
        wish = funding.FundingRequest(
            funding_id=identity_of(body.funding_id),
            wallet=own.wallet,
            journal=gateway.journal,
            epoch=gateway.epoch,
            offline_wallet=wallet_of(body.offline_wallet),
            amount=body.amount,
        )
        if own.currency != gateway.currency:
            raise WalletError("wrong-currency", f"that journal keeps {gateway.currency}")
        await require_enrolled(c, gateway, wish.offline_wallet)
        return _funding(await funding.hold(c, wish, now_ms=self._now()))

    async def funding(self, c: Connection, holder: str, request: web.Request) -> Any:
        """What became of a funding."""
        await self._own(c, holder, request)
        found = await funding.find_funding(c, identity_of(request.match_info["funding"]))
        if found.wallet != request.match_info["wallet"]:
            raise WalletError("unknown-funding")
        return _funding(found)

    async def transfer(self, c: Connection, holder: str, request: web.Request) -> Any:
        """Pay another online wallet."""
        body = await body_of(request, TransferBody)
        own = await self._own(c, holder, request)
        order = wallets.OnlineTransfer(
            identity=identity_of(body.identity),
            payer=own.wallet,
            payee=body.payee,
            amount=body.amount,
            reference=body.reference,
        )
        await wallets.transfer_online(c, order, now_ms=self._now())
        return {"identity": body.identity, "state": "settled", "finality": "final"}

    async def target(self, c: Connection, holder: str, request: web.Request) -> Any:
        """Let what a wallet in a journal redeems come into this wallet."""
        body = await body_of(request, TargetBody)
        own = await self._own(c, holder, request)
        key = from_cose_key(from_text(body.key))
        key.verify(
            from_text(body.proof), TARGET_CONTEXT + hashlib.sha256(own.wallet.encode()).digest()
        )
        offline = wallet_text(key.id)
        await wallets.set_redeem_target(c, offline, own.wallet)
        return {"offline_wallet": offline, "wallet": own.wallet}

    async def quote(self, c: Connection, holder: str, request: web.Request) -> Any:
        """What the amount gives in the other currency, exactly, and until when."""
        body = await body_of(request, QuoteBody)
        own = await self._own(c, holder, request)
        wish = exchange.QuoteRequest(
            quote_id=identity_of(body.quote_id),
            holder=holder,
            source=own.wallet,
            target=body.target,
            source_amount=body.amount,
        )
        return _quote(await exchange.make_quote(c, wish, now_ms=self._now()))

    async def accept(self, c: Connection, holder: str, request: web.Request) -> Any:
        """Exchange at a quote, once."""
        quote = identity_of(request.match_info["quote"])
        made = await exchange.accept_quote(c, quote, holder=holder, now_ms=self._now())
        return _quote(made)


def _wallet(item: wallets.OnlineWallet) -> dict[str, Any]:
    return {
        "wallet": item.wallet,
        "currency": item.currency,
        "balance": item.balance,
        "state": str(item.state),
        "finality": "final",
    }


def _funding(item: funding.Funding) -> dict[str, Any]:
    return {
        "funding_id": item.funding_id.hex(),
        "journal": journal_text(item.journal),
        "offline_wallet": wallet_text(item.offline_wallet),
        "amount": item.amount,
        "currency": item.currency,
        "state": str(item.state),
    }


def _quote(item: exchange.Quote) -> dict[str, Any]:
    return {
        "quote_id": item.quote_id.hex(),
        "source": item.source,
        "target": item.target,
        "source_amount": item.source_amount,
        "target_amount": item.target_amount,
        "numerator": item.numerator,
        "denominator": item.denominator,
        "remainder": item.remainder,
        "valid_until_ms": item.valid_until_ms,
        "accepted_ms": item.accepted_ms,
    }
