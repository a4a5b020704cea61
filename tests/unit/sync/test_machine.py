"""The table of states: what leads where, and what cannot happen."""

from __future__ import annotations

import itertools

import pytest

from sync.machine import Event, State, after
from wallet.protocol.refusals import InvariantBroken

RESTING = (State.OFFLINE, State.CAPTIVE, State.METERED, State.IDLE, State.SUSPENDED)


def test_a_cloud_that_was_not_reached_last_time_is_probed_and_others_are_not() -> None:
    begun = {state: after(state, Event.BEGIN) for state in RESTING}
    probed = {state for state, following in begun.items() if following is State.PROBING}
    assert probed == {State.OFFLINE, State.CAPTIVE}
    assert {begun[state] for state in RESTING if state not in probed} == {State.EXCHANGING}


def test_nothing_is_exchanged_with_somebody_else() -> None:
    for state in (State.PROBING, State.EXCHANGING):
        assert after(state, Event.PORTAL) is State.CAPTIVE
    assert after(State.CAPTIVE, Event.BEGIN) is State.PROBING


def test_a_budget_that_is_spent_never_makes_a_line_seem_lost_or_there() -> None:
    after_spent = {state: after(state, Event.SPENT) for state in RESTING}
    assert after_spent == {
        State.OFFLINE: State.OFFLINE,
        State.CAPTIVE: State.CAPTIVE,
        State.METERED: State.METERED,
        State.IDLE: State.METERED,
        State.SUSPENDED: State.SUSPENDED,
    }


def test_only_an_exchange_ends_well_or_is_closed() -> None:
    for event, following in (
        (Event.DONE, State.IDLE),
        (Event.DONE_METERED, State.METERED),
        (Event.CLOSED, State.SUSPENDED),
    ):
        assert after(State.EXCHANGING, event) is following
        for state in RESTING:
            with pytest.raises(InvariantBroken):
                after(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    found = {State.OFFLINE}
    for _ in State:
        for state, event in itertools.product(list(found), Event):
            try:
                found.add(after(state, event))
            except InvariantBroken:
                continue
    assert found == set(State)
