"""What is remembered of reports that left in files, and how far it reaches."""

from __future__ import annotations

import sqlite3
from typing import Any, cast

import pytest

from edge.carried import (
    Carried,
    Stage,
    carried_leaves,
    covered_size,
    find_carried,
    keep_carried,
    list_carried,
    next_number,
)
from wallet.store.connection import Connection


def made(number: int, *, first: int, end: int, stage: Stage = Stage.WRITTEN) -> Carried:
    """One report."""
    return Carried(
        number=number,
        exchange=bytes([number]) * 16,
        acknowledged=0,
        first=first,
        end=end,
        made_ms=1,
        leaves=[bytes([number]) * 32],
        audit_rows=3,
        audit_head=bytes(32),
        stage=stage,
    )


@pytest.fixture
def connection() -> Any:
    """A store with the one table that is used."""
    opened = sqlite3.connect(":memory:")
    opened.execute(
        "CREATE TABLE objects (kind TEXT, sequence INTEGER, object BLOB,"
        " PRIMARY KEY (kind, sequence))"
    )
    yield cast(Connection, opened)
    opened.close()


def test_sticks_reach_as_far_as_they_follow_each_other() -> None:
    sticks = [made(0, first=5, end=9), made(1, first=2, end=5), made(2, first=10, end=12)]
    assert covered_size(sticks, 2) == 9
    assert covered_size(sticks, 1) == 1
    assert covered_size(sticks, 11) == 12
    assert covered_size([], 4) == 4


@pytest.mark.parametrize("stage", [Stage.MADE, Stage.ANSWERED, Stage.REFUSED])
def test_what_does_not_lie_on_a_stick_or_was_answered_stands_for_nothing(stage: Stage) -> None:
    one = made(0, first=0, end=9, stage=stage)
    assert covered_size([one], 0) == 0
    assert carried_leaves([one]) == set()
    assert carried_leaves([made(1, first=0, end=1)]) == {b"\x01" * 32}


def test_a_report_is_found_by_its_exchange(connection: Connection) -> None:
    keep_carried(connection, made(0, first=0, end=4))
    assert find_carried(connection, b"\x00" * 16) == made(0, first=0, end=4)
    assert find_carried(connection, b"\x01" * 16) is None
    assert next_number(connection) == 1


def test_of_too_many_the_oldest_that_nobody_needs_is_forgotten(
    connection: Connection,
) -> None:
    stages = [Stage.WRITTEN, Stage.ANSWERED, Stage.WRITTEN, Stage.WRITTEN]
    for number, stage in enumerate(stages):
        assert next_number(connection, most=3) == number
        keep_carried(connection, made(number, first=0, end=4, stage=stage))
    assert [one.number for one in list_carried(connection)] == [0, 2, 3]
    assert next_number(connection, most=3) == 4
    assert [one.number for one in list_carried(connection)] == [2, 3]
