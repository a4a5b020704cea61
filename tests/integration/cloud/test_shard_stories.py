"""The same stories in one database and in several: the same verdicts, the same balances."""

from __future__ import annotations

import copy
import random
from collections.abc import AsyncIterator

import pytest

from tests.support.breaches import forge
from tests.support.clouds import Clouds
from tests.support.convictions import rows_of
from tests.support.issuer import Key
from tests.support.reporting import SUPPLY, Branch, open_bank
from tests.support.shards import Several
from tests.support.world import DAY_MS, NOW_MS, list_of
from wallet.protocol.issued import VerdictState
from wallet.protocol.lists import ListId
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code

ANNA, BERT, CARA, DORA = Key("anna"), Key("bert"), Key("cara"), Key("dora")
# Where north, south and west live. The first is one database.
LAYOUTS = [(0, 0, 0), (0, 1, 0), (1, 2, 0)]


class Tale(Several):
    """Three branches; Anna has 1,000 in north."""

    north: Branch
    south: Branch
    west: Branch

    async def begin(self, layout: tuple[int, int, int]) -> Tale:
        """Open the bank and the branches."""
        await self.name()
        await open_bank(self.head)
        self.north = Branch("north", journal={JournalLimit.CLAIMS_WINDOW_S: 60})
        self.south, self.west = Branch("south"), Branch("west")
        self.north.enrol(ANNA, BERT)
        self.south.enrol(CARA)
        self.west.enrol(DORA)
        await self.house(*zip((self.north, self.south, self.west), layout, strict=True))
        await self.north.fund(self.head, ANNA, 1_000)
        return self

    async def verdicts(self, branch: Branch) -> list[tuple[int, int, str]]:
        """What the newest settlement names, after the journal has asked for it."""
        await self.sync(branch)
        settlement = await branch.settlement(self.reconciling)
        assert settlement is not None
        return [(v.index, v.state, v.code) for v in settlement.verdicts]


@pytest.fixture(params=LAYOUTS, ids=str)
async def tale(clouds: Clouds, request: pytest.FixtureRequest) -> AsyncIterator[Tale]:
    """A story, told in one of the layouts."""
    layout = request.param
    databases = [await clouds.fresh() for _ in range(max(layout) + 1)]
    yield await Tale(databases, random.Random(str(layout))).begin(layout)


@pytest.mark.parametrize("early", [False, True])
async def test_a_note_moves_value_in_either_order_of_reports(tale: Tale, early: bool) -> None:
    north, south = tale.north, tale.south
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await tale.sync(*((south, north) if early else (north, south)))
    assert await tale.verdicts(south) == []
    found = await tale.where()
    assert (found.online, found.offline) == (SUPPLY - 1_000, 1_000)
    assert (found.in_transit, found.suspense, found.loss) == (0, 0, 0)


async def test_a_note_whose_parent_is_missing_is_pending_until_it_comes(tale: Tale) -> None:
    north, south = tale.north, tale.south
    index = south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await tale.sync(south)
    assert await tale.verdicts(south) == [(index, VerdictState.PENDING, Code.PARENT_MISSING)]
    found = await tale.where()
    assert (found.offline, found.suspense) == (250, -250)
    await tale.sync(north)
    assert await tale.verdicts(south) == []


async def test_value_goes_online_and_comes_back_to_payers(tale: Tale) -> None:
    north, south = tale.north, tale.south
    north.book.accept(north.book.pay(ANNA, ANNA, 100, kind=OrderKind.REDEEM, reference="rent"))
    south.take_in(north, north.pay_out(ANNA, CARA, south, 250))
    await tale.sync(north)
    found = await tale.where()
    assert (found.online, found.offline, found.transit_notes) == (SUPPLY - 900, 650, 250)
    due_ms = NOW_MS + DAY_MS + 60_000
    assert await tale.return_notes(now_ms=due_ms - 1) == 0
    assert await tale.return_notes(now_ms=due_ms) == 1
    assert await tale.return_notes(now_ms=due_ms) == 0
    found = await tale.where()
    assert (found.online, found.offline, found.in_transit) == (SUPPLY - 650, 650, 0)
    # It had been redeemed in time: the payee is paid, and the issuer bears it.
    await tale.sync(south)
    assert await tale.verdicts(south) == []
    found = await tale.where()
    assert (found.offline, found.suspense, found.loss) == (900, 0, -250)


async def test_a_note_that_is_redeemed_again_in_a_later_epoch_convicts(tale: Tale) -> None:
    north, south = tale.north, tale.south
    note = north.pay_out(ANNA, CARA, south, 250)
    south.take_in(north, note)
    await tale.sync(north, south)
    later = Branch("south", epoch=2)
    later.enrol(CARA)
    index = later.take_in(north, note)
    await tale.sync(later)
    settlement = await later.settlement(tale.reconciling)
    assert settlement is not None
    assert [(v.index, v.state, v.code) for v in settlement.verdicts] == [
        (index, VerdictState.REJECTED, Code.NOTE_REDEEMED)
    ]
    assert await tale.states(north, later) == ["open", "suspended"]
    found = await tale.where()
    assert (found.offline, found.suspense, found.loss) == (1_250, 0, -250)


async def test_two_notes_of_one_index_for_two_epochs_are_both_borne(tale: Tale) -> None:
    north, south = tale.north, tale.south
    hidden = copy.deepcopy(north)
    south.take_in(hidden, hidden.pay_out(ANNA, CARA, south, 100))
    note = north.pay_out(ANNA, CARA, south, 250)
    await tale.sync(south, north)
    later = Branch("south", epoch=2)
    later.enrol(CARA)
    later.take_in(north, note)
    await tale.sync(later)
    assert await tale.states(north, later) == ["suspended", "open"]
    assert await tale.verdicts(later) == []
    found = await tale.where()
    assert (found.offline, found.suspense, found.loss, found.transit_notes) == (1_100, 0, -100, 0)


async def test_what_a_shard_forgot_of_a_note_its_home_remembers(tale: Tale) -> None:
    north, south = tale.north, tale.south
    note = north.pay_out(ANNA, CARA, south, 250)
    south.take_in(north, note)
    await tale.sync(north, south)
    for _, database in tale.shards:
        async with database.transaction() as connection:
            await connection.execute("DELETE FROM note WHERE home IS NOT NULL")
    later = Branch("south", epoch=2)
    later.enrol(CARA)
    index = later.take_in(north, note)
    await tale.sync(later)
    assert await tale.states(later) == ["suspended"]
    home = tale.shards.database(await tale.shards.home_of(later.book.journal))
    async with home.transaction() as connection:
        row = await connection.fetchrow(
            "SELECT verdict.state, code FROM verdict JOIN journal_epoch USING (epoch_id)"
            " WHERE epoch = 2 AND index = $1",
            index,
        )
    assert tuple(row) == ("rejected", Code.NOTE_REDEEMED)
    found = await tale.where()
    assert (found.offline, found.suspense, found.loss) == (1_250, 0, -250)


# When north tells of it: suspense, loss and what is in transit, and whether south's note waits.
SPENT_TWICE = {
    "before": ((0, -1_000, 0), False),
    "between": ((0, -1_000, 0), False),
    # Both receipts convicted it before: what it would say is a claim, when its epoch is closed.
    "after": ((-1_000, -1_000, 1_000), True),
    "never": ((-1_000, -1_000, 1_000), True),
}


@pytest.mark.parametrize("told", SPENT_TWICE)
async def test_one_value_spent_at_two_branches_convicts_its_journal_and_is_paid_once(
    tale: Tale, told: str
) -> None:
    north, south, west = tale.north, tale.south, tale.west
    hidden = copy.deepcopy(north)
    south.take_in(hidden, hidden.pay_out(ANNA, CARA, south, 1_000))
    west.take_in(north, north.pay_out(ANNA, DORA, west, 1_000))
    turns = {
        "before": (north, south, west),
        "between": (south, north, west),
        "after": (south, west, north),
        "never": (south, west),
    }[told]
    for branch in turns:
        await branch.sync(tale.reconciling)
        await tale.drain(twice=0.5)
    await tale.sweep()
    await tale.drain()
    assert await tale.states(north, south, west) == ["suspended", "open", "open"]
    found = await tale.where()
    wanted, waits = SPENT_TWICE[told]
    assert (found.suspense, found.loss, found.in_transit) == wanted
    # Both payees kept to the policy: neither is short.
    assert (found.offline, found.issued) == (2_000, SUPPLY)
    pending = [(2, VerdictState.PENDING, Code.PARENT_MISSING)]
    assert await tale.verdicts(south) == (pending if waits else [])
    assert await tale.verdicts(west) == []


async def test_receipts_find_a_hidden_entry_wherever_its_journal_lives(tale: Tale) -> None:
    north, south = tale.north, tale.south
    hidden = copy.deepcopy(north)
    shown = hidden.book.accept(hidden.book.pay(ANNA, BERT, 300))
    receipt = hidden.book.receipt(shown.index)
    north.book.accept(north.book.pay(ANNA, BERT, 1))
    assert (await south.sync(tale.reconciling, collected=((shown.raw, receipt),))).problem is None
    await tale.drain()
    await tale.sync(north)
    await tale.sweep()
    await tale.drain()
    assert await tale.states(north, south) == ["suspended", "open"]
    async with tale.head.transaction() as connection:
        told = await connection.fetch("SELECT journal, kind FROM suspended_elsewhere")
    home = await tale.shards.home_of(north.book.journal)
    assert [tuple(row) for row in told] == ([(north.book.journal, "hidden-entry")] if home else [])
    (row,) = await rows_of(tale.shards.database(home))
    assert row.evidence_id >> 40 == row.epoch_id >> 40 == home


async def test_who_was_paid_against_the_rules_gets_it_online(tale: Tale) -> None:
    north = tale.north
    forge(north.book, north.book.pay(ANNA, BERT, 1_001))
    await tale.sync(north)
    found = await tale.where()
    assert (found.online, found.offline, found.loss) == (SUPPLY + 1, 1_000, -1_001)
    assert await tale.states(north) == ["suspended"]


async def test_a_grant_that_the_head_forgot_is_missing_in_suspense(tale: Tale) -> None:
    north = tale.north
    north.grant(BERT, 70)
    await tale.sync(north)
    found = await tale.where()
    assert (found.online, found.offline, found.suspense) == (SUPPLY - 1_000, 1_070, -70)
    async with tale.head.transaction() as connection:
        assert await connection.fetchval("SELECT amount FROM lost_grant") == 70
        assert await connection.fetchval("SELECT state FROM funding") == "applied"


async def test_lists_are_read_at_the_head_and_remembered_where_they_are_named(tale: Tale) -> None:
    north, named, shown = tale.north, list_of(ListId.WALLETS, []), list_of(ListId.FROZEN, [])
    async with tale.head.transaction() as connection:
        await connection.execute(
            "INSERT INTO issued_object VALUES ($1, $2, $3, true, $4)",
            *(f"list/{named.list_id}", named.sequence, named.signed.raw, named.issued_ms),
        )
    north.book.submit(named)
    await tale.sync(north)
    north.book.submit(shown)
    # One that the issuer does not know has to be shown.
    assert (await north.sync(tale.reconciling)).problem == Code.PARENT_MISSING
    answer = await north.sync(tale.reconciling, health={"lists": [shown.signed.raw]})
    assert (answer.problem, answer.acknowledged) == (None, north.size)
    tale.restart()
    north.book.accept(north.book.pay(ANNA, BERT, 2))
    await tale.sync(north)
    assert await tale.states(north) == ["open"]
