"""Spreads signatures over helper processes, and checks here what is not worth the way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Sequence

from wallet.verifier.helper import STALL_S, Helper
from wallet.verifier.jobs import Job, check, holds

# So many are sent while the loop still gathers: the helper checks them meanwhile.
CHUNK = 8
MANY = 256
RETRY_S = 5.0

TellOne = Callable[[bool], None]


def spare_processors() -> int:
    """Processors that this process may use beside its own."""
    return len(os.sched_getaffinity(0)) - 1


class Verifier:
    """Any number of helpers, started when they are first needed; 0 checks everything here.

    A helper that ended, or said nothing for `stall_s`, is replaced some seconds later; its work is
    done here meanwhile. `niceness`: by how much helpers stand back for whoever else wants the
    processor, such as this process.
    """

    def __init__(self, *, processes: int, stall_s: float = STALL_S, niceness: int = 0) -> None:
        self._processes = processes
        self._stall_s = stall_s
        self._niceness = niceness
        self._helpers: list[Helper] = []
        self._starting: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._gathered: list[tuple[Job, TellOne]] = []

    @property
    def alone(self) -> bool:
        """Whether there are no helpers, so that all is checked here and now."""
        return self._processes == 0

    # ---- one signature ------------------------------------------------------------------
    def ask(self, job: Job, tell: TellOne) -> None:
        """Whether a signature holds. Those asked for in one turn of the loop travel together.

        They are told in the order in which they were asked for: the orders of one wallet may not
        overtake one another.
        """
        if self._processes == 0:
            tell(holds(job))
            return
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._send)
        self._gathered.append((job, tell))
        if len(self._gathered) >= CHUNK and self._helpers and not self._helpers[0].lost:
            # Only to a helper: who was told at once would overtake those that wait for the loop.
            self._send()

    def _send(self) -> None:
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        self._keep_started()
        helper = self._helpers[0] if self._helpers else None
        # One alone is checked sooner here than it is sent, if it overtakes none.
        if helper is None or (len(gathered) == 1 and helper.jobs == 0):
            _tell(gathered, check([job for job, _ in gathered]))
            return
        helper.submit([job for job, _ in gathered], functools.partial(_tell, gathered))

    # ---- many ---------------------------------------------------------------------------
    def check(self, jobs: Sequence[Job]) -> asyncio.Future[bytes]:
        """One byte a job, 1 where the signature holds. It is on its way once this returns."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        if len(jobs) <= CHUNK:
            future.set_result(check(jobs))
            return future
        self._keep_started()
        if self._starting is not None:
            return loop.create_task(self._check_started(self._starting, jobs))
        self._spread(jobs, future)
        return future

    async def _check_started(self, starting: asyncio.Task[None], jobs: Sequence[Job]) -> bytes:
        await asyncio.shield(starting)
        return await self.check(jobs)

    def _spread(self, jobs: Sequence[Job], future: asyncio.Future[bytes]) -> None:
        places = range(0, len(jobs), MANY)
        outcomes: dict[int, bytes] = {}

        def tell(place: int, outcome: bytes) -> None:
            outcomes[place] = outcome
            if len(outcomes) == len(places) and not future.done():
                future.set_result(b"".join([outcomes[place] for place in places]))

        for place in places:
            part = jobs[place : place + MANY]
            if self._helpers:
                least = min(self._helpers, key=lambda helper: helper.jobs)
                least.submit(part, functools.partial(tell, place))
            else:
                tell(place, check(part))

    # ---- helpers ------------------------------------------------------------------------
    def pids(self) -> list[int]:
        """The helpers' process numbers; none before they are needed."""
        return [helper.pid for helper in self._helpers if not helper.lost]

    def _keep_started(self) -> None:
        if self._starting is not None or len(self.pids()) == self._processes:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._retry_at:
            self._retry_at = loop.time() + RETRY_S
            self._starting = loop.create_task(self._start())

    async def _start(self) -> None:
        """Replace what was lost. A system that starts no process now is asked again later."""
        lost = [helper for helper in self._helpers if helper.lost]
        try:
            started = [helper for helper in self._helpers if not helper.lost]
            with contextlib.suppress(OSError):
                while len(started) < self._processes:
                    started.append(await self._helper())
            self._helpers = started
            for helper in lost:
                await helper.close()
        finally:
            self._starting = None

    async def _helper(self) -> Helper:
        return await Helper.start(stall_s=self._stall_s, niceness=self._niceness)

    async def close(self) -> None:
        """End the helpers."""
        if self._starting is not None:
            await self._starting
        self._processes = 0
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            await helper.close()


def _tell(gathered: Sequence[tuple[Job, TellOne]], outcome: bytes) -> None:
    for (_, tell), held in zip(gathered, outcome, strict=True):
        tell(held == 1)
