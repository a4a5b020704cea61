"""Journals in several databases end as in one, whatever is delivered twice, late or in any order."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from tests.integration.cloud.test_arrivals import history
from tests.support.arrivals import deliver, open_books, own_books, picture_of, shuffled
from tests.support.cheating import Cheats
from tests.support.clouds import Clouds
from tests.support.reporting import reconciler
from tests.support.shards import Several

SHARDS = 3


async def several(clouds: Clouds, choice: random.Random) -> Several:
    """Fresh databases of one issuer."""
    made = Several([await clouds.fresh() for _ in range(SHARDS)], choice)
    return await made.name()


@pytest.mark.one_seed_of(20)
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
    got = await many.picture()
    assert {k: v for k, v in got["balances"].items() if wanted["balances"].get(k) != v} == {}
    assert got == wanted
    for branch in plot.branches:
        assert own_books(branch, plot.of(branch)).items() <= wanted["balances"].items()
