"""Wallets' signatures are checked by processes: threads would wait for one another."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from wallet.protocol.keys import PublicKey
from wallet.protocol.refusals import ProtocolError

CHUNK = 256
# Less than this is done sooner here than it is sent.
ALONE_MAX = 32

Job = tuple[int, bytes, bytes, bytes]
"""(algorithm, raw public key, signature, signed bytes)."""


def check(jobs: Sequence[Job]) -> bytes:
    """One byte a job: 1 where the signature holds."""
    return bytes([_holds(*job) for job in jobs])


def _holds(algorithm: int, raw: bytes, signature: bytes, message: bytes) -> bool:
    try:
        PublicKey(algorithm, raw, b"", b"").verify(signature, message)
    except ProtocolError:
        return False
    return True


class Verifier:
    """A pool of processes, started when it is first needed; none of them with `workers` 0."""

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    async def check(self, jobs: Sequence[Job]) -> bytes:
        """One byte a job, as `check`. A pool that broke is replaced, and its work done here."""
        if self._workers == 0 or len(jobs) <= ALONE_MAX:
            return check(jobs)
        loop = asyncio.get_running_loop()
        pool = self._started()
        chunks = [jobs[at : at + CHUNK] for at in range(0, len(jobs), CHUNK)]
        try:
            done = await asyncio.gather(
                *[loop.run_in_executor(pool, check, chunk) for chunk in chunks]
            )
        except BrokenProcessPool:
            self.close()
            return check(jobs)
        return b"".join(done)

    def processes(self) -> list[int]:
        """Process numbers of the pool; none before it is needed."""
        return [] if self._pool is None else list(self._pool._processes)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A server that forks: this process has threads and sockets that no child should get.
            context = multiprocessing.get_context("forkserver")
            # An interrupt from the terminal is for the program, which ends them in order.
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=context,
                initializer=signal.signal,
                initargs=(signal.SIGINT, signal.SIG_IGN),
            )
        return self._pool

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
