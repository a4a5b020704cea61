"""The engine on links that cost, lie or end: in virtual time, with nothing that waits."""

from __future__ import annotations

import asyncio
import random

from sync.engine import Wake
from sync.errors import Code
from sync.line import PROBE_BYTES
from sync.machine import State
from sync.meter import HOUR_MS, Link, LinkKind, Meter, Purpose
from tests.support.sync_pair import Pair

PROBES = 3


def metered(**changes: int) -> Link:
    """A modem."""
    return Link(name="wwan0", kind=LinkKind.METERED, **changes)


async def end_wait(pair: Pair, waits: int) -> None:
    """Let the wait at this number end."""
    await pair.until(lambda: len(pair.hands.waits) == waits)
    pair.hands.over.set()


async def test_somebody_else_who_answers_is_told_nothing_and_asked_again_later() -> None:
    async with Pair(entries=2) as pair:
        pair.cloud.away = Code.OTHER_PEER
        assert (await pair.engine.now())[0] == "failed"
        assert (pair.engine.state, pair.engine.online) == (State.CAPTIVE, False)
        assert pair.events[-1][1]["code"] == "transport-other-peer"
        assert (pair.cloud.ups, pair.journal.loads) == ([], [])
        pair.cloud.away = None
        await end_wait(pair, 2)
        await pair.until(lambda: pair.engine.state is State.IDLE)
        assert pair.cloud.probes == 2


async def test_somebody_who_comes_between_two_exchanges_is_noticed() -> None:
    async with Pair(entries=2) as pair:
        await pair.engine.now()
        pair.cloud.away = Code.OTHER_PEER
        await pair.engine.now()
        assert pair.engine.state is State.CAPTIVE


async def test_probes_stop_for_the_day_when_their_budget_is_spent_and_people_may_all_the_same() -> (
    None
):
    async with Pair(entries=1) as pair:
        pair.hands.link = Link(name="eth0", probe_day_bytes_max=PROBES * PROBE_BYTES)
        pair.cloud.away, pair.cloud.probe_bytes = Code.UNREACHABLE, PROBE_BYTES
        pair.engine.wake()
        for waits in range(2, PROBES + 2):
            await end_wait(pair, waits)
        # The budget is spent: the next wait ends when the oldest hour is a day old.
        await pair.until(lambda: len(pair.hands.waits) == PROBES + 2)
        assert pair.cloud.probes == PROBES
        wait_ms = pair.hands.waits[-1]
        assert wait_ms is not None and 23 * HOUR_MS < wait_ms <= 24 * HOUR_MS
        status = pair.engine.status()
        assert (status.held_ms, status.probe_day_bytes_left) == (wait_ms, 0)
        assert status.probe_day_bytes == PROBES * PROBE_BYTES == status.day_bytes
        assert pair.engine.state is State.OFFLINE
        pair.engine.wake(Wake.WORK)
        await pair.until(lambda: len(pair.hands.waits) == PROBES + 3)
        assert pair.cloud.probes == PROBES
        assert (await pair.engine.now())[0] == "failed"
        assert pair.cloud.probes == PROBES + 1
        pair.cloud.away = None
        pair.hands.now += 24 * HOUR_MS
        await end_wait(pair, PROBES + 4)
        await pair.until(lambda: pair.engine.state is State.IDLE)


async def test_a_link_that_costs_carries_what_only_tells_of_the_box_last() -> None:
    async with Pair(entries=8) as pair:
        pair.hands.link = metered()
        await pair.engine.now()
        assert [load.lean for load in pair.journal.loads] == [True] * 3
        assert pair.engine.state is State.METERED
        pair.hands.link = Link(name="eth0")
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: pair.engine.state is State.IDLE)
        assert pair.journal.loads[-1].lean is False


async def test_on_a_link_that_costs_the_timer_alone_makes_no_session_without_value() -> None:
    async with Pair(entries=1) as pair:
        pair.hands.link = metered()
        await pair.engine.now()
        ups = len(pair.cloud.ups)
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: len(pair.hands.waits) == 3)
        assert len(pair.cloud.ups) == ups
        pair.journal.entries.append(b"paid")
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: len(pair.cloud.entries) == 2)
        await pair.until(lambda: len(pair.hands.waits) == 4)
        ups = len(pair.cloud.ups)
        pair.hands.now += HOUR_MS
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: len(pair.cloud.ups) == ups + 1)


async def test_a_day_that_is_spent_ends_a_session_between_two_segments() -> None:
    async with Pair() as pair:
        pair.journal.entries = [random.Random(n).randbytes(4_000) for n in range(20)]
        pair.journal.segment = 1
        budget = 60_000
        pair.hands.link = metered(day_bytes_max=budget)
        pair.engine.wake()
        await pair.until(lambda: len(pair.hands.waits) == 2)
        assert pair.engine.state is State.METERED
        held = len(pair.cloud.entries)
        assert 0 < held < 20
        status = pair.engine.status()
        assert status.day_bytes <= budget and status.held_ms > 0
        assert pair.hands.waits[-1] == status.held_ms
        # A person may ask all the same; the rest goes.
        await pair.engine.now()
        assert len(pair.cloud.entries) == 20
        assert pair.engine.status().day_bytes_left == 0


async def test_what_links_have_cost_outlives_a_restart() -> None:
    async with Pair(entries=4) as pair:
        pair.hands.link = metered(day_bytes_max=1_000_000)
        await pair.engine.now()
        spent = pair.engine.status().day_bytes
        kept = pair.journal.meter
    assert kept is not None and spent > 0
    again = Pair(entries=1)
    again.journal.meter, again.hands.link = kept, metered(day_bytes_max=1_000_000)
    async with again as pair:
        pair.cloud.away = Code.UNREACHABLE
        await pair.engine.now()
        assert pair.engine.status().day_bytes == spent + pair.cloud.probe_bytes
        purposes = {one.purpose for one in pair.engine.status().counted}
        assert purposes == {Purpose.PROBE, Purpose.EXCHANGE}
        assert Meter.decode(pair.journal.meter or b"").counted() == pair.engine.status().counted


async def test_a_line_that_breaks_gets_smaller_segments_until_they_get_through() -> None:
    async with Pair() as pair:
        pair.journal.entries = [random.Random(n).randbytes(2_000) for n in range(60)]
        pair.journal.segment = 60

        def flap() -> None:
            # Whatever is larger than this does not come through in time.
            if len(b"".join(pair.cloud.ups[-1].entries)) > 9_000:
                pair.cloud.lost_at = len(pair.cloud.ups)

        pair.cloud.meanwhile = flap
        for _ in range(20):
            if pair.journal.acknowledged == 60:
                break
            await pair.engine.now()
        assert pair.cloud.entries == pair.journal.entries
        assert pair.engine.status().segment_bytes < 64 * 1024


async def test_another_link_is_tried_at_once_whatever_the_last_one_did() -> None:
    async with Pair(entries=1) as pair:
        pair.cloud.away = Code.UNREACHABLE
        await pair.engine.now()
        pair.engine.wake(Wake.TIMER)
        await asyncio.sleep(0)
        assert pair.cloud.probes == 1
        pair.cloud.away = None
        pair.hands.link = Link(name="wlan0")
        pair.engine.wake(Wake.TIMER)
        await pair.until(lambda: pair.engine.state is State.IDLE)


async def test_each_session_hangs_up_whatever_came_of_it() -> None:
    async with Pair(entries=1) as pair:
        await pair.engine.now()
        pair.cloud.away = Code.TIMEOUT
        await pair.engine.now()
        assert pair.cloud.hung_up == 2
