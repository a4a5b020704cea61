"""When to exchange, and what a failure leads to: one task, its states in `sync.machine`.

A session sends what the journal held when it began, segment by segment; what the answers add
travels with the next one. Links that cost by the byte carry value first, and only what their budget
lets them; a person who asks is not held by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator

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
from sync.line import Carried, Line
from sync.machine import Event, State, after
from sync.meter import Counted, Link, Meter, Purpose
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
# What a line does that carries less than it was given.
_BREAKS = frozenset({Code.TIMEOUT, Code.UNREACHABLE})
_FAILURES = (SyncError, ProtocolError, StoreError, JournalError, HsmError, OSError)


class Wake(enum.StrEnum):
    """Why it is woken. A timer does not cut a wait short that follows a failure; people do."""

    TIMER = "timer"
    WORK = "work"
    ASKED = "asked"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The engine at a glance. `online`: see `Engine.online`; times are Unix milliseconds.

    `held_ms`: how long the link's budget holds the next session back; 0 when it does not.
    `day_bytes`, `day_bytes_left`: of the link in use, and of them what is for probes.
    """

    state: State
    since_ms: int
    online: bool | None
    failures: int
    completed_ms: int | None
    link: Link
    held_ms: int
    segment_bytes: int
    day_bytes: int
    day_bytes_left: int | None
    probe_day_bytes: int
    probe_day_bytes_left: int | None
    counted: list[Counted]


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
    # The link that packets to the cloud would take now.
    link: Callable[[], Link] = Link


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
        self._line = Line()
        self._held_ms = 0
        self._state, self._since_ms = State.OFFLINE, surroundings.clock.now_ms()

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
        line, now_ms = self._line, self._surroundings.clock.now_ms()
        return Status(
            state=self._state,
            since_ms=self._since_ms,
            online=self._online,
            failures=self._failures,
            completed_ms=self._completed_ms,
            link=line.link,
            held_ms=self._held_ms,
            segment_bytes=line.pace.segment_bytes,
            day_bytes=line.meter.spent(line.link, None, now_ms=now_ms),
            day_bytes_left=line.meter.left(line.link, now_ms=now_ms),
            probe_day_bytes=line.meter.spent(line.link, Purpose.PROBE, now_ms=now_ms),
            probe_day_bytes_left=line.meter.left(line.link, Purpose.PROBE, now_ms=now_ms),
            counted=line.meter.counted(),
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
        if self._surroundings.link().name != self._line.link.name:
            # Another way may do what this one did not.
            return True
        if self._state in (State.OFFLINE, State.CAPTIVE):
            return self._failures == 0
        return self._state in (State.IDLE, State.METERED, State.SUSPENDED)

    # ---- the task -------------------------------------------------------------------------
    async def run(self) -> None:
        """Synchronise when woken, and again after failures, until cancelled."""
        try:
            await self._load_meter()
            while True:
                await self._surroundings.wait(self._woken, self._pause_ms())
                self._woken.clear()
                await self._turn()
        finally:
            self._ended = True
            _answer(self._asked, (FAILED, "the synchronisation has ended"))

    def _pause_ms(self) -> int | None:
        waits_ms = [self._held_ms] if self._held_ms else []
        if self._failures:
            waits_ms.append(delay_ms(self._failures, jitter=self._surroundings.jitter()))
        return max(waits_ms, default=None)

    async def _turn(self) -> None:
        asked, self._asked = self._asked, None
        outcome = FAILED, "the synchronisation has ended"
        try:
            if asked is not None or not await self._holds_back():
                outcome = await self._session(asked=asked is not None)
        finally:
            _answer(asked, outcome)

    async def _holds_back(self) -> bool:
        """Whether the link costs too much for a session that nobody asked for."""
        line, now_ms = self._line, self._surroundings.clock.now_ms()
        line.link = self._surroundings.link()
        probes = self._state in (State.OFFLINE, State.CAPTIVE)
        purpose = Purpose.PROBE if probes else Purpose.EXCHANGE
        self._held_ms = line.held_ms(purpose, now_ms=now_ms)
        if self._held_ms:
            self._on(Event.SPENT)
            return True
        if self._state is not State.METERED or not line.rests(self._completed_ms, now_ms=now_ms):
            return False
        return not await self._waits()

    async def _waits(self) -> bool:
        try:
            return await self._port.waits()
        except StoreError:
            # The session will say so.
            return True

    async def _session(self, *, asked: bool) -> tuple[str, str]:
        self._line.link, self._held_ms = self._surroundings.link(), 0
        self._tell("sync.started")
        try:
            await self._reach()
            exchanges = await self._send(asked=asked)
        except _FAILURES as error:
            return self._failed(error)
        finally:
            await self._hang_up()
        self._failures = 0
        self._completed_ms = self._surroundings.clock.now_ms()
        saves = self._line.link.metered or self._held_ms > 0
        self._on(Event.DONE_METERED if saves else Event.DONE)
        self._tell("sync.completed", acknowledged=self._port.position().acknowledged)
        return COMPLETED, f"exchanges: {exchanges}"

    async def _reach(self) -> None:
        """Begin exchanging, if the cloud can be reached. Raises: those of `_FAILURES`."""
        if self._state in (State.OFFLINE, State.CAPTIVE):
            await self._recipient()
        self._on(Event.BEGIN)
        if self._state is State.PROBING:
            with self._counting(Purpose.PROBE):
                await self._transport.probe()
            self._on(Event.REACHED)

    async def _recipient(self) -> bytes:
        recipient = await self._port.recipient()
        if recipient is None:
            raise SyncError(Code.NOT_READY, "no key of the issuer for envelopes is held yet")
        return recipient

    async def _send(self, *, asked: bool) -> int:
        """Exchange until the issuer holds what was there at the start; gives how many it took."""
        goal = self._port.position().size
        for count in range(1, self._exchanges_max + 1):
            before = self._port.position()
            waiting = await self._exchange(asked=asked)
            now = self._port.position()
            acknowledged = now.acknowledged
            # Objects that came are entries; what is refused is not asked for again and again.
            more = waiting > 0 and now.size > before.size
            # Without progress the rest is not signed yet: it travels with the next session.
            if not more and (acknowledged >= goal or acknowledged == before.acknowledged):
                return count
            self._tell("sync.progress", acknowledged=acknowledged, size=goal)
            now_ms = self._surroundings.clock.now_ms()
            self._held_ms = self._line.held_ms(Purpose.EXCHANGE, now_ms=now_ms)
            if self._held_ms and not asked:
                return count
        self._woken.set()
        return self._exchanges_max

    async def _exchange(self, *, asked: bool) -> int:
        """One envelope there, one back; gives how many bytes of objects wait for the next one.

        Raises: those of `_FAILURES`.
        """
        recipient, now_ms = await self._recipient(), self._surroundings.clock.now_ms()
        load = self._line.load(now_ms=now_ms, unbudgeted=asked)
        prepared = await self._port.up(self._surroundings.nonce(EXCHANGE_BYTES), load=load)
        if prepared is None:
            raise SyncError(Code.NOT_READY, "no checkpoint is signed yet")
        up, leaves = prepared
        size = self._port.position().size
        envelope = await self._port.sign(up_payload(up), UP_TYPE)
        # Envelopes may be large: payments go on while one is sealed or opened.
        sealed = await asyncio.to_thread(seal, envelope, recipient=recipient)
        answer, took_ms = await self._carry(sealed)
        keys, root = self._port.own_keys(), self._port.anchor
        down = await asyncio.to_thread(open_down, answer, keys=keys, root=root)
        self._line.carried(
            Carried(line_bytes=len(sealed), told_bytes=len(envelope)),
            Carried(line_bytes=len(answer), told_bytes=sum(map(len, down.objects))),
            took_ms,
        )
        self._reached(True)
        check_answers(down, up)
        check_acknowledged(down, size=size)
        await self._port.take(down)
        if goes_back(down, up):
            # Nothing of this report was kept, so that its receipts travel again as well.
            self._tell(
                "sync.rewound", acknowledged=down.acknowledged_size, before=up.acknowledged_size
            )
            return down.waiting
        check_taken(down, up)
        await self._port.handed_over(leaves)
        return down.waiting

    async def _carry(self, sealed: bytes) -> tuple[bytes, int]:
        """Over the line, counted; the answer and how long it took, ms. Raises: TransportError."""
        clock, began_ms = self._surroundings.clock, self._surroundings.clock.monotonic_ms()
        try:
            with self._counting(Purpose.EXCHANGE):
                answer = await self._transport.exchange(sealed)
        except TransportError as error:
            if error.code in _BREAKS:
                self._line.broke()
            raise
        return answer, clock.monotonic_ms() - began_ms

    # ---- what it costs --------------------------------------------------------------------
    @contextlib.contextmanager
    def _counting(self, purpose: Purpose) -> Iterator[None]:
        before = self._transport.traffic()
        try:
            yield
        finally:
            traffic = self._transport.traffic().since(before)
            self._line.count(purpose, traffic, now_ms=self._surroundings.clock.now_ms())

    async def _hang_up(self) -> None:
        """End the connection, and keep what all of it cost."""
        with self._counting(Purpose.EXCHANGE):
            await self._transport.hang_up()
        with contextlib.suppress(StoreError):
            await self._port.keep_meter(self._line.meter.encode())

    async def _load_meter(self) -> None:
        with contextlib.suppress(StoreError):
            kept = await self._port.load_meter()
            if kept is not None:
                self._line.meter = Meter.decode(kept)

    # ---- what it comes to -----------------------------------------------------------------
    def _failed(self, error: Exception) -> tuple[str, str]:
        problem = error.problem if isinstance(error, ProblemAnswered) else None
        self._failures += 1
        if problem in SUSPENDING:
            self._failures = 0
            self._on(Event.CLOSED)
        elif getattr(error, "code", None) is Code.OTHER_PEER:
            self._on(Event.PORTAL)
        else:
            self._on(Event.LOST)
        if isinstance(error, TransportError):
            self._reached(False)
        code = str(getattr(error, "code", "os-error"))
        self._tell("sync.failed", code=code, problem=problem, failures=self._failures)
        return FAILED, str(error)

    def _on(self, event: Event) -> None:
        following = after(self._state, event)
        if following is not self._state:
            self._state, self._since_ms = following, self._surroundings.clock.now_ms()

    def _reached(self, online: bool) -> None:
        if online != self._online:
            self._online = online
            self._tell("connectivity.changed", online=online)


def _answer(asked: asyncio.Future[tuple[str, str]] | None, outcome: tuple[str, str]) -> None:
    if asked is not None and not asked.done():
        asked.set_result(outcome)
