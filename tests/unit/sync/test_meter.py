"""Budgets of a rolling day, by link and purpose, and how large a segment is."""

from __future__ import annotations

import random

import pytest

from sync.line import EXCHANGE_BYTES_MIN, PROBE_BYTES, Carried, Line
from sync.meter import (
    DEFAULT_NAME,
    HOUR_MS,
    HOURS,
    NAMES_MAX,
    Link,
    LinkKind,
    Meter,
    Purpose,
    Traffic,
)
from sync.pace import FIRST_BYTES, FIRST_METERED_BYTES, LEAST_BYTES, MOST_BYTES, TARGET_MS, Pace

NOW_MS = 500_000 * HOUR_MS + 1_234
DAY = 1_000_000
PROBES = 50_000
LINK = Link(name="wwan0", kind=LinkKind.METERED, day_bytes_max=DAY, probe_day_bytes_max=PROBES)


def sent(count: int) -> Traffic:
    """One way."""
    return Traffic(sent=count)


def test_both_ways_count_and_a_day_later_the_budget_is_whole_again() -> None:
    meter = Meter()
    meter.add(LINK, Purpose.EXCHANGE, Traffic(sent=300_000, received=500_000), now_ms=NOW_MS)
    assert meter.spent(LINK, None, now_ms=NOW_MS) == 800_000
    assert meter.left(LINK, now_ms=NOW_MS) == 200_000
    wait_ms = meter.wait_ms(LINK, Purpose.EXCHANGE, 300_000, now_ms=NOW_MS)
    assert wait_ms == (500_000 + HOURS) * HOUR_MS - NOW_MS
    assert meter.left(LINK, now_ms=NOW_MS + wait_ms - 1) == 200_000
    assert meter.left(LINK, now_ms=NOW_MS + wait_ms) == DAY
    assert meter.wait_ms(LINK, Purpose.EXCHANGE, 300_000, now_ms=NOW_MS + wait_ms) == 0


def test_it_waits_for_as_many_hours_as_are_needed_and_no_more() -> None:
    meter = Meter()
    for hour in range(10):
        meter.add(LINK, Purpose.EXCHANGE, sent(DAY // 10), now_ms=NOW_MS + hour * HOUR_MS)
    now_ms = NOW_MS + 9 * HOUR_MS
    for need, hours in ((1, 1), (DAY // 10, 1), (DAY // 10 + 1, 2), (DAY, 10), (5 * DAY, 10)):
        wait_ms = meter.wait_ms(LINK, Purpose.EXCHANGE, need, now_ms=now_ms)
        assert wait_ms == (500_000 + HOURS + hours - 1) * HOUR_MS - now_ms, need


def test_probes_have_a_budget_of_their_own_inside_the_whole() -> None:
    meter = Meter()
    meter.add(LINK, Purpose.PROBE, sent(PROBES), now_ms=NOW_MS)
    assert meter.wait_ms(LINK, Purpose.PROBE, 1, now_ms=NOW_MS) > 0
    assert meter.wait_ms(LINK, Purpose.EXCHANGE, 1, now_ms=NOW_MS) == 0
    meter.add(LINK, Purpose.EXCHANGE, sent(DAY - PROBES), now_ms=NOW_MS)
    assert meter.wait_ms(LINK, Purpose.EXCHANGE, 1, now_ms=NOW_MS) > 0


def test_links_do_not_pay_for_each_other_and_none_without_a_budget_waits() -> None:
    meter, other = Meter(), Link(name="eth0")
    meter.add(LINK, Purpose.EXCHANGE, sent(DAY), now_ms=NOW_MS)
    meter.add(other, Purpose.PROBE, sent(DAY), now_ms=NOW_MS)
    assert meter.spent(other, None, now_ms=NOW_MS) == DAY
    assert meter.left(other, now_ms=NOW_MS) is None
    assert meter.wait_ms(other, Purpose.PROBE, DAY, now_ms=NOW_MS) == 0


def test_what_was_counted_is_kept_whole_and_other_bytes_begin_anew() -> None:
    meter = Meter()
    meter.add(LINK, Purpose.PROBE, Traffic(sent=5, received=7), now_ms=NOW_MS)
    again = Meter.decode(meter.encode())
    assert again.counted() == meter.counted()
    assert again.spent(LINK, Purpose.PROBE, now_ms=NOW_MS) == 12
    assert Meter.decode(b"\xff").counted() == Meter.decode(b'{"x": 1}').counted() == []


def test_names_are_bounded_and_nothing_is_left_out() -> None:
    meter = Meter()
    for number in range(2 * NAMES_MAX):
        meter.add(Link(name=f"usb{number}"), Purpose.PROBE, sent(1), now_ms=NOW_MS)
    counted = meter.counted()
    assert len(counted) <= NAMES_MAX + 1
    assert sum(one.sent for one in counted) == 2 * NAMES_MAX
    assert any(one.link == DEFAULT_NAME for one in counted)


def test_a_budget_is_never_overrun_by_more_than_one_need(seed: int) -> None:
    chance, meter, now_ms = random.Random(seed), Meter(), NOW_MS
    for _ in range(200):
        now_ms += chance.randrange(HOUR_MS)
        need = chance.randrange(1, DAY // 5)
        if meter.wait_ms(LINK, Purpose.EXCHANGE, need, now_ms=now_ms) == 0:
            meter.add(LINK, Purpose.EXCHANGE, sent(need), now_ms=now_ms)
        assert meter.spent(LINK, None, now_ms=now_ms) <= DAY, seed


# ---- the pace -----------------------------------------------------------------------------
def settled(rate: int, *, rounds: int = 12, delay_ms: int = 2_000) -> Pace:
    """After some exchanges on a line of so many bytes in a second, and a delay."""
    pace = Pace()
    for _ in range(rounds):
        took_ms = pace.segment_bytes * 1000 // rate + delay_ms
        pace = pace.carried(pace.segment_bytes, took_ms)
    return pace


@pytest.mark.parametrize("rate", [2_000, 5_000, 60_000, 1_000_000, 4_000_000])
def test_a_segment_takes_about_as_long_as_it_should_on_any_line(rate: int) -> None:
    pace = settled(rate)
    took_ms = pace.segment_bytes * 1000 // rate + 2_000
    assert TARGET_MS * 0.6 < took_ms < TARGET_MS * 1.2


def test_segments_have_bounds() -> None:
    assert settled(100).segment_bytes == LEAST_BYTES
    assert settled(1 << 40, rounds=40).segment_bytes == MOST_BYTES


def test_a_line_that_breaks_gets_half_each_time_and_comes_back_slowly() -> None:
    pace = Pace()
    for expected in (FIRST_BYTES // 2, FIRST_BYTES // 4):
        pace = pace.broken()
        assert pace.segment_bytes == expected
    better = pace.carried(pace.segment_bytes, 1)
    assert better.segment_bytes == pace.segment_bytes * 125 // 100
    for _ in range(20):
        pace = pace.broken()
    assert pace.segment_bytes == LEAST_BYTES


def test_little_that_went_fast_says_nothing_and_little_that_went_slowly_does() -> None:
    pace = Pace()
    assert pace.carried(100, 50) == pace
    assert pace.carried(2_000, 10_001).segment_bytes == LEAST_BYTES


# ---- the line -----------------------------------------------------------------------------
def plain(size: int) -> Carried:
    """What does not compress."""
    return Carried(line_bytes=size, told_bytes=size)


def test_segments_grow_though_they_are_compressed() -> None:
    line = Line()
    for _ in range(4):
        before = line.pace.segment_bytes
        third = Carried(line_bytes=before // 3, told_bytes=before)
        line.carried(third, plain(100), 1_000)
        assert line.pace.segment_bytes == 4 * before
    # What took its whole time is what the line carries, told in the same measure.
    line.carried(Carried(line_bytes=before, told_bytes=3 * before), plain(100), 20_000)
    assert line.pace.segment_bytes == 3 * before // 2


def test_a_link_that_costs_begins_small_and_each_link_keeps_its_pace() -> None:
    line = Line()
    assert line.pace.segment_bytes == FIRST_BYTES
    line.broke()
    line.link = LINK
    assert line.pace.segment_bytes == FIRST_METERED_BYTES
    line.carried(plain(FIRST_METERED_BYTES), plain(FIRST_METERED_BYTES // 3), 1)
    assert line.pace.segment_bytes > FIRST_METERED_BYTES
    line.link = Link()
    assert line.pace.segment_bytes == FIRST_BYTES // 2


def test_a_report_never_wants_more_than_the_day_has_left_unless_a_person_asked() -> None:
    line = Line()
    line.link = LINK
    assert line.load(now_ms=NOW_MS, unbudgeted=False).bytes_max == FIRST_METERED_BYTES
    line.count(Purpose.EXCHANGE, sent(DAY - EXCHANGE_BYTES_MIN), now_ms=NOW_MS)
    assert line.held_ms(Purpose.EXCHANGE, now_ms=NOW_MS) == 0
    load = line.load(now_ms=NOW_MS, unbudgeted=False)
    assert (load.bytes_max, load.lean) == (LEAST_BYTES, True)
    asked = line.load(now_ms=NOW_MS, unbudgeted=True)
    assert asked.bytes_max == FIRST_METERED_BYTES
    line.count(Purpose.PROBE, sent(PROBE_BYTES), now_ms=NOW_MS)
    assert line.held_ms(Purpose.EXCHANGE, now_ms=NOW_MS) > 0


def test_what_an_answer_may_have_is_measured_by_what_answers_had() -> None:
    line = Line()

    def answer(unbudgeted: bool = True) -> int | None:
        return line.load(now_ms=NOW_MS, unbudgeted=unbudgeted).answer_bytes_max

    assert answer() == FIRST_BYTES
    line.carried(plain(100), plain(FIRST_BYTES), 100)
    assert (answer(), line.pace.segment_bytes) == (4 * FIRST_BYTES, FIRST_BYTES)
    line.carried(plain(100), plain(4 * FIRST_BYTES), 20_000)
    assert answer() == 2 * FIRST_BYTES
    line.broke()
    assert (answer(), line.pace.segment_bytes) == (FIRST_BYTES, FIRST_BYTES // 2)
    line.link = LINK
    assert answer() == FIRST_METERED_BYTES
    line.count(Purpose.EXCHANGE, sent(DAY - EXCHANGE_BYTES_MIN), now_ms=NOW_MS)
    assert (answer(False), answer()) == (LEAST_BYTES, FIRST_METERED_BYTES)


def test_a_satellite_rests_longer_and_a_free_link_never() -> None:
    line, hour = Line(), HOUR_MS
    assert not line.rests(NOW_MS, now_ms=NOW_MS)
    for kind, rest_ms in ((LinkKind.METERED, hour), (LinkKind.SATELLITE, 6 * hour)):
        line.link = Link(name="x", kind=kind)
        assert not line.rests(None, now_ms=NOW_MS)
        assert line.rests(NOW_MS, now_ms=NOW_MS + rest_ms - 1)
        assert not line.rests(NOW_MS, now_ms=NOW_MS + rest_ms)
