"""Online wallets: open, transfer, freeze, and where a redeem arrives."""

import pytest

from cloud.database import Connection, Database
from cloud.errors import LedgerError, WalletError
from cloud.ledger import accounts
from cloud.ledger.accounts import ensure_accounts
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.wallets import (
    OnlineTransfer,
    OnlineWallet,
    WalletState,
    find_wallet,
    open_wallet,
    redeem_accounts,
    set_redeem_target,
    set_wallet_state,
    transfer_online,
    wallets_of,
)

NOW_MS = 1_780_000_000_000


async def opened(
    connection: Connection, wallet: str, *, amount: int = 0, currency: str = "EUR", holder: str = ""
) -> OnlineWallet:
    """A new wallet that holds the amount; its holder is named as it is, where none is given."""
    made = await open_wallet(
        connection, wallet, holder=holder or wallet, currency=currency, now_ms=NOW_MS
    )
    if amount:
        supply = accounts.issuance(currency)
        numbers = await ensure_accounts(connection, [supply])
        endowment = Transfer(
            identity=wallet.encode().ljust(32, b"."),
            debit=numbers[supply.name],
            credit=made.account_id,
            amount=amount,
            currency=currency,
            kind=TransferKind.ISSUE,
            created_ms=NOW_MS,
        )
        await post(connection, [endowment])
    return await find_wallet(connection, wallet)


@pytest.fixture
async def pair(database: Database) -> None:
    """Anna has 1,000 minor units of EUR, Ben has none."""
    async with database.transaction() as connection:
        await opened(connection, "anna", amount=1_000)
        await opened(connection, "ben")


def order(
    number: int, *, amount: int = 300, payer: str = "anna", payee: str = "ben"
) -> OnlineTransfer:
    """An order whose identity is made of the number."""
    return OnlineTransfer(
        identity=number.to_bytes(32, "big"),
        payer=payer,
        payee=payee,
        amount=amount,
        reference="rent",
    )


async def test_a_wallet_opens_once_and_empty(database: Database) -> None:
    async with database.transaction() as connection:
        wallet = await opened(connection, "anna")
        assert wallet == await opened(connection, "anna")
        assert (wallet.state, wallet.balance) == (WalletState.OPEN, 0)
        for holder, currency in (("ben", "EUR"), ("anna", "USD")):
            with pytest.raises(WalletError, match="wallet-conflict"):
                await opened(connection, "anna", holder=holder, currency=currency)


@pytest.mark.parametrize("name", ["", "x" * 65])
async def test_a_name_out_of_bounds_is_refused(database: Database, name: str) -> None:
    with pytest.raises(WalletError, match="wallet-invalid"):
        async with database.transaction() as connection:
            await opened(connection, name, holder="anna")


async def test_the_wallets_of_a_holder_are_listed(database: Database) -> None:
    async with database.transaction() as connection:
        made = [
            await opened(connection, "anna-eur", holder="anna"),
            await opened(connection, "anna-usd", holder="anna", currency="USD"),
        ]
        await opened(connection, "ben")
        assert await wallets_of(connection, "anna") == made


@pytest.mark.usefixtures("pair")
async def test_a_transfer_moves_value_once(database: Database) -> None:
    async with database.transaction() as connection:
        assert (await transfer_online(connection, order(1), now_ms=NOW_MS)).posted == 1
        assert (await transfer_online(connection, order(1), now_ms=NOW_MS + 9)).known == 1
        anna, ben = [await find_wallet(connection, name) for name in ("anna", "ben")]
    assert (anna.balance, ben.balance) == (700, 300)


@pytest.mark.usefixtures("pair")
async def test_no_more_than_the_balance_is_transferred(database: Database) -> None:
    with pytest.raises(LedgerError, match="insufficient-funds"):
        async with database.transaction() as connection:
            await transfer_online(connection, order(1, amount=1_001), now_ms=NOW_MS)


@pytest.mark.usefixtures("pair")
async def test_wallets_that_do_not_fit_are_refused(database: Database) -> None:
    async with database.transaction() as connection:
        await opened(connection, "dora", currency="USD")
        for payee, code in (
            ("anna", "same-wallet"),
            ("dora", "wrong-currency"),
            ("nobody", "unknown-wallet"),
        ):
            with pytest.raises(WalletError, match=code):
                await transfer_online(connection, order(1, payee=payee), now_ms=NOW_MS)


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("frozen", ["anna", "ben"])
async def test_a_frozen_wallet_neither_pays_nor_is_paid_but_what_was_posted_stays(
    database: Database, frozen: str
) -> None:
    async with database.transaction() as connection:
        await transfer_online(connection, order(1), now_ms=NOW_MS)
        await set_wallet_state(connection, frozen, WalletState.FROZEN)
        assert (await transfer_online(connection, order(1), now_ms=NOW_MS)).known == 1
        with pytest.raises(WalletError, match="wallet-frozen"):
            await transfer_online(connection, order(2), now_ms=NOW_MS)
        await set_wallet_state(connection, frozen, WalletState.OPEN)
        assert (await transfer_online(connection, order(2), now_ms=NOW_MS)).posted == 1


@pytest.mark.usefixtures("pair")
async def test_only_an_empty_wallet_closes_and_it_stays_closed(database: Database) -> None:
    async with database.transaction() as connection:
        with pytest.raises(WalletError, match="wallet-not-empty"):
            await set_wallet_state(connection, "anna", WalletState.CLOSED)
        closed = await set_wallet_state(connection, "ben", WalletState.CLOSED)
        assert closed.state is WalletState.CLOSED
        with pytest.raises(WalletError, match="wallet-closed"):
            await set_wallet_state(connection, "ben", WalletState.OPEN)


async def test_a_redeem_arrives_at_the_target_or_at_the_wallet_of_the_same_text(
    database: Database,
) -> None:
    async with database.transaction() as connection:
        anna = await opened(connection, "anna")
        ben = await opened(connection, "wal1ben", holder="ben")
        await set_redeem_target(connection, "wal1anna", "wal1ben")
        await set_redeem_target(connection, "wal1anna", "anna")
        found = await redeem_accounts(
            connection, ["wal1anna", "wal1ben", "wal1new"], currency="EUR", now_ms=NOW_MS
        )
        new = await find_wallet(connection, "wal1new")
    assert found == {
        "wal1anna": anna.account_id,
        "wal1ben": ben.account_id,
        "wal1new": new.account_id,
    }


async def test_a_redeem_in_another_currency_than_the_target_is_refused(database: Database) -> None:
    async with database.transaction() as connection:
        await opened(connection, "wal1anna")
        with pytest.raises(WalletError, match="wallet-conflict"):
            await redeem_accounts(connection, ["wal1anna"], currency="USD", now_ms=NOW_MS)
