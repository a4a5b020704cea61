"""Runs the exchange with the cloud for an open gateway."""

from __future__ import annotations

import asyncio

from edge.config import Config
from edge.gateway import Opened
from wallet.clock import Clock


class Synchronising:
    """placeholder until the engine is here"""

    def __init__(self, opened: Opened, config: Config, *, clock: Clock) -> None:
        self.online: bool | None = None
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def now(self) -> tuple[str, str]:
        return "offline", ""

    async def run(self) -> None:
        await asyncio.Event().wait()
