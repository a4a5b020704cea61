"""Jobs of the store in turns that a seed chooses, instead of threads that the machine chooses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TypeVar

from tests.sim.disk import Disk, PowerCut
from wallet.faults import Faults
from wallet.store.errors import StoreClosed
from wallet.store.worker import Worker

T = TypeVar("T")
WAITS_MAX = 3


class Turns(Worker):
    """Runs each job in the loop, in the order of handing over, after some turns of the loop.

    What is asked meanwhile goes on, so a seed chooses how payments and a flush interleave.
    """

    def __init__(self, chance: random.Random, disk: Disk) -> None:
        # No thread is started: what the class it stands for does with one is done here.
        self._chance = chance
        self._disk = disk
        self._turn = asyncio.Lock()
        self._stopped = False

    async def run(self, job: Callable[[], T]) -> T:
        """The job's result; a power cut when the machine is off."""
        if self._stopped:
            raise StoreClosed("it has stopped")
        return await self._run(job)

    async def finish(self, last_job: Callable[[], T]) -> T:
        """The last job; it runs whatever happened, for what is open must be closed."""
        if self._stopped:
            raise StoreClosed("it has stopped already")
        self._stopped = True
        async with self._turn:
            return last_job()

    async def _run(self, job: Callable[[], T]) -> T:
        async with self._turn:
            for _ in range(self._chance.randrange(WAITS_MAX)):
                await asyncio.sleep(0)
            self._check()
            try:
                return job()
            finally:
                # An error of the dead disk must not look like one of a living one.
                self._check()

    def _check(self) -> None:
        if self._disk.off:
            raise PowerCut


class PowerFaults(Faults):
    """Turns the power off at one passing of a point."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._point: str | None = None
        self._passings = 0
        self.passed: set[str] = set()

    def arm(self, point: str | None, *, passings: int = 1) -> None:
        """At the n-th passing from now on."""
        self._point, self._passings = point, passings

    def at(self, point: str) -> None:
        """The end, if it is this one."""
        self.passed.add(point)
        if point == self._point:
            self._passings -= 1
            if self._passings == 0:
                self._disk.cut()
        if self._disk.off:
            raise PowerCut
