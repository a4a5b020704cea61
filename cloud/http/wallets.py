"""What wallet apps call: balances, funding a journal, transfers, exchange of currencies."""

from __future__ import annotations

import hashlib
from functools import partial

from cloud import exchange, funding, wallets
from cloud.errors import WalletError
from cloud.http import holder_types as types
from cloud.http.octets import from_text, journal_of, wallet_of
from cloud.http.routes import Call, Route
from cloud.http.types import RedeemTargetAnswer
from cloud.issuer.enrolments import require_enrolled
from cloud.issuer.gateways import find_gateway, require_trusted
from cloud.ledger.statement import PAGE_MAX, statement
from cloud.service import Cloud
from cloud.shards.shards import Shards
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.keys import from_cose_key

TARGET_CONTEXT = b"cbdc-redeem-target/1"


def wallet_routes(cloud: Cloud) -> list[Route]:
    """Routes below /v1/wallets."""
    counter = Counter(cloud.shards)
    get = partial(Route, method="GET", by="holder")
    post = partial(Route, method="POST", by="holder")
    one = "/v1/wallets/{wallet}"
    return [
        get(path="/v1/wallets", work=counter.wallets, answer=types.WalletsAnswer),
        get(path=one, work=counter.wallet, answer=types.WalletAnswer),
        get(
            path=f"{one}/statement",
            work=counter.statement,
            answer=types.StatementAnswer,
            query=("cursor", "limit"),
        ),
        post(
            path=f"{one}/fundings",
            work=counter.fund,
            body=types.FundBody,
            answer=types.FundAnswer,
        ),
        get(path=f"{one}/fundings/{{funding}}", work=counter.funding, answer=types.FundAnswer),
        post(
            path=f"{one}/transfers",
            work=counter.transfer,
            body=types.TransferBody,
            answer=types.TransferAnswer,
        ),
        post(
            path=f"{one}/redeem-target",
            work=counter.redeem_target,
            body=types.TargetBody,
            answer=RedeemTargetAnswer,
        ),
        post(
            path=f"{one}/quotes",
            work=counter.quote,
            body=types.QuoteBody,
            answer=types.QuoteAnswer,
        ),
        post(
            path=f"{one}/quotes/{{quote}}/accept",
            work=counter.accept,
            answer=types.QuoteAnswer,
        ),
    ]


class Counter:
    """The work behind the routes."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def _own(self, call: Call) -> wallets.OnlineWallet:
        """The caller's wallet; somebody else's is as if it were not there."""
        found = await wallets.find_wallet(call.connection, call.path["wallet"])
        if found.holder != call.holder:
            raise WalletError("unknown-wallet", found.wallet)
        return found

    async def wallets(self, call: Call) -> types.WalletsAnswer:
        """All wallets of the holder."""
        found = await wallets.wallets_of(call.connection, call.holder)
        return types.WalletsAnswer(wallets=[_wallet(item) for item in found])

    async def wallet(self, call: Call) -> types.WalletAnswer:
        """One wallet."""
        return _wallet(await self._own(call))

    async def statement(self, call: Call) -> types.StatementAnswer:
        """What happened to the wallet, the newest first."""
        own = await self._own(call)
        limit = max(1, min(call.number("limit", default=50), PAGE_MAX))
        before = call.number("cursor", default=0) or None
        found = await statement(call.connection, own.account_id, before=before, limit=limit)
        lines = [
            types.StatementLine(
                id=line.transfer_id,
                change=line.change,
                kind=line.kind.name.lower().replace("_", "-"),
                reference=line.reference,
                created_ms=line.created_ms,
            )
            for line in found
        ]
        cursor = str(lines[-1].id) if len(lines) == limit else None
        return types.StatementAnswer(lines=lines, cursor=cursor)

    async def fund(self, call: Call) -> types.FundAnswer:
        """Take value out of the wallet and send it into a journal at its next exchange."""
        own = await self._own(call)
        gateway = await find_gateway(call.connection, journal_of(call.body.journal))
        wish = funding.FundingRequest(
            funding_id=bytes.fromhex(call.body.funding_id),
            wallet=own.wallet,
            journal=gateway.journal,
            epoch=gateway.epoch,
            offline_wallet=wallet_of(call.body.offline_wallet),
            amount=call.body.amount,
        )
        if own.currency != gateway.currency:
            raise WalletError("wrong-currency", f"that journal keeps {gateway.currency}")
        async with self._shards.at_home(call.connection, gateway.journal) as at_home:
            await require_trusted(at_home, gateway)
        await require_enrolled(call.connection, gateway, wish.offline_wallet)
        return _funding(await funding.hold(call.connection, wish, now_ms=call.now_ms))

    async def funding(self, call: Call) -> types.FundAnswer:
        """What became of a funding."""
        await self._own(call)
        found = await funding.find_funding(call.connection, call.identity("funding"))
        if found.wallet != call.path["wallet"]:
            raise WalletError("unknown-funding")
        return _funding(found)

    async def transfer(self, call: Call) -> types.TransferAnswer:
        """Pay another online wallet."""
        own = await self._own(call)
        order = wallets.OnlineTransfer(
            identity=bytes.fromhex(call.body.identity),
            payer=own.wallet,
            payee=call.body.payee,
            amount=call.body.amount,
            reference=call.body.reference,
        )
        await wallets.transfer_online(call.connection, order, now_ms=call.now_ms)
        return types.TransferAnswer(identity=call.body.identity)

    async def redeem_target(self, call: Call) -> RedeemTargetAnswer:
        """Let what a wallet in a journal redeems come into this wallet, with its key's consent."""
        own = await self._own(call)
        key = from_cose_key(from_text(call.body.key))
        consent = TARGET_CONTEXT + hashlib.sha256(own.wallet.encode()).digest()
        key.verify(from_text(call.body.proof), consent)
        offline = wallet_text(key.id)
        await wallets.set_redeem_target(call.connection, offline, own.wallet)
        return RedeemTargetAnswer(offline_wallet=offline, wallet=own.wallet)

    async def quote(self, call: Call) -> types.QuoteAnswer:
        """What the amount gives in the other currency, exactly, and until when."""
        own = await self._own(call)
        wish = exchange.QuoteRequest(
            quote_id=bytes.fromhex(call.body.quote_id),
            holder=call.holder,
            source=own.wallet,
            target=call.body.target,
            source_amount=call.body.amount,
        )
        return _quote(await exchange.make_quote(call.connection, wish, now_ms=call.now_ms))

    async def accept(self, call: Call) -> types.QuoteAnswer:
        """Exchange at a quote, once."""
        await self._own(call)
        made = await exchange.accept_quote(
            call.connection, call.identity("quote"), holder=call.holder, now_ms=call.now_ms
        )
        return _quote(made)


def _wallet(item: wallets.OnlineWallet) -> types.WalletAnswer:
    return types.WalletAnswer(
        wallet=item.wallet,
        currency=item.currency,
        balance=item.balance,
        state=item.state.value,
    )


def _funding(item: funding.Funding) -> types.FundAnswer:
    return types.FundAnswer(
        funding_id=item.funding_id.hex(),
        journal=journal_text(item.journal),
        offline_wallet=wallet_text(item.offline_wallet),
        amount=item.amount,
        currency=item.currency,
        state=item.state.value,
    )


def _quote(item: exchange.Quote) -> types.QuoteAnswer:
    return types.QuoteAnswer(
        quote_id=item.quote_id.hex(),
        source=item.source,
        target=item.target,
        source_amount=item.source_amount,
        target_amount=item.target_amount,
        numerator=item.numerator,
        denominator=item.denominator,
        remainder=item.remainder,
        valid_until_ms=item.valid_until_ms,
        accepted_ms=item.accepted_ms,
    )
