"""Times and durations as people read them."""

from __future__ import annotations

import datetime


def moment(unix_ms: int | None) -> str:
    """RFC 3339 in UTC, to the second."""
    if unix_ms is None:
        return "never"
    time = datetime.datetime.fromtimestamp(unix_ms // 1000, datetime.UTC)
    return time.isoformat().replace("+00:00", "Z")


def duration(seconds: int | None) -> str:
    """The two largest units; no number is no limit."""
    if seconds is None:
        return "any time"
    if seconds < 0:
        return "-" + duration(-seconds)
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
