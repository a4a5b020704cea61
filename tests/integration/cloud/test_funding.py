"""Funding: what is held leaves the wallet once, and comes back only if it was not applied."""

import msgspec
import pytest

from cloud.database import Connection, Database
from cloud.errors import LedgerError, WalletError
from cloud.funding import (
    Funding,
    FundingRequest,
    FundingState,
    find_funding,
    give_back,
    grants_from,
    held_for,
    hold,
    next_sequence,
    set_applied,
    set_granted,
)
from cloud.ledger.conservation import conservation
from cloud.wallets import WalletState, find_wallet, set_wallet_state
from tests.integration.cloud.test_wallets import NOW_MS, opened

JOURNAL = bytes(range(20))


def request(number: int = 1, *, amount: int = 400) -> FundingRequest:
    """A request whose identity is made of the number."""
    return FundingRequest(
        funding_id=number.to_bytes(32, "big"),
        wallet="anna",
        journal=JOURNAL,
        epoch=3,
        offline_wallet=bytes(20),
        amount=amount,
    )


@pytest.fixture
async def anna(database: Database) -> None:
    """Anna has 1,000 minor units of EUR online."""
    async with database.transaction() as connection:
        await opened(connection, "anna", amount=1_000)


async def held(database: Database, *requests: FundingRequest) -> list[Funding]:
    """The requests, held one after the other."""
    async with database.transaction() as connection:
        return [
            await hold(connection, asked, now_ms=NOW_MS + place)
            for place, asked in enumerate(requests)
        ]


async def whereabouts(connection: Connection) -> tuple[int, int]:
    """What is online and what is on its way to a journal; nothing is anywhere else."""
    (found,) = await conservation(connection)
    assert found.difference == 0
    assert found.issued == found.online + found.transit_grants
    return found.online, found.transit_grants


@pytest.mark.usefixtures("anna")
async def test_a_hold_takes_the_amount_out_of_the_wallet_once(database: Database) -> None:
    (first,) = await held(database, request())
    assert await held(database, request(), request()) == [first, first]
    assert (first.state, first.request) == (FundingState.HELD, request())
    async with database.transaction() as connection:
        assert await whereabouts(connection) == (600, 400)


@pytest.mark.usefixtures("anna")
async def test_no_more_than_the_balance_is_held(database: Database) -> None:
    with pytest.raises(LedgerError, match="insufficient-funds"):
        await held(database, request(amount=1_001))
    async with database.transaction() as connection:
        assert await whereabouts(connection) == (1_000, 0)
        with pytest.raises(WalletError, match="unknown-funding"):
            await find_funding(connection, request().funding_id)


@pytest.mark.usefixtures("anna")
async def test_one_identity_names_one_funding(database: Database) -> None:
    await held(database, request())
    with pytest.raises(WalletError, match="funding-conflict"):
        await held(database, request(amount=401))


@pytest.mark.usefixtures("anna")
@pytest.mark.parametrize(
    "change", [{"amount": 0}, {"amount": 10**12 + 1}, {"journal": b"short"}, {"epoch": -1}]
)
async def test_a_request_out_of_range_is_refused(
    database: Database, change: dict[str, int | bytes]
) -> None:
    with pytest.raises(WalletError, match="funding-invalid"):
        await held(database, msgspec.structs.replace(request(), **change))


@pytest.mark.usefixtures("anna")
async def test_a_frozen_wallet_funds_nothing(database: Database) -> None:
    async with database.transaction() as connection:
        await set_wallet_state(connection, "anna", WalletState.FROZEN)
    with pytest.raises(WalletError, match="wallet-frozen"):
        await held(database, request())


@pytest.mark.usefixtures("anna")
async def test_grants_of_an_epoch_count_without_a_gap(database: Database) -> None:
    made = await held(database, request(2), request(1))
    async with database.transaction() as connection:
        assert await held_for(connection, JOURNAL, epoch=3) == made
        assert await held_for(connection, JOURNAL, epoch=4) == []
        granted = []
        for expected, funding in enumerate(made):
            sequence = await next_sequence(connection, JOURNAL, epoch=3)
            assert sequence == expected
            granted.append(
                await set_granted(
                    connection, funding.funding_id, sequence=sequence, grant_cose=b"signed"
                )
            )
        assert await held_for(connection, JOURNAL, epoch=3) == []
        found = await grants_from(connection, JOURNAL, epoch=3, sequence=1, limit=10)
        assert found == granted[1:]
        assert found[0].state is FundingState.GRANTED
        with pytest.raises(WalletError, match="funding-decided"):
            await set_granted(connection, made[0].funding_id, sequence=9, grant_cose=b"again")


@pytest.mark.usefixtures("anna")
async def test_two_grants_of_one_sequence_are_refused(database: Database) -> None:
    made = await held(database, request(1), request(2))
    with pytest.raises(WalletError, match="funding-invalid"):
        async with database.transaction() as connection:
            for funding in made:
                await set_granted(connection, funding.funding_id, sequence=0, grant_cose=b"signed")


@pytest.mark.usefixtures("anna")
async def test_what_was_applied_never_comes_back(database: Database) -> None:
    (funding,) = await held(database, request())
    async with database.transaction() as connection:
        await set_granted(connection, funding.funding_id, sequence=0, grant_cose=b"signed")
        assert await set_applied(connection, JOURNAL, epoch=3, sequences=[0, 1]) == 1
        assert await set_applied(connection, JOURNAL, epoch=3, sequences=[0, 1]) == 0
        with pytest.raises(WalletError, match="funding-decided"):
            await give_back(connection, funding.funding_id, now_ms=NOW_MS)


@pytest.mark.usefixtures("anna")
@pytest.mark.parametrize("granted", [False, True])
async def test_what_was_not_applied_comes_back_once(database: Database, granted: bool) -> None:
    (funding,) = await held(database, request())
    async with database.transaction() as connection:
        if granted:
            await set_granted(connection, funding.funding_id, sequence=0, grant_cose=b"signed")
        first = await give_back(connection, funding.funding_id, now_ms=NOW_MS)
        again = await give_back(connection, funding.funding_id, now_ms=NOW_MS + 9)
        assert (first.state, again.state) == (FundingState.RETURNED, FundingState.RETURNED)
        assert await whereabouts(connection) == (1_000, 0)
        assert (await find_wallet(connection, "anna")).balance == 1_000
