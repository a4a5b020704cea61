"""Currency exchange: both legs or none, once, at the rate that was quoted."""

import msgspec
import pytest

from cloud.database import Database
from cloud.errors import LedgerError, WalletError
from cloud.exchange import (
    QUOTE_VALID_MS,
    Offer,
    Quote,
    QuoteRequest,
    Rate,
    accept_quote,
    add_offer,
    make_quote,
)
from cloud.ledger.conservation import conservation
from cloud.wallets import WalletState, find_wallet, set_wallet_state
from tests.integration.cloud.test_wallets import NOW_MS, opened

NAMES = ("anna-eur", "anna-jpy", "dealer-eur", "dealer-jpy")
# 1.00 EUR is 163.27 JPY: minor units are cents and yen.
RATE = Rate(numerator=16_327, denominator=10_000)


@pytest.fixture
async def wallets(database: Database) -> None:
    """Anna has 100.00 EUR, the dealer has 50,000 JPY and offers a minute from now on."""
    async with database.transaction() as connection:
        await opened(connection, "anna-eur", holder="anna", amount=10_000)
        await opened(connection, "anna-jpy", holder="anna", currency="JPY")
        await opened(connection, "dealer-eur", holder="dealer")
        await opened(connection, "dealer-jpy", holder="dealer", currency="JPY", amount=50_000)
    await offered(database)


async def offered(
    database: Database,
    *,
    receives: str = "dealer-eur",
    pays: str = "dealer-jpy",
    rate: Rate = RATE,
    valid_ms: int = 60_000,
) -> Offer:
    """A dealer's offer."""
    async with database.transaction() as connection:
        return await add_offer(
            connection,
            receives=receives,
            pays=pays,
            rate=rate,
            valid_until_ms=NOW_MS + valid_ms,
            now_ms=NOW_MS,
        )


def request(amount: int = 1_001, *, number: int = 1) -> QuoteRequest:
    """A request whose identity is made of the number."""
    return QuoteRequest(
        quote_id=number.to_bytes(32, "big"),
        holder="anna",
        source="anna-eur",
        target="anna-jpy",
        source_amount=amount,
    )


async def quoted(database: Database, asked: QuoteRequest, *, now_ms: int = NOW_MS) -> Quote:
    """The quote for a request."""
    async with database.transaction() as connection:
        return await make_quote(connection, asked, now_ms=now_ms)


async def accepted(
    database: Database, quote: Quote, *, holder: str = "anna", now_ms: int = NOW_MS
) -> Quote:
    """The quote, accepted."""
    async with database.transaction() as connection:
        return await accept_quote(connection, quote.quote_id, holder=holder, now_ms=now_ms)


async def balances(database: Database) -> list[int]:
    """Balances in the order of NAMES; the ledger is in balance."""
    async with database.transaction() as connection:
        assert [item.difference for item in await conservation(connection)] == [0, 0]
        return [(await find_wallet(connection, name)).balance for name in NAMES]


@pytest.mark.usefixtures("wallets")
async def test_both_legs_move_once(database: Database) -> None:
    quote = await quoted(database, request())
    # 10.01 EUR are 1634.3327 JPY: the remainder is 3,327 ten-thousandths of a yen.
    assert (quote.target_amount, quote.remainder) == (1_634, 3_327)
    assert quote.valid_until_ms == NOW_MS + QUOTE_VALID_MS
    first = await accepted(database, quote)
    assert first.accepted_ms == NOW_MS
    assert await accepted(database, quote, now_ms=NOW_MS + 10**6) == first
    assert await balances(database) == [8_999, 1_634, 1_001, 48_366]


@pytest.mark.usefixtures("wallets")
async def test_the_newest_offer_counts_for_new_quotes_alone(database: Database) -> None:
    before = await quoted(database, request())
    await offered(database, rate=Rate(numerator=2, denominator=1), valid_ms=5_000)
    assert await quoted(database, request()) == before
    after = await quoted(database, request(number=2))
    assert (after.target_amount, after.remainder) == (2_002, 0)
    assert after.valid_until_ms == NOW_MS + 5_000


@pytest.mark.usefixtures("wallets")
async def test_a_quote_is_not_accepted_after_its_time_or_by_another_holder(
    database: Database,
) -> None:
    quote = await quoted(database, request())
    with pytest.raises(WalletError, match="wrong-holder"):
        await accepted(database, quote, holder="ben")
    with pytest.raises(WalletError, match="quote-expired"):
        await accepted(database, quote, now_ms=quote.valid_until_ms + 1)
    with pytest.raises(WalletError, match="unknown-quote"):
        await accepted(database, msgspec.structs.replace(quote, quote_id=bytes(32)))
    assert (await balances(database))[:2] == [10_000, 0]


@pytest.mark.usefixtures("wallets")
async def test_neither_leg_moves_when_one_cannot(database: Database) -> None:
    too_much = await quoted(database, request(10_001))
    with pytest.raises(LedgerError, match="insufficient-funds"):
        await accepted(database, too_much)
    await offered(database, rate=Rate(numerator=6, denominator=1))
    beyond_dealer = await quoted(database, request(10_000, number=2))
    with pytest.raises(WalletError, match="no-offer"):
        await accepted(database, beyond_dealer)
    assert await balances(database) == [10_000, 0, 0, 50_000]


@pytest.mark.usefixtures("wallets")
async def test_a_wallet_frozen_since_the_quote_stops_it(database: Database) -> None:
    quote = await quoted(database, request())
    async with database.transaction() as connection:
        await set_wallet_state(connection, "dealer-jpy", WalletState.FROZEN)
    with pytest.raises(WalletError, match="wallet-frozen"):
        await accepted(database, quote)


@pytest.mark.usefixtures("wallets")
@pytest.mark.parametrize("amount", [0, -5])
async def test_an_amount_that_gives_nothing_is_refused(database: Database, amount: int) -> None:
    with pytest.raises(WalletError, match="amount-too-small"):
        await quoted(database, request(amount))


@pytest.mark.usefixtures("wallets")
async def test_an_amount_out_of_range_is_refused(database: Database) -> None:
    with pytest.raises(WalletError, match="quote-invalid"):
        await quoted(database, request(10**12 + 1))


@pytest.mark.usefixtures("wallets")
async def test_only_wallets_of_the_holder_are_exchanged(database: Database) -> None:
    for change in ({"target": "dealer-jpy"}, {"holder": "dealer"}):
        with pytest.raises(WalletError, match="wrong-holder"):
            await quoted(database, msgspec.structs.replace(request(), **change))


@pytest.mark.usefixtures("wallets")
async def test_one_identity_names_one_quote(database: Database) -> None:
    await quoted(database, request())
    with pytest.raises(WalletError, match="quote-conflict"):
        await quoted(database, request(1_002))


@pytest.mark.usefixtures("wallets")
async def test_without_a_valid_offer_there_is_no_quote(database: Database) -> None:
    with pytest.raises(WalletError, match="no-offer"):
        await quoted(database, request(), now_ms=NOW_MS + 60_001)
    backwards = msgspec.structs.replace(request(), source="anna-jpy", target="anna-eur")
    with pytest.raises(WalletError, match="no-offer"):
        await quoted(database, backwards)


@pytest.mark.usefixtures("wallets")
async def test_an_offer_needs_two_currencies_of_one_dealer_and_a_real_rate(
    database: Database,
) -> None:
    with pytest.raises(WalletError, match="wrong-holder"):
        await offered(database, pays="anna-jpy")
    with pytest.raises(WalletError, match="offer-invalid"):
        await offered(database, pays="dealer-eur")
    with pytest.raises(WalletError, match="offer-invalid"):
        await offered(database, rate=Rate(numerator=0, denominator=1))
