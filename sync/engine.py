"""When to exchange, and what a failure leads to: one task, its states written out.

A session sends what the journal held when it began, segment by segment; what the answers add
travels with the next one. The states:

- `offline`: nothing has got through, at the start or the last time; after a failure it waits longer
  each time, and tries again.
- `probing`: seeing whether the cloud can be reached, before anything is signed for it.
- `exchanging`: envelopes go there and come back.
- `idle`: the last session ended well.
- `suspended`: the issuer takes nothing more from this journal and epoch. It is not asked again
  until something wakes the engine: the issuer may have lifted it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import secrets
from collections.abc import Awaitable, Callable

import msgspec

from hsm.api import HsmError
from sync.backoff import delay_ms
from sync.errors import Code, ProblemAnswered, SyncError, TransportError
from sync.exchange import (
    EXCHANGE_BYTES,
    check_acknowledged,
    check_answers,
    check_taken,
    goes_back,
    open_down,
)
from sync.ports import JournalPort, Listener, Transport
from wallet.clock import Clock
from wallet.journal import JournalError
from wallet.protocol.envelope import UP_TYPE, up_payload
from wallet.protocol.refusals import Code as Refused
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.sealed import seal
from wallet.store.errors import StoreError

EXCHANGES_MAX = 1_000
COMPLETED, FAILED = "completed", "failed"
# Problems by which the issuer says that this journal and epoch are closed or frozen.
SUSPENDING = frozenset({Refused.JOURNAL_REVOKED, Refused.FROZEN_BY_ISSUER, Refused.WRONG_JOURNAL})
_FAILURES = (SyncError, ProtocolError, StoreError, JournalError, HsmError, OSError)


class State(enum.StrEnum):
    """What the engine is doing; see the module."""

    OFFLINE = "offline"
    PROBING = "probing"
    EXCHANGING = "exchanging"
    IDLE = "idle"
    SUSPENDED = "suspended"


class Wake(enum.StrEnum):
    """Why it is woken. A timer does not cut a wait short that follows a failure; people do."""

    TIMER = "timer"
    WORK = "work"
    ASKED = "asked"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The engine at a glance. `online`: see `Engine.online`; times are Unix milliseconds."""

    state: State
    since_ms: int
    online: bool | None
    failures: int
    completed_ms: int | None


async def wait_for(event: asyncio.Event, timeout_ms: int | None) -> None:
    """Wait for the event, or until the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
            await event.wait()


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Time, chance and waiting; tests bring their own."""

    clock: Clock
    jitter: Callable[[], float] = random.random
    nonce: Callable[[int], bytes] = secrets.token_bytes
    wait: Callable[[asyncio.Event, int | None], Awaitable[None]] = wait_for


class Engine:
    """Synchronises one open journal with its issuer."""

    def __init__(
        self,
        port: JournalPort,
        transport: Transport,
        *,
        surroundings: Surroundings,
        tell: Listener,
        exchanges_max: int = EXCHANGES_MAX,
    ) -> None:
        self._port = port
        self._transport = transport
        self._surroundings = surroundings
        self._tell = tell
        self._exchanges_max = exchanges_max
        self._online: bool | None = None
        self._failures = 0
        self._completed_ms: int | None = None
        self._woken = asyncio.Event()
        # Who asked for an outcome shares the one of the next session that begins.
        self._asked: asyncio.Future[tuple[str, str]] | None = None
        self._ended = False
        self._enter(State.OFFLINE)

    # ---- from anywhere in the loop --------------------------------------------------------
    @property
    def online(self) -> bool | None:
        """Whether the cloud was reached the last time it was tried; None before."""
        return self._online

    @property
    def state(self) -> State:
        """What it is doing."""
        return self._state

    def status(self) -> Status:
        """At a glance."""
        return Status(
            state=self._state,
            since_ms=self._since_ms,
            online=self._online,
            failures=self._failures,
            completed_ms=self._completed_ms,
        )

    def wake(self, reason: Wake = Wake.WORK) -> None:
        """Synchronise soon."""
        if reason is not Wake.TIMER or self._resting():
            self._woken.set()

    async def now(self) -> tuple[str, str]:
        """The outcome of a session that begins after this call: (COMPLETED or FAILED, detail)."""
        if self._ended:
            return FAILED, "the synchronisation has ended"
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        self.wake(Wake.ASKED)
        # The outcome is shared: one who stops waiting must not take it from the others.
        return await asyncio.shield(self._asked)

    def _resting(self) -> bool:
        if self._state is State.OFFLINE:
            return self._failures == 0
        return self._state in (State.IDLE, State.SUSPENDED)

    # ---- the task -------------------------------------------------------------------------
    async def run(self) -> None:
        """Synchronise when woken, and again after failures, until cancelled."""
        try:
            while True:
                await self._surroundings.wait(self._woken, self._pause_ms())
                self._woken.clear()
                await self._turn()
        finally:
            self._ended = True
            _answer(self._asked, (FAILED, "the synchronisation has ended"))

    def _pause_ms(self) -> int | None:
        if self._failures == 0:
            return None
        return delay_ms(self._failures, jitter=self._surroundings.jitter())

    async def _turn(self) -> None:
        asked, self._asked = self._asked, None
        outcome = FAILED, "the synchronisation has ended"
        try:
            outcome = await self._session()
        finally:
            _answer(asked, outcome)

    async def _session(self) -> tuple[str, str]:
        self._tell("sync.started")
        try:
            await self._reach()
            exchanges = await self._send()
        except _FAILURES as error:
            return self._failed(error)
        self._failures = 0
        self._completed_ms = self._surroundings.clock.now_ms()
        self._enter(State.IDLE)
        self._tell("sync.completed", acknowledged=self._port.position().acknowledged)
        return COMPLETED, f"exchanges: {exchanges}"

    async def _reach(self) -> None:
        """Begin exchanging, if the cloud can be reached. Raises: those of `_FAILURES`."""
        if self._state is State.OFFLINE:
            await self._recipient()
            self._enter(State.PROBING)
            await self._transport.probe()
        self._enter(State.EXCHANGING)

    async def _recipient(self) -> bytes:
        recipient = await self._port.recipient()
        if recipient is None:
            raise SyncError(Code.NOT_READY, "no key of the issuer for envelopes is held yet")
        return recipient

    async def _send(self) -> int:
        """Exchange until the issuer holds what was there at the start; gives how many it took."""
        goal = self._port.position().size
        for count in range(1, self._exchanges_max + 1):
            before = self._port.position().acknowledged
            await self._exchange()
            acknowledged = self._port.position().acknowledged
            # Without progress the rest is not signed yet: it travels with the next session.
            if acknowledged >= goal or acknowledged == before:
                return count
            self._tell("sync.progress", acknowledged=acknowledged, size=goal)
        self._woken.set()
        return self._exchanges_max

    async def _exchange(self) -> None:
        """One envelope there, one back. Raises: those of `_FAILURES`."""
        recipient = await self._recipient()
        prepared = await self._port.up(self._surroundings.nonce(EXCHANGE_BYTES))
        if prepared is None:
            raise SyncError(Code.NOT_READY, "no checkpoint is signed yet")
        up, leaves = prepared
        size = self._port.position().size
        envelope = await self._port.sign(up_payload(up), UP_TYPE)
        # Envelopes may be large: payments go on while one is sealed or opened.
        sealed = await asyncio.to_thread(seal, envelope, recipient=recipient)
        answer = await self._transport.exchange(sealed)
        keys, root = self._port.own_keys(), self._port.anchor
        down = await asyncio.to_thread(open_down, answer, keys=keys, root=root)
        self._reached(True)
        check_answers(down, up)
        check_acknowledged(down, size=size)
        await self._port.take(down)
        if goes_back(down, up):
            # Nothing of this report was kept, so that its receipts travel again as well.
            self._tell(
                "sync.rewound", acknowledged=down.acknowledged_size, before=up.acknowledged_size
            )
            return
        check_taken(down, up)
        await self._port.handed_over(leaves)

    # ---- what it comes to -----------------------------------------------------------------
    def _failed(self, error: Exception) -> tuple[str, str]:
        problem = error.problem if isinstance(error, ProblemAnswered) else None
        if problem in SUSPENDING:
            self._failures = 0
            self._enter(State.SUSPENDED)
        else:
            self._failures += 1
            self._enter(State.OFFLINE)
        if isinstance(error, TransportError):
            self._reached(False)
        code = str(getattr(error, "code", "os-error"))
        self._tell("sync.failed", code=code, problem=problem, failures=self._failures)
        return FAILED, str(error)

    def _enter(self, state: State) -> None:
        self._state = state
        self._since_ms = self._surroundings.clock.now_ms()

    def _reached(self, online: bool) -> None:
        if online != self._online:
            self._online = online
            self._tell("connectivity.changed", online=online)


def _answer(asked: asyncio.Future[tuple[str, str]] | None, outcome: tuple[str, str]) -> None:
    if asked is not None and not asked.done():
        asked.set_result(outcome)
