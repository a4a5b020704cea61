"""The ledger on PostgreSQL: exactly once, never overdrawn, always in balance."""

import asyncio
import hashlib
import random

import asyncpg
import pytest

from cloud.database import Connection, Database
from cloud.errors import LedgerError
from cloud.ledger import accounts
from cloud.ledger.accounts import Account, AccountKind, balances, ensure_accounts
from cloud.ledger.conservation import Conservation, conservation, discrepancies
from cloud.ledger.posting import (
    BATCH_MAX,
    Numbered,
    PostResult,
    Transfer,
    TransferKind,
    post,
    post_numbered,
)
from cloud.ledger.statement import Line, statement

NOW_MS = 1_780_000_000_000
ANNA = accounts.online("anna", currency="EUR")
BEN = accounts.online("ben", currency="EUR")
SUPPLY = accounts.issuance("EUR")


def identity(number: int) -> bytes:
    """A different identity for each number."""
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def transfer(
    number: int,
    debit: int,
    credit: int,
    amount: int,
    *,
    currency: str = "EUR",
    reference: str | None = None,
) -> Transfer:
    """A transfer whose identity is that of the number."""
    return Transfer(
        identity=identity(number),
        debit=debit,
        credit=credit,
        amount=amount,
        currency=currency,
        kind=TransferKind.ONLINE,
        created_ms=NOW_MS,
        reference=reference,
    )


async def opened(connection: Connection, *wanted: Account) -> list[int]:
    """Numbers of the accounts, in the order given."""
    found = await ensure_accounts(connection, wanted)
    return [found[account.name] for account in wanted]


async def endowed(database: Database, amount: int = 1_000) -> tuple[int, int, int]:
    """Numbers of the supply, of Anna, who has the amount, and of Ben, who has nothing."""
    async with database.transaction() as connection:
        supply, anna, ben = await opened(connection, SUPPLY, ANNA, BEN)
        await post(connection, [transfer(0, supply, anna, amount)])
    return supply, anna, ben


async def refused(database: Database, *transfers: Transfer) -> str:
    """The code with which the ledger refuses the batch."""
    with pytest.raises(LedgerError) as caught:
        async with database.transaction() as connection:
            await post(connection, transfers)
    return caught.value.code


async def balances_of(database: Database, *ids: int) -> list[int]:
    """Balances in the order of the numbers."""
    async with database.transaction() as connection:
        found = await balances(connection, ids)
    return [found[account] for account in ids]


async def test_a_transfer_moves_its_amount_from_debit_to_credit(database: Database) -> None:
    supply, anna, ben = await endowed(database)
    async with database.transaction() as connection:
        assert await post(connection, [transfer(1, anna, ben, 300)]) == PostResult(
            posted=1, known=0
        )
    assert await balances_of(database, supply, anna, ben) == [-1_000, 700, 300]


async def test_an_identity_counts_once_however_often_it_comes(database: Database) -> None:
    _, anna, ben = await endowed(database)
    again = transfer(1, anna, ben, 300)
    async with database.transaction() as connection:
        assert (await post(connection, [again, again])).posted == 1
        assert await post(connection, [again]) == PostResult(posted=0, known=1)
    assert await balances_of(database, anna, ben) == [700, 300]


@pytest.mark.parametrize("field", ["amount", "reference", "debit", "currency", "record", "kind"])
async def test_an_identity_with_other_content_is_refused(database: Database, field: str) -> None:
    supply, anna, ben = await endowed(database)
    async with database.transaction() as connection:
        await post(connection, [transfer(1, anna, ben, 300)])
        dollars, anna_dollars = await opened(
            connection, accounts.issuance("USD"), accounts.online("anna-usd", currency="USD")
        )
    other = {
        "amount": transfer(1, anna, ben, 301),
        "reference": transfer(1, anna, ben, 300, reference="rent"),
        "debit": transfer(1, supply, ben, 300),
        "currency": transfer(1, dollars, anna_dollars, 300, currency="USD"),
        "record": Transfer(
            identity=identity(1),
            debit=anna,
            credit=ben,
            amount=300,
            currency="EUR",
            kind=TransferKind.ONLINE,
            created_ms=NOW_MS,
            record=b"evidence",
        ),
        "kind": Transfer(
            identity=identity(1),
            debit=anna,
            credit=ben,
            amount=300,
            currency="EUR",
            kind=TransferKind.DEFUND,
            created_ms=NOW_MS,
        ),
    }[field]
    assert await refused(database, other) == "transfer-conflict"
    assert await balances_of(database, anna, ben) == [700, 300]


async def test_two_contents_under_one_identity_in_one_batch_are_refused(database: Database) -> None:
    _, anna, ben = await endowed(database)
    batch = transfer(1, anna, ben, 300), transfer(1, anna, ben, 400)
    assert await refused(database, *batch) == "transfer-conflict"


async def test_an_overdraft_is_refused_with_the_whole_batch(database: Database) -> None:
    _, anna, ben = await endowed(database)
    batch = transfer(1, anna, ben, 600), transfer(2, anna, ben, 401)
    assert await refused(database, *batch) == "insufficient-funds"
    assert await balances_of(database, anna, ben) == [1_000, 0]


async def test_the_floor_is_checked_on_the_net_of_the_batch(database: Database) -> None:
    _, anna, ben = await endowed(database)
    async with database.transaction() as connection:
        await post(connection, [transfer(1, ben, anna, 500), transfer(2, anna, ben, 900)])
    assert await balances_of(database, anna, ben) == [600, 400]


async def test_currencies_do_not_mix(database: Database) -> None:
    _, anna, _ = await endowed(database)
    async with database.transaction() as connection:
        (dollars,) = await opened(connection, accounts.online("anna-usd", currency="USD"))
    assert await refused(database, transfer(1, anna, dollars, 1)) == "wrong-currency"
    assert await refused(database, transfer(1, dollars, anna, 1, currency="USD")) == (
        "wrong-currency"
    )


async def test_an_account_that_does_not_exist_is_refused(database: Database) -> None:
    _, anna, _ = await endowed(database)
    assert await refused(database, transfer(1, anna, 10**9, 1)) == "unknown-account"


@pytest.mark.parametrize("amount", [0, -1, 2**53, 2**63])
async def test_an_amount_out_of_range_is_refused(database: Database, amount: int) -> None:
    _, anna, ben = await endowed(database)
    assert await refused(database, transfer(1, anna, ben, amount)) == "transfer-invalid"


async def test_a_transfer_to_itself_or_without_a_real_identity_is_refused(
    database: Database,
) -> None:
    _, anna, ben = await endowed(database)
    assert await refused(database, transfer(1, anna, anna, 1)) == "transfer-invalid"
    short = Transfer(
        identity=b"short",
        debit=anna,
        credit=ben,
        amount=1,
        currency="EUR",
        kind=TransferKind.ONLINE,
        created_ms=NOW_MS,
    )
    assert await refused(database, short) == "transfer-invalid"


async def test_a_balance_that_no_integer_holds_is_refused(database: Database) -> None:
    async with database.transaction() as connection:
        supply, anna = await opened(connection, SUPPLY, ANNA)
        await post(connection, [transfer(k, supply, anna, 2**53 - 1) for k in range(1_023)])
    batch = [transfer(5_000 + k, supply, anna, 2**53 - 1) for k in range(3)]
    assert await refused(database, *batch) == "balance-out-of-range"


async def test_a_batch_above_the_bound_is_refused(database: Database) -> None:
    _, anna, ben = await endowed(database)
    batch = [transfer(1, anna, ben, 1)] * (BATCH_MAX + 1)
    assert await refused(database, *batch) == "batch-too-large"


async def test_columns_of_different_lengths_are_refused(database: Database) -> None:
    _, anna, ben = await endowed(database)
    batch = Numbered(
        currency="EUR",
        created_ms=NOW_MS,
        identities=[identity(1), identity(2)],
        debits=[anna],
        credits=[ben],
        amounts=[1],
        kinds=[TransferKind.PAY],
        references=[None],
        records=[None],
    )
    with pytest.raises(LedgerError, match="transfer-invalid"):
        async with database.transaction() as connection:
            await post_numbered(connection, batch)


async def test_an_empty_batch_posts_nothing(database: Database) -> None:
    async with database.transaction() as connection:
        assert await post(connection, []) == PostResult(posted=0, known=0)


async def test_another_failure_of_the_database_is_not_given_a_code(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedFunctionError):
        async with database.transaction() as connection:
            await connection.execute("ALTER FUNCTION ledger_post RENAME TO moved")
            await post(connection, [transfer(1, 1, 2, 1)])


async def test_what_was_posted_cannot_be_changed(database: Database) -> None:
    await endowed(database)
    for command in (
        "UPDATE ledger_transfer SET amount = 1",
        "DELETE FROM ledger_transfer",
        "TRUNCATE ledger_transfer",
    ):
        with pytest.raises(asyncpg.PostgresError, match="only ever added"):
            async with database.transaction() as connection:
                await connection.execute(command)


async def test_an_account_is_opened_once_and_keeps_its_kind(database: Database) -> None:
    async with database.transaction() as connection:
        first = await ensure_accounts(connection, [ANNA, BEN, ANNA])
        assert await ensure_accounts(connection, [BEN, ANNA]) == first
        other = Account(name=ANNA.name, kind=AccountKind.LOSS, currency="EUR")
        with pytest.raises(LedgerError, match="account-conflict"):
            await ensure_accounts(connection, [other])


async def test_concurrent_posters_neither_deadlock_nor_lose_a_transfer(database: Database) -> None:
    supply, anna, ben = await endowed(database, 100_000)
    async with database.transaction() as connection:
        await post(connection, [transfer(9_000, anna, ben, 50_000)])
    chance = random.Random(7)
    wanted = []
    for number in range(1, 401):
        debit, credit = chance.sample([supply, anna, ben], 2)
        wanted.append(transfer(number, debit, credit, chance.randint(1, 9)))

    async def poster(seed: int) -> int:
        mine = random.Random(seed).sample(wanted, len(wanted))
        posted = 0
        for start in range(0, len(mine), 20):
            async with database.transaction() as connection:
                posted += (await post(connection, mine[start : start + 20])).posted
        return posted

    assert sum(await asyncio.gather(*(poster(seed) for seed in range(4)))) == len(wanted)
    async with database.transaction() as connection:
        assert await discrepancies(connection) == []
        assert [item.difference for item in await conservation(connection)] == [0]


async def test_conservation_says_where_the_issued_value_is(database: Database) -> None:
    async with database.transaction() as connection:
        names = [
            SUPPLY,
            ANNA,
            accounts.transit_grants("jnl1a", currency="EUR"),
            accounts.offline("wal1a", journal="jnl1a", epoch=0, currency="EUR"),
            accounts.transit_notes("jnl1a", currency="EUR"),
            accounts.suspense("jnl1b", currency="EUR"),
            accounts.offline("wal1b", journal="jnl1b", epoch=0, currency="EUR"),
            accounts.loss("EUR"),
        ]
        supply, anna, grants, wallet_a, notes, early, wallet_b, loss = await opened(
            connection, *names
        )
        moves = [
            (supply, anna, 1_000),
            (anna, grants, 500),
            (grants, wallet_a, 400),
            (wallet_a, notes, 70),
            (early, wallet_b, 30),
            (loss, wallet_b, 5),
        ]
        batch = [transfer(number, *move) for number, move in enumerate(moves)]
        await post(connection, batch)
        (found,) = await conservation(connection)
    assert found == Conservation(
        currency="EUR",
        issued=1_000,
        online=500,
        offline=365,
        transit_notes=70,
        transit_grants=100,
        suspense=-30,
        loss=-5,
    )
    assert (found.in_transit, found.difference) == (170, 0)


async def test_a_touched_balance_is_found(database: Database) -> None:
    _, anna, _ = await endowed(database)
    async with database.transaction() as connection:
        await connection.execute(
            "UPDATE ledger_account SET balance = 999 WHERE name = $1", "online/anna"
        )
        (found,) = await discrepancies(connection)
        assert (found.account_id, found.balance, found.transferred) == (anna, 999, 1_000)
        assert [item.difference for item in await conservation(connection)] == [1]


async def test_a_statement_lists_both_directions_in_pages(database: Database) -> None:
    supply, anna, ben = await endowed(database)
    async with database.transaction() as connection:
        await post(connection, [transfer(1, anna, ben, 10, reference="tea")])
        await post(connection, [transfer(2, ben, anna, 4)])
        first = await statement(connection, anna, limit=2)
        rest = await statement(connection, anna, before=first[-1].transfer_id, limit=2)
    assert [(line.change, line.other) for line in first + rest] == [
        (4, ben),
        (-10, ben),
        (1_000, supply),
    ]
    assert first[1] == Line(
        transfer_id=first[1].transfer_id,
        identity=identity(1),
        change=-10,
        other=ben,
        kind=TransferKind.ONLINE,
        reference="tea",
        created_ms=NOW_MS,
    )
