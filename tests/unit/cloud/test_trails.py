"""A report's audit log has to go on where the last one ended; late reports accuse nobody."""

from __future__ import annotations

import pytest

from cloud.trails.following import Breach, Kept, judge
from sync.trail import Told
from tests.unit.sync.test_trail import told
from wallet.trail import AuditHead

WHOLE = told("a", "b", "c", "d")
KEPT = Kept(row=2, hash=told("a", "b").head.hash, size=10)


def after(row: int, *actions: str) -> Told:
    """Rows behind one of the log's places."""
    return told(*actions, since=WHOLE.places[row])


@pytest.mark.parametrize("later", [9, 10, 11])
@pytest.mark.parametrize(
    "report", [WHOLE, after(1, "b"), after(1, "b", "c"), after(2), after(2, "c"), told("a", "b")]
)
def test_a_log_that_goes_on_is_in_order_wherever_it_is_told_from(report: Told, later: int) -> None:
    assert judge(KEPT, report, size=later) is None


@pytest.mark.parametrize(
    "report",
    [
        told("a", "x", "c"),
        told("x", "b"),
        told("c", since=AuditHead(2, b"x" * 32)),
        told(since=AuditHead(2, b"x" * 32)),
    ],
)
def test_another_row_where_one_was_told_is_found(report: Told) -> None:
    assert judge(KEPT, report, size=10) is Breach.REWRITTEN


def test_fewer_rows_in_a_later_report_are_found_and_a_late_one_is_not_accused() -> None:
    assert judge(KEPT, told("a"), size=11) is Breach.SHORTENED
    # A stick may be older than what a slow line has told of a smaller journal.
    assert judge(KEPT, told("a"), size=11, carried=True) is None
    assert judge(KEPT, told("x"), size=10) is None
    assert judge(KEPT, told("a"), size=9) is None


def test_rows_that_nobody_was_told_and_a_log_that_is_not_told_are_found() -> None:
    assert judge(KEPT, after(3, "d"), size=11) is Breach.GAP
    assert judge(KEPT, None, size=11) is Breach.UNTOLD


def test_the_first_report_has_nothing_to_contradict() -> None:
    for report in (WHOLE, after(3, "d"), None):
        assert judge(None, report, size=0) is None
