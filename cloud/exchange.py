"""Currency exchange between two wallets of one holder, through a dealer's two wallets.

The rate is an exact ratio of minor units: source times numerator over denominator. What the target
gets is rounded down to a whole minor unit, for nobody can be paid a part of one. The remainder, in
parts of `denominator`, is stated in the quote before the holder accepts; it stays with the dealer,
is below one minor unit of the target, and no other fee exists.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cloud.database import Connection, constraints_as
from cloud.errors import LedgerError, WalletError
from cloud.ledger.accounts import lock_accounts
from cloud.ledger.identities import derived
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.wallets import OnlineWallet, find_wallet

QUOTE_VALID_MS = 30_000


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Minor units of the target for one minor unit of the source, as a ratio."""

    numerator: int
    denominator: int

    def convert(self, amount: int) -> tuple[int, int]:
        """Whole minor units of the target, and the remainder in parts of the denominator."""
        return divmod(amount * self.numerator, self.denominator)


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A dealer's standing offer: one wallet of it receives the source, another pays the target."""

    offer_id: int
    receives: str
    pays: str
    source_currency: str
    target_currency: str
    numerator: int
    denominator: int
    valid_until_ms: int
    created_ms: int


class QuoteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder asks for; `quote_id` (32 bytes) makes asking again the same quote."""

    quote_id: bytes
    holder: str
    source: str
    target: str
    source_amount: int


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder gives and gets, exactly; valid once, until its time."""

    quote_id: bytes
    offer_id: int
    holder: str
    source: str
    target: str
    source_amount: int
    target_amount: int
    numerator: int
    denominator: int
    remainder: int
    valid_until_ms: int
    created_ms: int
    accepted_ms: int | None

    @property
    def request(self) -> QuoteRequest:
        """What was asked for."""
        values = {name: getattr(self, name) for name in QuoteRequest.__struct_fields__}
        return QuoteRequest(**values)


_OFFER = ", ".join(Offer.__struct_fields__)
_QUOTE = ", ".join(Quote.__struct_fields__)


async def add_offer(
    connection: Connection,
    *,
    receives: str,
    pays: str,
    rate: Rate,
    valid_until_ms: int,
    now_ms: int,
) -> Offer:
    """Offer to exchange; the newest offer of a pair of currencies counts.

    Raises: WalletError `unknown-wallet`, `wrong-holder` (the two wallets are not one dealer's),
    `offer-invalid`.
    """
    into, out_of = await find_wallet(connection, receives), await find_wallet(connection, pays)
    if into.holder != out_of.holder:
        raise WalletError("wrong-holder", "the wallets are not one dealer's")
    with constraints_as(WalletError, "offer-invalid"):
        row = await connection.fetchrow(
            "INSERT INTO exchange_offer (receives, pays, source_currency, target_currency,"
            " numerator, denominator, valid_until_ms, created_ms)"
            f" VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING {_OFFER}",
            *(receives, pays, into.currency, out_of.currency, rate.numerator, rate.denominator),
            *(valid_until_ms, now_ms),
        )
    return msgspec.convert(dict(row), Offer)


async def make_quote(connection: Connection, request: QuoteRequest, *, now_ms: int) -> Quote:
    """Quote the newest valid offer, or answer the quote that is there.

    Raises: WalletError `unknown-wallet`, `wallet-frozen`, `wallet-closed`, `wrong-holder`,
    `no-offer`, `amount-too-small` (it would give nothing), `quote-conflict`, `quote-invalid`.
    """
    known = await _find_quote(connection, request.quote_id)
    if known is not None:
        return _same(known, request)
    source = await _own_wallet(connection, request.source, request.holder)
    target = await _own_wallet(connection, request.target, request.holder)
    offer = await _newest_offer(connection, source, target, now_ms)
    rate = Rate(numerator=offer.numerator, denominator=offer.denominator)
    target_amount, remainder = rate.convert(request.source_amount)
    if target_amount < 1:
        raise WalletError("amount-too-small", f"{request.source_amount} minor units give nothing")
    with constraints_as(WalletError, "quote-invalid"):
        await connection.execute(
            "INSERT INTO exchange_quote (quote_id, holder, source, target, source_amount, offer_id,"
            " target_amount, numerator, denominator, remainder, valid_until_ms, created_ms)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING",
            *(*msgspec.structs.astuple(request), offer.offer_id, target_amount),
            *(offer.numerator, offer.denominator, remainder),
            *(min(offer.valid_until_ms, now_ms + QUOTE_VALID_MS), now_ms),
        )
    return _same(await find_quote(connection, request.quote_id), request)


async def find_quote(connection: Connection, quote_id: bytes) -> Quote:
    """The quote, locked for this transaction. Raises: WalletError `unknown-quote`."""
    found = await _find_quote(connection, quote_id)
    if found is None:
        raise WalletError("unknown-quote")
    return found


async def accept_quote(
    connection: Connection, quote_id: bytes, *, holder: str, now_ms: int
) -> Quote:
    """Exchange: two transfers in one transaction. Accepting again changes nothing.

    Raises: WalletError `unknown-quote`, `wrong-holder`, `quote-expired`, `wallet-frozen`,
    `wallet-closed`, `no-offer` (the dealer cannot pay now); LedgerError `insufficient-funds`.
    """
    quote = await find_quote(connection, quote_id)
    if quote.holder != holder:
        raise WalletError("wrong-holder")
    if quote.accepted_ms is not None:
        return quote
    if now_ms > quote.valid_until_ms:
        raise WalletError("quote-expired")
    await _exchange(connection, quote, now_ms=now_ms)
    await connection.execute(
        "UPDATE exchange_quote SET accepted_ms = $2 WHERE quote_id = $1", quote_id, now_ms
    )
    return msgspec.structs.replace(quote, accepted_ms=now_ms)


async def _exchange(connection: Connection, quote: Quote, *, now_ms: int) -> None:
    offer = await connection.fetchrow(
        "SELECT receives, pays FROM exchange_offer WHERE offer_id = $1", quote.offer_id
    )
    names = (quote.source, offer["receives"], offer["pays"], quote.target)
    wallets = [await find_wallet(connection, name) for name in names]
    for wallet in wallets:
        wallet.require_open()
    source, receives, pays, target = wallets
    # The holder's leg and the dealer's are posted apart, to tell whose funds are missing.
    await lock_accounts(connection, [wallet.account_id for wallet in wallets])
    await post(connection, [_leg(quote, source, receives, quote.source_amount, now_ms)])
    try:
        await post(connection, [_leg(quote, pays, target, quote.target_amount, now_ms)])
    except LedgerError as error:
        raise WalletError("no-offer", "the dealer cannot pay now") from error


def _leg(
    quote: Quote, payer: OnlineWallet, payee: OnlineWallet, amount: int, now_ms: int
) -> Transfer:
    return Transfer(
        identity=derived("exchange", quote.quote_id, payer.currency.encode()),
        debit=payer.account_id,
        credit=payee.account_id,
        amount=amount,
        currency=payer.currency,
        kind=TransferKind.EXCHANGE,
        created_ms=now_ms,
        reference=f"exchange {quote.quote_id.hex()[:16]}",
    )


async def _own_wallet(connection: Connection, wallet: str, holder: str) -> OnlineWallet:
    found = await find_wallet(connection, wallet)
    if found.holder != holder:
        raise WalletError("wrong-holder", wallet)
    found.require_open()
    return found


async def _newest_offer(
    connection: Connection, source: OnlineWallet, target: OnlineWallet, now_ms: int
) -> Offer:
    row = await connection.fetchrow(
        f"SELECT {_OFFER} FROM exchange_offer WHERE source_currency = $1 AND target_currency = $2"
        " ORDER BY offer_id DESC LIMIT 1",
        *(source.currency, target.currency),
    )
    if row is None or row["valid_until_ms"] < now_ms:
        raise WalletError("no-offer", f"{source.currency} to {target.currency}")
    return msgspec.convert(dict(row), Offer)


async def _find_quote(connection: Connection, quote_id: bytes) -> Quote | None:
    row: Any = await connection.fetchrow(
        f"SELECT {_QUOTE} FROM exchange_quote WHERE quote_id = $1 FOR UPDATE", quote_id
    )
    return None if row is None else msgspec.convert(dict(row), Quote)


def _same(quote: Quote, request: QuoteRequest) -> Quote:
    if quote.request != request:
        raise WalletError("quote-conflict", "the identity names another quote")
    return quote
