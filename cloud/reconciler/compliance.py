"""Step 8: where compliance looks at what journals did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cloud.database import Connection
from cloud.reconciler.values import Segment


class Compliance(Protocol):
    """Looks at a segment inside its transaction."""

    async def review(self, connection: Connection, segment: Segment) -> Mapping[int, str]:
        """Codes of entries to hold, by index, until a person decides."""
        ...


class HoldNothing:
    """Compliance before there is any."""

    async def review(self, connection: Connection, segment: Segment) -> Mapping[int, str]:
        """Nothing."""
        return {}
