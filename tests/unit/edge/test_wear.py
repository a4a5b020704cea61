"""A counter that wears is told of before it is worn out, by how often it moved of late."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.commands.doctor import wear_findings
from edge.http.wear import WearAnswer
from edge.wear import (
    SAMPLES_KEPT,
    Sample,
    load_samples,
    moves_a_year,
    note_counter,
    wears_out,
)
from wallet.store.connection import Connection, connect
from wallet.store.schema import migrate, migrations

DAY_MS = 86_400_000


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[Connection]:
    """An empty store."""
    connection = connect(tmp_path / "store.db", key=b"k" * 32, query_only=False)
    migrate(connection, migrations())
    yield connection
    connection.close()


def at(day: float, counter: int) -> Sample:
    """What it showed on a day."""
    return Sample(time_ms=int(day * DAY_MS), counter=counter)


def test_one_sample_a_day_is_kept_for_a_week(conn: Connection) -> None:
    for hour in range(24 * 20):
        note_counter(conn, at(hour / 24, hour))
    samples = load_samples(conn)
    assert len(samples) == SAMPLES_KEPT
    assert [sample.counter for sample in samples] == [24 * day for day in range(12, 20)]


@pytest.mark.parametrize("other", [at(3, 1), at(1, 500)])
def test_another_counter_or_clock_begins_anew(conn: Connection, other: Sample) -> None:
    for day in range(3):
        note_counter(conn, at(day, 100 + day))
    note_counter(conn, other)
    assert load_samples(conn) == [other]


def test_the_rate_is_that_of_the_days_that_were_watched() -> None:
    samples = [at(0, 1_000), at(1, 1_500)]
    assert moves_a_year(samples, at(2, 1_048)) == 24 * 365
    assert moves_a_year(samples, at(0.9, 2_000)) is None
    assert moves_a_year([], at(2, 1_048)) is None
    assert moves_a_year(samples, at(2, 999)) is None


def test_a_tpm_that_is_worn_out_too_soon_is_told_in_a_sentence() -> None:
    # An hour for each window, and one entry a second with windows of 1,000.
    assert wears_out(8_760, "tpm") is None
    sentence = wears_out(31_536, "tpm")
    assert sentence is not None and "31,536 times a year" in sentence
    assert "worn out in 3 years and 2 months" in sentence and "window long" in sentence
    assert wears_out(None, "tpm") is None
    for driver in ("software", "pkcs11"):
        assert wears_out(3_000_000, driver) is None


def test_doctor_says_what_is_known() -> None:
    soft = WearAnswer(driver="software", counter=5)
    assert wear_findings(soft) == []
    young = WearAnswer(driver="tpm", counter=5)
    assert [finding.text for finding in wear_findings(young)] == [
        "how fast the counter wears is known after a day"
    ]
    fine = WearAnswer(driver="tpm", counter=5, moves_a_year=8_760)
    assert [finding.state for finding in wear_findings(fine)] == ["well"]
    worn = WearAnswer(driver="tpm", counter=5, moves_a_year=31_536, warning="soon")
    assert [(finding.state, finding.text) for finding in wear_findings(worn)] == [("look", "soon")]
