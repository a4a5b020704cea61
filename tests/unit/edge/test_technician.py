"""The technician's page: each named state says what it means and what to do."""

from __future__ import annotations

import html
import inspect
import re

import msgspec
import pytest

import hsm.api
from edge.heard import Heard
from edge.technician.facts import Age
from edge.technician.notices import STOPPING, notices, troubles
from edge.technician.page import HEADERS, host_of, render
from edge.technician.tables import age_level, tables
from edge.technician.texts import LINES, MODES, TOKENS, TROUBLES, Advice, Level, Trouble
from hsm.api import HsmError
from sync.machine import State
from tests.support.technician import DAY_S, OPEN, STATES, changed, closed
from wallet.journal import Mode

ALL = [*MODES.items(), *TOKENS.items(), *LINES.items(), *TROUBLES.items()]


def rows(name: str) -> dict[str, tuple[str, Level | None]]:
    """All rows of a state's tables."""
    found = tables(STATES[name])
    return {row.name: (row.text, row.level) for table in found for row in table.rows}


def test_every_state_that_has_a_name_has_a_sentence() -> None:
    codes = {
        error.code
        for _, error in inspect.getmembers(hsm.api, inspect.isclass)
        if issubclass(error, HsmError)
    }
    assert set(TOKENS) == codes
    assert (set(MODES), set(LINES), set(TROUBLES)) == (set(Mode), set(State), set(Trouble))


@pytest.mark.parametrize(("name", "advice"), ALL, ids=[str(name) for name, _ in ALL])
def test_what_is_not_well_says_what_to_do(name: str, advice: Advice) -> None:
    assert advice.title and not advice.title.endswith(".")
    assert all(text.endswith(".") and text[0].isupper() for text in [advice.meaning])
    assert bool(advice.steps) == (advice.level is not Level.WELL)
    assert all(step[-1] in ".:" for step in advice.steps)


@pytest.mark.parametrize("name", STATES)
def test_each_state_is_on_the_page_with_its_steps_and_nothing_runs(name: str) -> None:
    page = render(STATES[name], live=False)
    first = notices(STATES[name])[0]
    assert f"<title>{first.advice.title} - CBDC gateway</title>" in page
    for notice in notices(STATES[name]):
        assert f"<code>{notice.name}</code>" in page
        for text in (notice.advice.title, notice.advice.meaning, *notice.advice.steps):
            assert html.escape(text, quote=True).replace("&#x27;", "&#39;") in page, text
        assert not notice.cause or f"Reason: {notice.cause}" in page
    assert "<script" not in page and "style=" not in page and "http-equiv" not in page


def test_the_state_of_the_gateway_comes_first_and_then_what_is_urgent() -> None:
    facts = changed(
        line__state=State.OFFLINE,
        line__failures=3,
        gateway__clock="uncertain",
        journal__policy_expired=True,
    )
    found = [notice.name for notice in notices(facts)]
    assert found == [Trouble.POLICY_EXPIRED, State.OFFLINE, Trouble.CLOCK_UNCERTAIN]
    found = [
        notice.name for notice in notices(msgspec.structs.replace(facts, journal=OPEN.journal))
    ]
    assert found == [Mode.OPEN, State.OFFLINE, Trouble.CLOCK_UNCERTAIN]


@pytest.mark.parametrize("trouble", STOPPING)
def test_a_gateway_that_refuses_all_is_not_said_to_take_payments(trouble: Trouble) -> None:
    facts = STATES[trouble]
    assert [notice.name for notice in notices(facts)] == [trouble]
    assert "Taking payments" not in render(facts, live=False)


def test_nothing_to_do_is_said_when_there_is_nothing_to_do() -> None:
    for name, facts in STATES.items():
        alone = len(notices(facts)) == 1 and facts.gateway.mode == Mode.OPEN
        alone = alone and notices(facts)[0].name == Mode.OPEN
        assert ("There is nothing to do." in render(facts, live=False)) == alone, name


@pytest.mark.parametrize("trouble", [t for t in Trouble if t is not Trouble.TAMPER_SWITCH])
def test_each_trouble_is_told_when_it_is_there_and_alone(trouble: Trouble) -> None:
    assert troubles(STATES[trouble]) == [trouble]
    assert troubles(OPEN) == []


@pytest.mark.parametrize("state", State)
def test_a_line_that_nobody_has_to_mend_is_no_notice(state: State) -> None:
    told = [notice.name for notice in notices(STATES[f"line {state}"])]
    assert told == [Mode.OPEN, *([] if LINES[state].level is Level.WELL else [state])]


def test_a_line_that_was_not_tried_yet_has_not_failed() -> None:
    assert len(notices(changed(line__state=State.OFFLINE))) == 1


def test_the_reason_of_a_sealed_gateway_chooses_the_advice() -> None:
    gone = closed(Mode.SEALED, "token-gone: pulled out. Plug it in.")
    (notice,) = notices(gone)
    assert (notice.name, notice.advice) == ("token-gone", TOKENS["token-gone"])
    (notice,) = notices(closed(Mode.SEALED, "something else"))
    assert (notice.name, notice.advice) == (Mode.SEALED, MODES[Mode.SEALED])


def test_a_tripped_switch_and_a_damaged_store_are_told_apart() -> None:
    (tripped,) = notices(STATES["tamper-switch"])
    (damaged,) = notices(closed(Mode.FROZEN_TAMPER))
    assert tripped.advice.title == "Frozen: the box was opened"
    assert damaged.advice.title == "Frozen: the stored journal was changed"


def test_exposure_is_told_in_value_with_its_bound_and_what_a_rollback_hides() -> None:
    found = rows("open")
    assert found["Unsettled value that came in"] == ("1234.56 EUR", Level.WELL)
    assert found["Most that the issuer allows"][0] == "5000.00 EUR"
    hidden = found["What putting back an older disk could hide"][0]
    assert hidden == "78.90 EUR (the counter moves after 1,000 entries or after 1 h)"
    assert found["Entries that the issuer does not hold yet"][0] == "50, worth 555.00 EUR"
    assert "12:abab" in found["Audit log's head"][0]


def test_a_policy_without_bounds_says_so() -> None:
    facts = changed(
        gateway__exposure_limit=None,
        gateway__offline_left_s=None,
        journal__window_entries=None,
        journal__window_s=None,
        journal__exposure_soft=None,
        journal__entries_hard=None,
    )
    found = {row.name: row.text for table in tables(facts) for row in table.rows}
    assert found["Most that the issuer allows"] == "no limit"
    assert found["What putting back an older disk could hide"].endswith("at a start alone)")
    assert found["May stay without a settlement for"] == "any time"
    assert len(notices(facts)) == 1


def test_keys_and_counter_in_software_are_said_plainly() -> None:
    found = rows("software")
    assert found["Keys"] == ("a sealed file on this disk (software)", Level.LOOK)
    text, level = found["Counter against older disks"]
    assert (level, "not noticed" in text) == (Level.LOOK, True)
    assert "Counter's wear" not in found
    assert found["Neighbour https://10.1.2.4:8442"] == ("no answer", Level.LOOK)


def test_the_wear_of_a_counter_is_told_where_it_wears() -> None:
    assert rows("open")["Counter's wear"] == ("8,760 moves a year: it will last", Level.WELL)
    assert rows("counter-worn")["Counter's wear"] == ("soon", Level.LOOK)
    assert rows("store-silent")["Counter's wear"] == ("known after a day", None)


def test_what_cannot_be_known_is_left_out_or_said() -> None:
    found = rows("not-provisioned")
    assert "Counter shows" not in found and "State" not in found
    facts = closed(Mode.NOT_PROVISIONED, disk_free_mib=None, server_until_ms=None, tripped=True)
    box = {row.name: (row.text, row.level) for row in tables(facts)[-1].rows}
    assert box["Disk"] == ("cannot be looked at", Level.LOOK)
    assert box["Certificate for the tills ends"][0] == "none yet"
    assert box["Tamper switch"] == ("tripped", Level.BAD)
    assert rows("store-silent")["Audit log's head"][0] == "the store does not answer"
    quiet = changed(synchronised_ms=None, neighbours=(Heard(url="https://a.test"),))
    line = {row.name: row.text for table in tables(quiet) for row in table.rows}
    assert line["Last complete exchange"] == "none since the start"
    assert line["Neighbour https://a.test"] == "answers, or is asked soon"


@pytest.mark.parametrize(
    ("age_s", "level"), [(10, Level.WELL), (DAY_S + 1, Level.LOOK), (7 * DAY_S + 1, Level.BAD)]
)
def test_an_age_weighs_by_its_bounds(age_s: int, level: Level) -> None:
    age = Age(name="wallets", sequence=1, age_s=age_s, soft_s=DAY_S, hard_s=7 * DAY_S)
    assert age_level(age) is level
    assert age_level(msgspec.structs.replace(age, soft_s=None, hard_s=None)) is Level.WELL


def test_what_others_wrote_is_text_and_nothing_else() -> None:
    page = render(closed(Mode.SEALED, "token-gone: <script>alert(1)</script>"), live=False)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script" not in page


def test_the_page_that_is_kept_up_to_date_asks_again() -> None:
    page = render(OPEN, live=True)
    assert re.search(r'<meta http-equiv="refresh" content="\d+">', page)
    assert '<a href="/">Stop that</a>' in page


def test_nothing_from_elsewhere_and_nothing_inline_is_allowed() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy and "script" not in policy and "*" not in policy


@pytest.mark.parametrize(
    ("field", "host"),
    [
        ("127.0.0.1:8445", "127.0.0.1"),
        ("LOCALHOST", "localhost"),
        ("[::1]:8445", "::1"),
        ("evil.test:80", "evil.test"),
        ("localhost@evil.test", "evil.test"),
        ("", None),
        ("[::1", None),
    ],
)
def test_the_host_of_a_request_is_read_as_browsers_write_it(field: str, host: str | None) -> None:
    assert host_of(field) == host
