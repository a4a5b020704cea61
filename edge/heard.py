"""What came of asking the gateways next door, for whoever wants to know."""

from __future__ import annotations

import msgspec


class Heard(msgspec.Struct, kw_only=True):
    """One neighbour: when it was asked and when it answered last, and why it did not.

    `lists`: how many of its lists were news here. Times are 0 for never.
    """

    url: str
    asked_ms: int = 0
    heard_ms: int = 0
    lists: int = 0
    failure: str | None = None
