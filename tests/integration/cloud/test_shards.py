"""Journals in several databases end as in one, whatever comes twice, late or in any order."""

from __future__ import annotations

import asyncio
import random

import pytest

from cloud.clock import SystemClock
from cloud.shards.relay import Relay, Taker
from cloud.stream.local import LocalStream
from tests.integration.cloud.test_arrivals import history
from tests.integration.cloud.test_mixed_cheats import convicted
from tests.support.arrivals import deliver, open_books, own_books, picture_of, shuffled
from tests.support.cheating import Cheats
from tests.support.clouds import Clouds
from tests.support.reporting import reconciler
from tests.support.shards import Several
from tests.support.world import ANCHOR

SHARDS = 3


async def several(clouds: Clouds, choice: random.Random) -> Several:
    """Fresh databases of one issuer."""
    made = Several([await clouds.fresh() for _ in range(SHARDS)], choice)
    return await made.name()


@pytest.mark.one_seed_of(100)
async def test_honest_journals_end_in_several_shards_as_in_one(clouds: Clouds, seed: int) -> None:
    choice = random.Random(seed)
    plot, made = history(choice)
    alone = await clouds.fresh()
    await open_books(alone, plot.branches)
    await deliver(reconciler(alone), made)
    wanted = await picture_of(alone)
    many = await several(clouds, choice)
    await many.house(*[(branch, choice.randrange(SHARDS)) for branch in plot.branches])
    await open_books(many.head, plot.branches)
    for parcel in shuffled(choice, made):
        await deliver(many.reconciling, [parcel])
        match choice.randrange(4):
            case 0:
                await many.drain(lost=0.3, twice=0.3)
            case 1:
                many.restart()
            case _:
                # Whatever is on its way between shards, the account says so to the cent.
                await many.everywhere()
    await many.drain(lost=0.3, twice=0.3)
    for line in await many.everywhere():
        assert (line.suspense, line.loss, line.in_transit) == (0, 0, 0)
    assert await many.picture() == wanted
    for branch in plot.branches:
        assert own_books(branch, plot.of(branch)).items() <= wanted["balances"].items()


@pytest.mark.one_seed_of(100)
async def test_any_mix_of_cheats_in_several_shards_creates_nothing(
    clouds: Clouds, seed: int
) -> None:
    choice = random.Random(seed)
    cheats = Cheats(choice)
    many = await several(clouds, choice)
    await many.house(*[(branch, choice.randrange(SHARDS)) for branch in cheats.plot.branches])
    await open_books(many.head, cheats.plot.branches)
    for parcel in shuffled(choice, cheats.parcels()):
        await deliver(many.reconciling, [parcel])
        if choice.random() < 0.3:
            await many.drain(lost=0.3, twice=0.3)
    await many.drain(twice=0.3)
    await many.sweep()
    await many.drain()
    said = f"seed {seed}: {cheats.done}"
    for line in await many.everywhere():
        assert line.loss <= 0, said
    end = await many.picture()
    states = {row[0]: row[2] for row in end["epochs"]}
    for branch in cheats.cheaters:
        assert states[branch.book.journal] == "suspended", said
    for branch in cheats.honest:
        assert states[branch.book.journal] == "open", said
        books = own_books(branch, cheats.plot.of(branch))
        assert books.items() <= end["balances"].items(), said
    found = set()
    for _, database in many.shards:
        found |= await convicted(database)
    assert found == {branch.book.journal for branch in cheats.cheaters}, said


@pytest.mark.one_seed_of(100)
async def test_reports_and_messages_at_once_end_as_in_turn(clouds: Clouds, seed: int) -> None:
    choice = random.Random(seed)
    plot, made = history(choice)
    alone = await clouds.fresh()
    await open_books(alone, plot.branches)
    await deliver(reconciler(alone), made)
    many = await several(clouds, choice)
    await many.house(*[(branch, choice.randrange(SHARDS)) for branch in plot.branches])
    await open_books(many.head, plot.branches)
    stream, clock = LocalStream(), SystemClock()
    relays = [Relay(many.shards, stream, clock) for _ in range(2)]
    takers = [
        Taker(many.shards, number, anchor=ANCHOR, stream=stream, clock=clock)
        for number, _ in many.shards
    ]
    runs = [*[each.run() for each in relays], *[each.run() for each in takers]]
    running = [asyncio.create_task(run) for run in runs]
    try:
        turns = [[p for p in made if p.name == b.book.name] for b in plot.branches]
        await asyncio.gather(*[deliver(many.reconciling, turn) for turn in turns])
        async with asyncio.timeout(30):
            while await many.waiting() or not await settled(many):
                await many.everywhere()
                await asyncio.sleep(0.05)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await stream.close()
    assert await many.picture() == await picture_of(alone)


async def settled(many: Several) -> bool:
    """Whether no verdict waits for a parent."""
    return not (await many.picture())["verdicts"]
