"""The system's clocks, and the collector's thresholds."""

import gc
import sys
import time

import pytest

from tests.support.gateway import SetClock
from wallet.clock import FlooredClock, SystemClock
from wallet.memory import MIDDLE, OLD, SWITCH_S, YOUNG, collect_seldom, yield_soon
from wallet.protocol.entry import Clock as Certainty


def test_the_system_clock_tells_unix_milliseconds_and_a_time_that_never_falls() -> None:
    clock = SystemClock()
    before = time.time_ns() // 1_000_000
    assert before <= clock.now_ms() <= time.time_ns() // 1_000_000
    assert clock.monotonic_ms() <= clock.monotonic_ms() <= time.monotonic_ns() // 1_000_000


def test_below_the_floor_the_floor_is_the_time_and_uncertain() -> None:
    wall = SetClock(100)
    clock = FlooredClock(wall, floor_ms=100)
    assert clock.read() == (100, Certainty.SURE)
    clock.raise_floor(150)
    clock.raise_floor(120)
    assert clock.read() == (150, Certainty.UNCERTAIN)
    wall.wall_ms = 150
    assert clock.read() == (150, Certainty.SURE)


def test_the_collector_leaves_what_was_built_at_start_alone() -> None:
    thresholds = gc.get_threshold()
    try:
        collect_seldom()
        assert gc.get_threshold() == (YOUNG, MIDDLE, OLD)
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def test_a_thread_that_waits_gets_the_interpreter_soon() -> None:
    interval = sys.getswitchinterval()
    try:
        yield_soon()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
    finally:
        sys.setswitchinterval(interval)
