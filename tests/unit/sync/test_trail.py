"""The audit log as a report tells it: its rows lead to its head, within bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.trail import BYTES_MAX, ROWS_MAX, Told, ToldRow, fitting_rows, from_health, to_health
from wallet.protocol.codec import decode, encode
from wallet.protocol.refusals import Code, ProtocolError
from wallet.trail import AuditHead


def told(*actions: str, since: AuditHead | None = None) -> Told:
    """Rows after a place."""
    rows = tuple(ToldRow(time_ms=1, action=action, details=b"{}") for action in actions)
    made = Told(since=since or AuditHead(), rows=rows, head=AuditHead())
    return Told(since=made.since, rows=rows, head=made.places[-1])


TOLD = told("gateway.opened", "technician POST /sync")


def test_a_log_travels_in_the_health_of_a_report() -> None:
    assert from_health(decode(encode(to_health(TOLD)), bytes_max=4096)) == TOLD
    assert [place.seq for place in TOLD.places] == [0, 1, 2]
    after = told("tamper.tripped", since=TOLD.head)
    assert from_health(to_health(after)).head.seq == 3


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 3},
        {"rows": -1},
        {"head": bytes(32)},
        {"head": bytes(31)},
        {"since": 1},
        {"previous": b"x" * 32},
        {"log": []},
        {"log": [[1, "gateway.opened", b"{}"], [1, "other", b"{}"]]},
        {"log": [[1, "gateway.opened"]]},
        {"log": [[1, b"gateway.opened", b"{}"]]},
        {"log": None},
        {"more": 1},
    ],
)
def test_another_form_and_rows_that_lead_elsewhere_are_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as caught:
        from_health({**to_health(TOLD), **change})
    assert caught.value.code == Code.MALFORMED


def test_a_report_takes_so_many_rows_and_no_more() -> None:
    from_health(to_health(told(*["a"] * ROWS_MAX)))
    with pytest.raises(ProtocolError):
        from_health(to_health(told(*["a"] * (ROWS_MAX + 1))))


@given(sizes=st.lists(st.integers(0, BYTES_MAX + 10), min_size=1, max_size=8))
def test_rows_fit_in_order_and_the_first_one_always(sizes: list[int]) -> None:
    rows = [ToldRow(time_ms=0, action="", details=bytes(size)) for size in sizes]
    fits = fitting_rows(rows)
    assert list(fits) == rows[: len(fits)] and fits
    assert len(fits) == 1 or sum(sizes[: len(fits)]) <= BYTES_MAX
    assert len(fits) == len(rows) or sum(sizes[: len(fits) + 1]) > BYTES_MAX


@given(
    value=st.recursive(
        st.none() | st.integers() | st.binary() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_whatever_a_report_has_in_its_place_is_read_or_malformed(value: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        from_health(value)
    assert caught.value.code == Code.MALFORMED
