"""The outbox: what happened, written in the transaction in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloud.database import Connection


async def tell(connection: Connection, topic: str, body: Mapping[str, Any], *, now_ms: int) -> None:
    """One event for those who act on it."""
    await connection.execute(
        "INSERT INTO outbox (topic, body, created_ms) VALUES ($1, $2::jsonb, $3)",
        *(topic, msgspec.json.encode(body).decode(), now_ms),
    )
