"""Journals that are told to an issuer whose books are older: it has forgotten its own words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.database import Database
from cloud.funding import FundingRequest, held_for, hold, next_sequence, set_granted
from cloud.issuer import lists
from cloud.issuer.restored import merge_lists
from cloud.reconciler.values import Ingested
from tests.support.cloud_local import LocalCloud, local_cloud
from tests.support.issuer import Key
from tests.support.postgres import CONFIG, Server
from tests.support.reporting import SUPPLY, Branch, open_bank, reconciler, where
from tests.support.world import NOW_MS, list_of, picture
from wallet.protocol.codec import encode
from wallet.protocol.entry import Entry, EntryKind, decode_entry, encode_entry
from wallet.protocol.lists import ListId, SignedList
from wallet.protocol.refusals import Code

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")
GRANTED = 1_000


@pytest.fixture
async def older(postgres: Server) -> AsyncIterator[Database]:
    """The books as the backup has them: the bank, and no journal yet."""
    name = await postgres.create()
    opened = await Database.connect(postgres.dsn(name), config=CONFIG)
    await open_bank(opened)
    yield opened
    await opened.close()
    await postgres.drop(name)


@pytest.fixture
async def north(database: Database) -> Branch:
    """A journal of Anna, who has 1,000, and Bert."""
    await open_bank(database)
    branch = Branch("north")
    branch.enrol(ANNA, BERT)
    await branch.fund(database, ANNA, GRANTED)
    return branch


async def remember(older: Database, branch: Branch, *, amount: int = GRANTED) -> FundingRequest:
    """The hold of Anna's grant, as the backup knows it: not granted yet."""
    request = FundingRequest(
        funding_id=bytes(32),
        wallet="bank",
        journal=branch.book.journal,
        epoch=branch.book.epoch,
        offline_wallet=ANNA.public.id,
        amount=amount,
    )
    async with older.transaction() as connection:
        await hold(connection, request, now_ms=NOW_MS)
    return request


async def state_of(database: Database, branch: Branch) -> str:
    """What the issuer made of a journal."""
    async with database.transaction() as connection:
        found: str = await connection.fetchval(
            "SELECT state FROM journal_epoch WHERE journal = $1", branch.book.journal
        )
        return found


async def tell_again(older: Database, branch: Branch, **claims: Any) -> None:
    """The whole journal, to an issuer that starts anew: it comes to the same state."""
    reconciling = reconciler(older)
    branch.acknowledged = 0
    assert await branch.sync(reconciling, **claims) == Ingested(acknowledged=branch.size)
    assert await state_of(older, branch) == "open"
    for restarted in (reconciling, reconciler(older)):
        assert await branch.sync(restarted) == Ingested(acknowledged=branch.size)
        replica = restarted._replicas[branch.book.journal, 1]
        assert picture(replica.state) == picture(branch.book.state)


async def test_settlements_that_are_forgotten_are_known_by_their_signature(
    database: Database, older: Database, north: Branch
) -> None:
    await remember(older, north)
    reconciling = reconciler(database)
    for amount in (1, 2, 3):
        north.book.accept(north.book.pay(ANNA, BERT, amount))
        await north.sync(reconciling)
        await north.settle(reconciling)
    await tell_again(older, north)
    found = await where(older)
    assert (found.offline, found.online, found.suspense) == (GRANTED, SUPPLY - GRANTED, 0)


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"role": "grants"}, Code.WRONG_ROLE), ({"root": bytes(32)}, Code.PROOF_INVALID)],
    ids=["role", "root"],
)
async def test_a_settlement_that_nobody_remembers_is_no_better_for_it(
    older: Database, north: Branch, changed: dict[str, Any], code: Code
) -> None:
    book = north.book
    raw = encode_entry(
        kind=EntryKind.SETTLEMENT,
        index=north.size,
        time_ms=book.now_ms,
        clock=book.clock,
        body=encode(book.settlement(**changed).signed.raw),
    )
    book.context.append(decode_entry(raw))
    await north.sync(reconciler(older))
    assert await state_of(older, north) == "suspended"
    async with older.transaction() as connection:
        assert await connection.fetchval("SELECT reason FROM journal_epoch") == code


@pytest.mark.parametrize("payee_first", [False, True])
async def test_notes_meet_again_in_either_order(
    database: Database, older: Database, north: Branch, payee_first: bool
) -> None:
    await remember(older, north)
    south = Branch("south")
    south.enrol(CARA)
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    for branch in (north, south):
        reconciling = reconciler(database)
        await branch.sync(reconciling)
        await branch.settle(reconciling)
    for branch in (south, north) if payee_first else (north, south):
        await tell_again(older, branch)
    assert await where(older) == await where(database)


async def test_a_forgotten_grant_is_that_of_the_hold_that_it_fits(
    older: Database, north: Branch
) -> None:
    await remember(older, north)
    await tell_again(older, north)
    found = await where(older)
    assert (found.in_transit, found.suspense) == (0, 0)
    async with older.transaction() as connection:
        assert await held_for(connection, north.book.journal, epoch=1) == []
        assert await next_sequence(connection, north.book.journal, epoch=1) == 1


async def test_a_forgotten_grant_that_fits_no_hold_stands_in_suspense(
    older: Database, north: Branch
) -> None:
    await remember(older, north, amount=GRANTED - 1)
    await tell_again(older, north)
    found = await where(older)
    # The other hold waits as before; nothing that somebody has online was taken for this one.
    assert (found.offline, found.in_transit, found.suspense) == (GRANTED, GRANTED - 1, -GRANTED)
    async with older.transaction() as connection:
        lost = await connection.fetchrow("SELECT sequence, amount, offline_wallet FROM lost_grant")
        assert tuple(lost) == (0, GRANTED, ANNA.public.id)
        assert await next_sequence(connection, north.book.journal, epoch=1) == 1


async def test_a_number_that_was_granted_twice_is_granted_anew_to_whom_it_did_not_reach(
    older: Database, north: Branch
) -> None:
    request = await remember(older, north, amount=GRANTED - 1)
    other = north.book.grant(ANNA, GRANTED - 1, sequence=0)
    async with older.transaction() as connection:
        await set_granted(connection, request.funding_id, sequence=0, grant_cose=other.signed.raw)
    await tell_again(older, north)
    async with older.transaction() as connection:
        (waiting,) = await held_for(connection, north.book.journal, epoch=1)
        assert (waiting.funding_id, waiting.sequence) == (request.funding_id, None)
        assert await next_sequence(connection, north.book.journal, epoch=1) == 1


def enter(branch: Branch, listed: SignedList) -> None:
    """A list, as a gateway enters it."""
    assert isinstance(branch.book.submit(listed), Entry)


async def test_lists_that_are_forgotten_have_to_be_shown(older: Database, north: Branch) -> None:
    first = list_of(ListId.SANCTIONED, [["S1", ["X"]]], sequence=4)
    second = list_of(ListId.SANCTIONED, [[["S2", ["Y"]]], []], sequence=5, base=first.hash)
    for listed in (first, second):
        enter(north, listed)
    reconciling = reconciler(older)
    asked = Ingested(acknowledged=0, problem=Code.PARENT_MISSING)
    assert await north.sync(reconciling) == asked
    # What is no list of this issuer is passed over; what is missing then is judged as ever.
    strange = list_of(ListId.WALLETS, [], role="grants").signed.raw
    shown: list[object] = [strange, first.signed.raw, second.signed.raw, 7]
    await tell_again(older, north, health={"lists": shown})


async def test_lists_go_on_above_the_forgotten_ones_and_forget_nobody(
    database: Database, tmp_path: Path
) -> None:
    async with local_cloud(database, tmp_path) as cloud:
        await recover(cloud, list_of(ListId.SANCTIONED, [["S1", ["X"]]], sequence=7))
        full = list_of(ListId.SANCTIONED, [["S2", []]], sequence=8)
        delta = list_of(
            ListId.SANCTIONED, [[["S3", ["Z"]]], [["S2", []]]], sequence=9, base=full.hash
        )
        await recover(cloud, full, delta)
        # A part that nobody has shown: what is known stays, and the number is above it.
        await recover(cloud, list_of(ListId.FROZEN, [[], []], sequence=3, base=bytes(32)))
        async with cloud.cloud.database.transaction() as connection:
            held = await lists.held(connection, ListId.SANCTIONED)
            frozen = await lists.held(connection, ListId.FROZEN)
        assert held is not None and frozen is not None
        assert (held.sequence, held.items) == (10, frozenset({"S1", "S3"}))
        assert dict(held.names) == {"S1": ("X",), "S3": ("Z",)}
        assert (frozen.sequence, frozen.items) == (4, frozenset())


async def recover(cloud: LocalCloud, *shown: SignedList) -> None:
    """Lists that a journal has shown, taken into the series; two answers at once do it once."""
    async with cloud.cloud.database.transaction() as connection:
        for listed in shown:
            await connection.execute(
                "INSERT INTO recovered_list (hash, list_id, sequence, object, found_ms)"
                " VALUES ($1, $2, $3, $4, $5)",
                *(listed.hash, listed.list_id, listed.sequence, listed.signed.raw, NOW_MS),
            )

    async def merge() -> None:
        async with cloud.cloud.database.transaction() as connection:
            await merge_lists(connection, cloud.cloud.desk, now_ms=cloud.clock.now_ms())

    await asyncio.gather(merge(), merge())
