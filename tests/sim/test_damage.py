"""Bits rot, writes go astray, a counter's file is harmed: it is found, or it does no harm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.sim.damage import damaged


@pytest.mark.one_seed_of(4)
async def test_what_a_disk_harms_is_refused_by_name_or_costs_nothing(
    tmp_path: Path, seed: int
) -> None:
    await damaged(tmp_path, seed)


async def test_some_seeds_meet_every_harm_and_most_of_it_is_found(tmp_path: Path) -> None:
    met: Counter[tuple[str, bool]] = Counter()
    for seed in range(200, 230):
        (tmp_path / str(seed)).mkdir()
        damage = await damaged(tmp_path / str(seed), seed)
        met[damage.kind, damage.ended != "open"] += 1
    assert {kind for kind, found in met if found} == {"rest", "cut", "live", "astray", "counter"}
    assert sum(count for (_, found), count in met.items() if found) > 20
