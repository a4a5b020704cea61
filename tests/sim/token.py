"""A token by a seed: it signs with a real key, and is slow, gone, or answers into the void."""

from __future__ import annotations

import asyncio
import random

from hsm.api import Algorithm, TokenGone, TokenTimeout
from hsm.software import SoftwareToken
from tests.sim.disk import Disk, PowerCut

WAITS_MAX = 4


class SimulatedToken:
    """The key of a software token; its counter is hardware, which no power cut sets back."""

    driver = "software"
    algorithm = Algorithm.EDDSA

    def __init__(
        self, inner: SoftwareToken, chance: random.Random, disk: Disk, *, count: int
    ) -> None:
        self.inner = inner
        self.signer = self
        self.counter = self
        self.sealer = self
        self.public_key = inner.signer.public_key
        self.gone = False
        self.slow = False
        # At the n-th call from now on the token does what was asked, and its answer is lost.
        self.mute_at = 0
        self.count = count
        self._chance = chance
        self._disk = disk

    async def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        await self._asked()
        signature = await self.inner.signer.sign(message)
        self._answered()
        return signature

    async def seal(self, secret: bytes, *, label: str) -> bytes:
        """As the real one does."""
        await self._asked()
        return await self.inner.sealer.seal(secret, label=label)

    async def unseal(self, sealed: bytes, *, label: str) -> bytes:
        """As the real one does."""
        await self._asked()
        return await self.inner.sealer.unseal(sealed, label=label)

    async def read(self) -> int:
        """The count."""
        await self._asked()
        return self.count

    async def increment(self) -> int:
        """One on."""
        await self._asked()
        self.count += 1
        self._answered()
        return self.count

    async def probe(self) -> None:
        """Whether it is there."""
        await self._asked()

    async def close(self) -> None:
        """The key is of all seeds."""

    async def _asked(self) -> None:
        if self.slow:
            for _ in range(self._chance.randrange(WAITS_MAX)):
                await asyncio.sleep(0)
        if self._disk.off:
            raise PowerCut
        if self.gone:
            raise TokenGone("pulled out")

    def _answered(self) -> None:
        self.mute_at -= 1
        if self.mute_at == 0:
            raise TokenTimeout("no answer in time; it may have happened")
