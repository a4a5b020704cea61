"""How long to wait after failures: exponential, with full jitter and a cap. Pure."""

from __future__ import annotations

FIRST_MS = 2_000
MOST_MS = 300_000
# More doublings than any cap needs: the power stays small however long an outage lasts.
_DOUBLINGS_MAX = 32


def longest_ms(failures: int, *, first_ms: int = FIRST_MS, most_ms: int = MOST_MS) -> int:
    """The upper end of the wait after so many failures in a row; 0 after none."""
    if failures <= 0:
        return 0
    return min(most_ms, first_ms << min(failures - 1, _DOUBLINGS_MAX))


def delay_ms(
    failures: int, *, jitter: float, first_ms: int = FIRST_MS, most_ms: int = MOST_MS
) -> int:
    """The wait itself: anything from nothing to the longest, so that gateways do not come at once.

    `jitter`: from 0 up to 1, fresh for every wait.
    """
    return int(longest_ms(failures, first_ms=first_ms, most_ms=most_ms) * jitter)
