"""A token by a seed: it signs with a real key, and is slow, gone, or answers into the void.

Its counter is one of three: hardware, which no power cut sets back; a file, as the software driver
has it; or a token's own, which moves at each reading, with the note that the PKCS#11 driver keeps
of it. The last two are the real code on the simulated disk.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec

from hsm.api import Algorithm, TokenGone, TokenTimeout
from hsm.boxes import close_box, open_box
from hsm.counter import SoftwareCounter
from hsm.memory import Secret
from hsm.pkcs11 import counter as noting
from hsm.software import SoftwareToken
from tests.sim.disk import Disk, PowerCut
from tests.sim.files import SmallFiles

WAITS_MAX = 4
HARDWARE, FILE, NOTED = "hardware", "file", "noted"
COUNTERS = (HARDWARE, FILE, NOTED)
# What the PKCS#11 token would seal its note with.
KEY, KIND = Secret(bytes(32)), b"\x02"


class SimulatedToken:
    """The key of a software token, beside a counter of the given kind in a folder."""

    driver = "software"
    algorithm = Algorithm.EDDSA

    def __init__(
        self,
        inner: SoftwareToken,
        chance: random.Random,
        disk: Disk,
        *,
        folder: Path,
        count: int,
        kind: str,
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
        self.kind = kind
        # The highest count that it ever told.
        self.count = count
        self._chance = chance
        self._disk = disk
        folder.mkdir()
        self.files = SmallFiles(folder, disk, chance)
        self._folder = folder
        self._hardware, self._shown = count, 1_000
        self._begin(count)
        self.restart()

    @property
    def path(self) -> Path | None:
        """The counter's file."""
        name = {FILE: "counter", NOTED: noting.FILE_NAME}.get(self.kind)
        return None if name is None else self._folder / name

    def _begin(self, count: int) -> None:
        if self.kind == FILE:
            self.files.place("counter", b"%d\n" % count)
        elif self.kind == NOTED:
            kept = noting.Kept(shown=self._shown, count=count)
            self.files.place(noting.FILE_NAME, self._closed(msgspec.json.encode(kept)))

    def restart(self) -> None:
        """Another process opens it."""
        self._file, self._noted = SoftwareCounter(self._folder), noting.Counting(self._folder)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Its files are on the simulated disk within the block, its counter is this one."""
        seals = SimpleNamespace(seal=lambda _, note, label: self._closed(note), unseal=self._opened)
        with (
            self.files.watched(),
            # The driver's real counting; only the module behind it is simulated.
            mock.patch.object(noting, "show", self._show),
            mock.patch.object(noting, "seals", seals),
        ):
            yield

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
        return self._counted(counts=False)

    async def increment(self) -> int:
        """One on."""
        await self._asked()
        count = self._counted(counts=True)
        if self.kind != NOTED:
            self._answered()
        return count

    async def probe(self) -> None:
        """Whether it is there."""
        await self._asked()

    async def close(self) -> None:
        """The key is of all seeds."""

    def _counted(self, *, counts: bool) -> int:
        told = self._count(counts=counts)
        self.count = max(self.count, told)
        return told

    def _count(self, *, counts: bool) -> int:
        if self.kind == HARDWARE:
            self._hardware += counts
            return self._hardware
        if self.kind == FILE:
            return self._file._increment() if counts else self._file.check()
        keys: Any = SimpleNamespace(session=SimpleNamespace(token=self))
        return self._noted.increment(keys) if counts else self._noted.read(keys)

    # ---- a token that counts its readings -----------------------------------------------
    def _show(self, token: object) -> int:
        self._shown += 1
        self._answered()
        return self._shown

    def _closed(self, note: bytes) -> bytes:
        return close_box(KIND, KEY, note, label=noting.LABEL)

    def _opened(self, keys: object, sealed: bytes, label: str) -> bytes:
        return open_box(KIND, KEY, sealed, label=label)

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
