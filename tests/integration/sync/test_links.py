"""The engine over real packets between two network namespaces, on lines as they are out there.

Rates, delays and losses are made on the packets themselves (`tests.support.packets`): the kernels
that run these tests have no netem.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sync.pace import LEAST_BYTES
from tests.support.link_world import CASES, ENTRY_BYTES, run_link
from tests.support.sync_pair import LISTED

TAKES_S_MAX = 60


async def played(name: str) -> dict[str, Any]:
    """What a case came to; in the end the issuer holds all, once and in order."""
    told = await asyncio.to_thread(run_link, name)
    assert told["held"] and told["lists"], told
    assert told["outcomes"][-1][0] == "completed", told
    assert told["took_s"] < TAKES_S_MAX, told
    return told


async def test_what_was_counted_is_what_went_over_the_line() -> None:
    told = await played("plain")
    assert told["states"] == ["idle"]
    assert told["day_bytes"] == told["sent"] + told["received"]
    # The line carried the looking-up of the name besides.
    assert 0 <= told["line_bytes"] - told["day_bytes"] < 0.1 * told["line_bytes"]


@pytest.mark.parametrize("name", ["2g", "satellite"])
async def test_slow_lines_that_lose_packets_carry_all_in_segments_that_fit(name: str) -> None:
    told = await played(name)
    assert told["states"][-1] == "metered"
    assert told["dropped"] > 0
    # A modem begins small, and finds out what it may carry.
    assert len(told["reports"]) > 1 and told["reports"][0] < CASES[name].entries
    entries = CASES[name].entries * ENTRY_BYTES
    # Losses cost something; sending all of it twice would cost more.
    assert entries < told["sent"] < 2 * entries + 20_000
    if name == "2g":
        assert told["segment_bytes"] < 64 * 1024


async def test_a_line_that_flaps_every_three_seconds_carries_all_in_the_end() -> None:
    told = await played("flapping")
    assert told["dropped"] > 0
    assert told["segment_bytes"] >= LEAST_BYTES
    failures = {data["code"] for name, data in told["events"] if name == "sync.failed"}
    assert failures <= {"transport-timeout", "transport-unreachable"}


async def test_lists_come_in_answers_that_a_line_which_flaps_can_carry() -> None:
    told = await played("lists")
    # Whole, they do not get through in three seconds; an answer that was lost is tried smaller.
    case = CASES["lists"]
    whole = case.lists * (case.list_bytes + len(LISTED))
    assert told["dropped"] > 0 and max(told["answers"]) < whole
    assert min(filter(None, told["answers"])) < max(told["answers"])


@pytest.mark.parametrize("name", ["lies", "portal"])
async def test_who_answers_in_the_clouds_place_is_known_and_told_nothing(name: str) -> None:
    told = await played(name)
    assert told["states"] == ["captive", "idle"]
    assert told["outcomes"][0][1].startswith("transport-other-peer")
    assert told.get("strangers", 0) == 0
    assert told["reports"] == [CASES[name].entries]


@pytest.mark.parametrize("name", ["expired", "clock"])
async def test_no_time_that_is_wrong_or_over_keeps_the_line_shut(name: str) -> None:
    told = await played(name)
    assert told["states"] == ["idle"]
