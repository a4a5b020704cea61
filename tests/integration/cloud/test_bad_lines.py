"""A whole branch and a whole cloud over lines as they are out there, while people pay.

The engine over many such lines, one by one, is in `tests/integration/sync/test_links.py`.
"""

import asyncio
from typing import Any

import pytest

from tests.support.branch_world import AMOUNT, FUNDS, ISSUED, MOST_S, run_branch

# A payment waits for the disk and the key, never for the line.
PAYMENT_S_MAX = 10
BAD = ("2g", "flapping", "portal", "lies")


@pytest.mark.timeout(MOST_S + 60)
async def test_a_branch_pays_over_every_line_and_agrees_with_the_cloud_in_the_end() -> None:
    told = await asyncio.to_thread(run_branch)
    phases = told["phases"]
    assert set(phases) == set(BAD)
    # 1. People paid all the while, and none of them waited for a line.
    assert all(phases[name]["paid"] > 0 for name in BAD), phases
    assert told["slowest_s"] < PAYMENT_S_MAX, told
    # 2. What is bad but the cloud's own carries entries; who only answers in its place does not.
    assert phases["2g"]["taken"] > 0 and phases["flapping"]["taken"] > 0, phases
    assert phases["2g"]["dropped"] > 0 and phases["flapping"]["dropped"] > 0, phases
    assert (phases["portal"]["line"], phases["lies"]["line"]) == ("captive", "captive"), phases
    assert (told["strangers"] >= 2, told["told_strangers"]) == (True, 0), told
    check_agreed(told)


def check_agreed(told: dict[str, Any]) -> None:
    """In the end the cloud holds all, each payment once, and both books say the same."""
    assert len(told["held"]) == told["size"] == len(set(told["held"])), told
    assert set(told["paid"]) <= set(told["held"])
    assert told["cloud"] == told["gateway"], told
    assert sorted(told["gateway"].values()) == sorted(
        [FUNDS - AMOUNT * len(told["paid"]), AMOUNT * len(told["paid"])]
    )
    assert (told["unsettled"], told["evidence"], told["stopped"]) == (0, 0, 0), told
    account = told["account"]
    assert (account["issued"], account["offline"]) == (ISSUED, FUNDS), account
    assert (account["difference"], account["in_transit"], account["loss"]) == (0, 0, 0), account
