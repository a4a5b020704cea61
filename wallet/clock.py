"""One clock: wall time and monotonic time. Only the programs' `main` builds the real one."""

from __future__ import annotations

import time
from typing import Protocol

from wallet.protocol.entry import Clock as Certainty

_SURE, _UNCERTAIN = int(Certainty.SURE), int(Certainty.UNCERTAIN)


class Clock(Protocol):
    """Wall time as Unix milliseconds, and a time that never falls."""

    def now_ms(self) -> int:
        """Unix time in milliseconds, right or wrong."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some point in the past; never falls."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds of the monotonic clock."""
        return time.monotonic_ns() // 1_000_000


class FlooredClock:
    """A wall clock that never reads below the newest signed time (protocol.md, "Clocks").

    Below the floor the clock is uncertain, and the floor is the time.
    """

    def __init__(self, clock: Clock, *, floor_ms: int) -> None:
        self._clock = clock
        self.floor_ms = floor_ms

    def raise_floor(self, signed_ms: int) -> None:
        """A signed time was seen."""
        self.floor_ms = max(self.floor_ms, signed_ms)

    def read(self) -> tuple[int, int]:
        """(now in milliseconds, SURE or UNCERTAIN)."""
        wall = self._clock.now_ms()
        if wall < self.floor_ms:
            return self.floor_ms, _UNCERTAIN
        return wall, _SURE
