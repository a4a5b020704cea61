"""After any mix of cheats in any order: nothing was created, and who cheated is known."""

from __future__ import annotations

import asyncio
import random

import pytest

from cloud.database import Database
from cloud.evidence.proofs import proof_of
from cloud.reconciler.stragglers import sweep
from tests.support.arrivals import deliver, open_books, own_books, picture_of, shuffled
from tests.support.cheating import Cheats
from tests.support.clouds import Clouds
from tests.support.convictions import rows_of
from tests.support.reporting import everywhere, reconciler
from tests.support.world import ANCHOR, NOW_MS

ORDERS = 3


@pytest.mark.one_seed_of(10)
async def test_any_mix_of_cheats_creates_nothing_and_convicts_those_who_cheated(
    clouds: Clouds, seed: int
) -> None:
    choice = random.Random(seed)
    cheats = Cheats(choice)
    made = cheats.parcels()
    for _ in range(ORDERS):
        database = await clouds.fresh()
        await open_books(database, cheats.plot.branches)
        await deliver(reconciler(database), shuffled(choice, made))
        said = f"seed {seed}: {cheats.done}"
        # Supply is what it was, in each currency, and all of it is somewhere.
        for line in await everywhere(database):
            assert line.loss <= 0, said
        end = await picture_of(database)
        states = {row[0]: row[2] for row in end["epochs"]}
        for branch in cheats.cheaters:
            assert states[branch.book.journal] == "suspended", said
        # No honest holder is short, nor richer than the own branch says.
        for branch in cheats.honest:
            assert states[branch.book.journal] == "open", said
            books = own_books(branch, cheats.plot.of(branch))
            assert books.items() <= end["balances"].items(), said
        assert await convicted(database) == {b.book.journal for b in cheats.cheaters}, said


@pytest.mark.one_seed_of(20)
async def test_cheats_that_are_told_at_once_end_as_those_in_turn(clouds: Clouds, seed: int) -> None:
    choice = random.Random(seed)
    cheats = Cheats(choice)
    made = cheats.parcels()
    database = await clouds.fresh()
    await open_books(database, cheats.plot.branches)
    reconciling = reconciler(database)
    names = sorted({parcel.name for parcel in made})
    turns = [[parcel for parcel in made if parcel.name == name] for name in names]
    await asyncio.gather(*[deliver(reconciling, turn) for turn in turns])
    # Whoever came too soon comes again.
    await deliver(reconciling, made)
    # And what crossed on the way is found by upkeep.
    await sweep(database, ANCHOR, now_ms=NOW_MS)
    for line in await everywhere(database):
        assert line.loss <= 0
    end = await picture_of(database)
    for branch in cheats.honest:
        books = own_books(branch, cheats.plot.of(branch))
        assert books.items() <= end["balances"].items(), cheats.done
    assert await convicted(database) == {b.book.journal for b in cheats.cheaters}, cheats.done


async def convicted(database: Database) -> set[bytes]:
    """Whom the evidence convicts before anybody who has the root; all of it does."""
    found = set()
    for row in await rows_of(database):
        async with database.transaction() as connection:
            kept = await proof_of(connection, ANCHOR, row, now_ms=1)
        assert kept.proof.journal == row.journal
        found.add(bytes(row.journal))
    return found
