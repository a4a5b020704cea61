"""Reports arrive in any order, twice, too soon: the verdicts in the end are the same."""

from __future__ import annotations

import asyncio
import random

import pytest

from cloud.reconciler.values import Ingested
from tests.support.arrivals import (
    Parcel,
    Plot,
    deliver,
    open_books,
    own_books,
    parcels,
    picture_of,
    shuffled,
)
from tests.support.clouds import Clouds
from tests.support.reporting import everywhere, reconciler
from tests.support.world import NOW_MS
from wallet.protocol.entry import EntryKind

ORDERS = 4


def history(choice: random.Random) -> tuple[Plot, list[Parcel]]:
    """Honest journals and their reports."""
    plot = Plot(choice)
    plot.go_on(60)
    plot.bring_in_all()
    made = [p for b in plot.branches for p in parcels(choice, b.book.name, b)]
    return plot, made


@pytest.mark.one_seed_of(20)
async def test_honest_journals_end_alike_in_any_order(clouds: Clouds, seed: int) -> None:
    choice = random.Random(seed)
    plot, made = history(choice)
    ends = []
    for _ in range(ORDERS):
        database = await clouds.fresh()
        await open_books(database, plot.branches)
        await deliver(reconciler(database), shuffled(choice, made))
        ends.append(await picture_of(database))
        for line in await everywhere(database):
            assert (line.suspense, line.loss, line.transit_notes) == (0, 0, 0)
    first = ends[0]
    assert all(end == first for end in ends)
    assert (first["verdicts"], {row[3] for row in first["notes"]}) == (set(), {"redeemed"})
    for branch in plot.branches:
        books = own_books(branch, plot.of(branch))
        assert books.items() <= first["balances"].items()


@pytest.mark.one_seed_of(20)
async def test_parents_that_never_come_leave_the_same_notes_pending(
    clouds: Clouds, seed: int
) -> None:
    choice = random.Random(seed)
    plot, made = history(choice)
    outgoing = [
        sum(entry.kind == EntryKind.TRANSFER_OUT for entry in branch.book.context.read)
        for branch in plot.branches
    ]
    silent = plot.branches[outgoing.index(max(outgoing))].book.name
    told = [parcel for parcel in made if parcel.name != silent]
    ends = []
    for _ in range(ORDERS):
        database = await clouds.fresh()
        await open_books(database, plot.branches)
        await deliver(reconciler(database), shuffled(choice, told))
        ends.append(await picture_of(database))
        await everywhere(database)
    assert all(end == ends[0] for end in ends)
    assert {row[3:] for row in ends[0]["verdicts"]} == {("pending", "parent-missing")}
    # At last it speaks, and nothing is left.
    await deliver(reconciler(database), [parcel for parcel in made if parcel.name == silent])
    assert (await picture_of(database))["verdicts"] == set()
    for line in await everywhere(database):
        assert (line.suspense, line.loss) == (0, 0)


@pytest.mark.one_seed_of(40)
async def test_reports_of_all_journals_at_once_end_as_in_turn(clouds: Clouds, seed: int) -> None:
    choice = random.Random(seed)
    plot, made = history(choice)
    ends = []
    for at_once in (False, True):
        database = await clouds.fresh()
        await open_books(database, plot.branches)
        reconciling = reconciler(database)
        if at_once:
            names = {parcel.name for parcel in made}
            turns = [[p for p in made if p.name == name] for name in sorted(names)]
            await asyncio.gather(*[deliver(reconciling, turn) for turn in turns])
        else:
            await deliver(reconciling, made)
        ends.append(await picture_of(database))
    assert ends[0] == ends[1]


async def test_a_report_that_comes_too_soon_is_not_refused(clouds: Clouds) -> None:
    choice = random.Random(0)
    plot, made = history(choice)
    database = await clouds.fresh()
    await open_books(database, plot.branches)
    late = [parcel for parcel in made if parcel.number]
    for parcel in late:
        answer = await reconciler(database).ingest(parcel.up, now_ms=NOW_MS)
        assert answer == Ingested(acknowledged=0)
