"""Waits grow with failures, end at a cap, and are spread over their whole length."""

from hypothesis import given
from hypothesis import strategies as st

from sync.backoff import FIRST_MS, MOST_MS, delay_ms, longest_ms


def test_each_failure_doubles_the_longest_wait_up_to_the_cap() -> None:
    found = [longest_ms(failures, first_ms=1_000, most_ms=6_000) for failures in range(6)]
    assert found == [0, 1_000, 2_000, 4_000, 6_000, 6_000]
    assert longest_ms(1) == FIRST_MS
    assert longest_ms(10**9) == MOST_MS


def test_jitter_is_full_from_nothing_to_the_longest() -> None:
    assert delay_ms(3, jitter=0.0) == 0
    assert delay_ms(3, jitter=0.5, first_ms=1_000) == 2_000
    assert delay_ms(0, jitter=0.9) == 0


@given(
    failures=st.integers(min_value=-1, max_value=2**70),
    jitter=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_no_wait_is_negative_or_above_the_cap(failures: int, jitter: float) -> None:
    assert 0 <= delay_ms(failures, jitter=jitter) <= min(longest_ms(failures), MOST_MS)
