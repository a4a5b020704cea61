"""Time as the cloud sees it. Everything below `main` takes `now_ms` as an argument."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for what people and signatures say, monotonic time for intervals."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds from an arbitrary start that never go back."""
        ...


class SystemClock:
    """The machine's clock; only `main` builds one."""

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds from an arbitrary start that never go back."""
        return time.monotonic_ns() // 1_000_000
