"""A whole branch and a whole cloud over a satellite: value first, within the budgets of a day."""

import asyncio
from typing import Any

import pytest

from sync.line import PROBE_BYTES
from tests.integration.cloud.test_bad_lines import PAYMENT_S_MAX, check_agreed
from tests.support.satellite_world import MOST_S, run_satellite

TELEMETRY = {"version", "mode", "disk_free_mib", "time_ms"}
# A connection is counted until it is closed: then both sides say so, and each hears it. What the
# kernel does not tell are options that make a header larger, of the first packet and after losses.
UNCOUNTED_BYTES_MAX = 400


@pytest.mark.timeout(MOST_S + 60)
async def test_a_satellite_carries_value_first_and_no_more_than_the_day_may_cost() -> None:
    told = await asyncio.to_thread(run_satellite)
    # 1. What was paid meanwhile, then what tells of the box; settlements, then a large list.
    _check_order(told)
    # 2. Without value nothing is told; a probe too many and a day that is spent end it as well.
    rest, probes, day = told["rest"], told["probes"], told["day"]
    assert (rest["state"], rest["connections"], rest["held_s"]) == ("metered", 1, 0), rest
    assert (probes["state"], probes["connections"], told["strangers"]) == ("captive", 2, 1), probes
    assert probes["held_s"] > 0 and probes["probes_spent"] == rest["probes_spent"], told
    # No further probe was begun by itself: its budget has not enough left for one.
    assert PROBE_BYTES > probes["probes_left"] == told["probes_max"] - probes["probes_spent"], told
    assert (told["asked"], day["state"]) == ("completed", "metered"), told
    assert day["held_s"] > 0 and told["waiting"] > 0, told
    # 3. What is counted went over the line, and is shown wherever it is asked for.
    for phase in (rest, probes, day):
        _check_counts(phase, told["day_max"])
    shown = (f"{day['left']} left", f"for probes: {day['probes_spent']} bytes")
    for text in (*shown, "metered", "(satellite)", "budget holds it back"):
        assert text in told["shown"], told["shown"]
    # 4. Nobody waited for the line, and all of it settles.
    assert told["slowest_s"] < PAYMENT_S_MAX, told
    check_agreed(told)


def _check_order(told: dict[str, Any]) -> None:
    size, reports, kinds = told["backlog"]["size"], told["reports"], told["kinds"]
    ends = [report["end"] for report in reports]
    assert [report["first"] for report in reports[1:]] == ends[:-1]
    telling = [bool(TELEMETRY & set(report["health"])) for report in reports]
    partly = [end < size for end in ends]
    assert partly[0] and not partly[-1] and reports[0]["first"] < ends[0], reports
    assert telling == [not part for part in partly], reports
    assert set(reports[-1]["health"]) >= TELEMETRY
    assert told["backlog"]["settled"] >= size, told
    assert size <= kinds.index("SETTLEMENT", size) < kinds.index("LIST", size), kinds


def _check_counts(phase: dict[str, Any], day_max: int) -> None:
    spent, left = phase["spent"], phase["left"]
    assert phase["kind"] == "satellite" and spent + left == day_max, phase
    # The day began with the gateway, and holds all that was ever counted.
    assert phase["probes_spent"] == phase["probes_counted"], phase
    assert spent == phase["counted"] == phase["metrics"] <= day_max, phase
    for way, own in phase["own"].items():
        uncounted = phase["wire"][way] - own
        assert 0 <= uncounted <= UNCOUNTED_BYTES_MAX * phase["connections"], (way, phase)
