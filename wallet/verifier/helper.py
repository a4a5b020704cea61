"""One helper process, seen from the loop of the program that uses it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec

from wallet.verifier.jobs import Job, check, pack

STALL_S = 5.0
END_S = 5.0
JOBS_MAX = 4096
# Of the way to the process, as far as the system grants it: what the loop has sent once is on its
# way although the loop is busy from then on.
SENT_BYTES = 1 << 20
_ROOT = str(Path(__file__).parents[2])

Tell = Callable[[bytes], None]


class _Chunk(msgspec.Struct):
    jobs: Sequence[Job]
    tell: Tell
    sent: bool
    answered: bytearray


class Helper(asyncio.Protocol):
    """Chunks go to the process; their outcomes are told in the order in which they were submitted.

    What is not sent, because 4096 jobs are on their way, and what a helper that ended or stalled
    has not answered is checked here when its turn comes: nobody waits for ever.
    """

    def __init__(self, *, stall_s: float) -> None:
        self._stall_s = stall_s
        # Jobs that were sent and are not answered yet.
        self.jobs = 0
        self.lost = False
        self._waiting: deque[_Chunk] = deque()
        self._transport: asyncio.Transport
        self._process: asyncio.subprocess.Process
        self._watch: asyncio.TimerHandle | None = None
        self._heard = False

    @classmethod
    async def start(cls, *, stall_s: float, niceness: int) -> Helper:
        """Raises: OSError."""
        # What the program is told in secret, such as a passphrase, is nothing to its helper.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CBDC_")}
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "wallet.verifier", str(niceness)),
                    stdin=theirs.fileno(),
                    env={**environment, "PYTHONPATH": _ROOT},
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES)
        helper = cls(stall_s=stall_s)
        helper._process = process
        await asyncio.get_running_loop().create_unix_connection(lambda: helper, sock=ours)
        return helper

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def submit(self, jobs: Sequence[Job], tell: Tell) -> None:
        """Have jobs checked; `tell` hears one byte a job, as `check` gives it, now or later."""
        if self.lost:
            tell(check(jobs))
            return
        sent = self.jobs < JOBS_MAX
        self._waiting.append(_Chunk(jobs, tell, sent, bytearray()))
        if not sent:
            return
        self.jobs += len(jobs)
        self._transport.write(pack(jobs))
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(self._stall_s, self._look)

    def _look(self) -> None:
        """Hang up on a process that was silent while it had work."""
        self._watch = None
        if not self._waiting:
            return
        if not self._heard:
            self._transport.abort()
            return
        self._heard = False
        self._watch = asyncio.get_running_loop().call_later(self._stall_s, self._look)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop's call."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Outcomes of what was sent, the oldest first."""
        self._heard = True
        rest = memoryview(data)
        while rest and self._waiting:
            chunk = self._waiting[0]
            missing = len(chunk.jobs) - len(chunk.answered)
            chunk.answered += rest[:missing]
            rest = rest[missing:]
            if len(chunk.answered) < len(chunk.jobs):
                return
            self._waiting.popleft()
            self.jobs -= len(chunk.jobs)
            chunk.tell(bytes(chunk.answered))
            self._check_unsent()

    def _check_unsent(self) -> None:
        while self._waiting and not self._waiting[0].sent:
            chunk = self._waiting.popleft()
            chunk.tell(check(chunk.jobs))

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is gone, or was hung up on: do what it left."""
        self.lost = True
        self.jobs = 0
        if self._watch is not None:
            self._watch.cancel()
        while self._waiting:
            chunk = self._waiting.popleft()
            chunk.tell(check(chunk.jobs))

    async def close(self) -> None:
        """Hang up and wait until the process has ended; one that does not is killed."""
        self._transport.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
