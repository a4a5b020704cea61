"""One thread for a library that must be called from one thread only."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from hsm.api import TokenTimeout

CALLS_WAITING_MAX = 1024

Result = TypeVar("Result")


class DriverThread:
    """Runs calls one after another in a thread of its own.

    A call that hangs holds up those behind it: each of them times out by itself, and is skipped
    when its turn comes after its caller left. The thread never keeps the process from ending.
    """

    def __init__(self, name: str, *, calls_waiting_max: int = CALLS_WAITING_MAX) -> None:
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue(calls_waiting_max)
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, work: Callable[[], Result], *, timeout_s: float) -> Result:
        """Run the work in the thread and return what it returns, or raise what it raises.

        Raises:
            TokenTimeout: it did not finish in time, or too many calls wait already.
        """
        outcome = self.post(work)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(outcome)
        except TimeoutError as error:
            raise TokenTimeout(f"the token did not answer within {timeout_s:g} s") from error

    def post(self, work: Callable[[], Result]) -> Future[Result]:
        """Have the work done in its turn, without waiting for it.

        Raises:
            TokenTimeout: too many calls wait already.
        """
        outcome: Future[Result] = Future()
        try:
            self._calls.put_nowait(lambda: _fulfil(outcome, work))
        except queue.Full as error:
            raise TokenTimeout("too many calls wait for the token") from error
        return outcome

    def _run(self) -> None:
        while True:
            self._calls.get()()


def _fulfil(outcome: Future[Result], work: Callable[[], Result]) -> None:
    if not outcome.set_running_or_notify_cancel():
        return
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the caller gets whatever happened, in its task
        outcome.set_exception(error)
