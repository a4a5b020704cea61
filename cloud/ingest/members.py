"""Which worker takes which partition: those that are alive share them, without a place to ask.

All workers say their names again and again, and each counts for itself who is there. A partition
is the worker's whose name together with it has the highest hash, so that few partitions move when
one comes or goes. Two workers that disagree for a moment do the same work twice and nothing worse:
the database keeps one effect of an entry. What is won is that a worker has the replicas of its
journals at hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from cloud.log import Log
from cloud.stream.api import Notices, StreamError

TOPIC = "workers"
BEAT_S = 1.0
SILENT_S = 4.0
NAME_BYTES_MAX = 64
MEMBERS_MAX = 1_000
_LEFT = b"-"
_log = Log("members")


def owner_of(partition: int, names: Iterable[str]) -> str:
    """Whose a partition is, of these workers; they come to the same answer."""

    def weight(name: str) -> bytes:
        return hashlib.sha256(f"{partition}/{name}".encode()).digest()

    return max(names, key=weight)


class Sharing(Protocol):
    """Says what this worker is to take."""

    def owned(self, partitions: int) -> set[int]:
        """The partitions that are this worker's now."""

    async def changed(self) -> None:
        """Return when they may be others."""


class Alone:
    """The one worker that there is."""

    def owned(self, partitions: int) -> set[int]:
        """All of them."""
        return set(range(partitions))

    async def changed(self) -> None:
        """Never."""
        await asyncio.get_running_loop().create_future()


class Members:
    """The workers that are alive, as this one heard it.

    It says its name every `beat_s`, and forgets who said nothing for `silent_s`.
    """

    def __init__(
        self,
        notices: Notices,
        *,
        name: str,
        beat_s: float = BEAT_S,
        silent_s: float = SILENT_S,
        members_max: int = MEMBERS_MAX,
    ) -> None:
        self.name = name
        self._beat_s = beat_s
        self._silent_s = silent_s
        self._members_max = members_max
        self._notices = notices
        self._heard: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._left = False

    def owned(self, partitions: int) -> set[int]:
        """The partitions that are this worker's now."""
        self._forget_silent()
        names = [self.name, *self._heard]
        return {place for place in range(partitions) if owner_of(place, names) == self.name}

    async def changed(self) -> None:
        """Return when somebody came, or may have gone."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._beat_s):
                await self._changed.wait()
        self._changed.clear()

    @contextlib.asynccontextmanager
    async def meeting(self) -> AsyncIterator[None]:
        """Be one of them while the block runs. Raises: StreamError."""
        async with self._notices.listening(TOPIC) as heard:
            tasks = [asyncio.create_task(self._listen(heard)), asyncio.create_task(self._beat())]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)

    async def leave(self) -> None:
        """Tell the others that they need not wait until this one is silent."""
        self._left = True
        await self._say(_LEFT + self.name.encode())

    async def _beat(self) -> None:
        while not self._left:
            await self._say(self.name.encode())
            await asyncio.sleep(self._beat_s)

    async def _say(self, body: bytes) -> None:
        try:
            await self._notices.say(TOPIC, body)
        except StreamError as error:
            # The next beat is heard again; meanwhile others take these partitions too.
            _log.warning("beat.unheard", code=error.code)

    async def _listen(self, heard: AsyncIterator[bytes]) -> None:
        async for raw in heard:
            name = raw.removeprefix(_LEFT)[:NAME_BYTES_MAX].decode("ascii", "replace")
            if name == self.name:
                continue
            if raw.startswith(_LEFT):
                self._heard.pop(name, None)
                self._changed.set()
                continue
            if name not in self._heard:
                if len(self._heard) >= self._members_max:
                    continue
                self._changed.set()
                # It hears of this one before its next beat.
                if not self._left:
                    await self._say(self.name.encode())
            self._heard[name] = asyncio.get_running_loop().time()

    def _forget_silent(self) -> None:
        """A worker that was killed says nothing."""
        since = asyncio.get_running_loop().time() - self._silent_s
        self._heard = {name: at for name, at in self._heard.items() if at >= since}
