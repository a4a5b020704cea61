"""How large a segment should be on this line: what it was measured to carry in some seconds. Pure.

A line that breaks gets half; one that never broke is tried with four times as much, one that did
with a quarter more. What one checkpoint alone covers goes whole, however little this says.
"""

from __future__ import annotations

import msgspec

TARGET_MS = 10_000
FIRST_BYTES = 64 * 1024
FIRST_METERED_BYTES = 16 * 1024
LEAST_BYTES = 4 * 1024
MOST_BYTES = 48 * 1024 * 1024
_FAST, _SLOW_PERCENT = 4, 125


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What the next segment may have, and whether the line ever broke under one."""

    segment_bytes: int = FIRST_BYTES
    broke: bool = False

    def carried(self, told: int, took_ms: int) -> Pace:
        """An exchange that told so many bytes, before compression, came to its end in this time."""
        fits = told * TARGET_MS // max(1, took_ms)
        grown = self.segment_bytes * _FAST
        if self.broke:
            grown = self.segment_bytes * _SLOW_PERCENT // 100
        if told < self.segment_bytes // 2 and took_ms <= TARGET_MS:
            # Less than there might have been, soon enough: it tells of delays, not of the rate.
            return self
        return self._with(min(fits, grown), broke=self.broke)

    def broken(self) -> Pace:
        """The line broke, or stood still, under a segment."""
        return self._with(self.segment_bytes // 2, broke=True)

    def _with(self, segment_bytes: int, *, broke: bool) -> Pace:
        bounded = min(MOST_BYTES, max(LEAST_BYTES, segment_bytes))
        return Pace(segment_bytes=bounded, broke=broke)
