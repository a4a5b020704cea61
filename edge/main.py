"""The daemon: builds the drivers, and owns every task in one group."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

import msgspec
import uvloop

from edge.authority import has_authority
from edge.config import Config
from edge.courier import Courier
from edge.errors import EdgeError, JournalBroken
from edge.folder import Folder
from edge.gateway import Gateway, Opened
from edge.heard import Heard
from edge.http.context import Context
from edge.http.local import LOCAL
from edge.http.neighbours import NEIGHBOURS
from edge.http.problem import HttpCode, problem
from edge.http.routes import BRANCH, METRICS, PAIRING
from edge.http.server import Server, branch_tls
from edge.journal_port import JournalPort
from edge.log import Log, start_logging
from edge.neighbours import Neighbours, neighbour_tls
from edge.notify import ALIVE, READY, STOPPING, notify, watchdog_s
from edge.open_files import allow_files
from edge.schedule import Schedule
from edge.synchronising import synchronising
from edge.tamper import Mark, NoSwitch, Switch, arm, open_switch
from edge.technician.page import TECHNICIAN
from hsm.api import HsmError
from hsm.files import replace_durably
from hsm.memory import Secret
from sync.engine import Engine, Status, Wake
from sync.meter import Counted
from wallet.clock import Clock, SystemClock
from wallet.journal import Journal, JournalError, Mode
from wallet.memory import collect_seldom, yield_soon
from wallet.protocol.sealed import SEALED_BYTES_MAX
from wallet.store.errors import StoreError

PROBE_S = 2.0
# How long those who asked before a trip of the switch are waited for.
ANSWER_S = 1.0
LOOPBACK = "127.0.0.1"
# What the technician brings on a stick: a sealed answer, as text.
LOCAL_BYTES_MAX = 2 * SEALED_BYTES_MAX
WELL, FAILED = 0, 1
_log = Log("daemon")


class Daemon:
    """One gateway with its servers; also what the local administration asks."""

    def __init__(
        self, config: Config, *, secret: bytes | Secret, clock: Clock | None = None
    ) -> None:
        self._config = config
        self._folder = Folder(config.folder)
        self._gateway = Gateway(config, secret=secret, clock=clock or SystemClock())
        self._context = Context(self._gateway, control=self)
        self._sync: Engine | None = None
        self._neighbours: Neighbours | None = None
        self._next_door: Server | None = None
        self._courier: Courier | None = None
        self._branch: list[Server] = []
        self._fixed: list[Server] = []
        self._trusted = False
        self._group: asyncio.TaskGroup | None = None
        self._opened_tasks: list[asyncio.Task[None]] = []
        self._schedule = Schedule(config)
        self._switch: Switch = NoSwitch()
        self._tripping: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self._changing = asyncio.Lock()

    # ---- what the interfaces ask ----------------------------------------------------------
    def online(self) -> bool | None:
        """Whether the last exchange reached the cloud."""
        return None if self._sync is None else self._sync.online

    def neighbours(self) -> Sequence[Heard]:
        """What came of asking the gateways next door."""
        return () if self._neighbours is None else self._neighbours.heard

    def line(self) -> Status:
        """The line to the cloud at a glance. Raises: ProblemRaised."""
        if self._sync is None:
            _ = self._context.opened
            raise problem(HttpCode.SYNC_UNAVAILABLE, "the gateway has just been opened")
        return self._sync.status()

    def counted(self) -> list[Counted]:
        """Every byte on the line, by link and purpose; nothing while the gateway is closed."""
        return [] if self._sync is None else self._sync.status().counted

    def wake_sync(self) -> None:
        """Synchronise soon."""
        if self._sync is not None:
            self._sync.wake()

    async def sync_now(self) -> tuple[str, str]:
        """Synchronise and wait for what comes of it. Raises: ProblemRaised."""
        sync = self._sync
        if sync is None:
            _ = self._context.opened
            raise problem(HttpCode.SYNC_UNAVAILABLE, "the gateway has just been opened")
        return await sync.now()

    def courier(self) -> Courier:
        """Who makes reports for sticks and takes answers from them. Raises: ProblemRaised."""
        courier = self._courier
        if courier is None:
            _ = self._context.opened
            raise problem(HttpCode.SYNC_UNAVAILABLE, "the gateway has just been opened")
        return courier

    async def reload(self) -> None:
        """Try again to open what is not open."""
        await self._open()

    async def renew_tls(self) -> None:
        """Let the branch's servers show and trust the certificates of now."""
        async with self._changing:
            await self._start_branch()

    # ---- life -----------------------------------------------------------------------------
    def stop(self) -> None:
        """End as a signal would."""
        self._stopping.set()

    @property
    def context(self) -> Context:
        """What its handlers are given."""
        return self._context

    async def run(self) -> None:
        """Serve until a signal. Raises: what `Gateway.open` raises, OSError for a taken port."""
        self._folder.prepare()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._arm()
                await self._open()
                await self._start_fixed()
                self.ready.set()
                notify(READY)
                _log.info("daemon.ready", mode=str(self._gateway.mode))
                watching = [self._supervise(), self._watch_switch()]
                tasks = [group.create_task(work) for work in watching]
                await self._stopping.wait()
                notify(STOPPING)
                for task in tasks:
                    task.cancel()
                await self._stop()
        finally:
            self._switch.close()
            await self._close()
        _log.info("daemon.stopped")

    async def _close(self) -> None:
        opened = self._gateway.opened
        failure = None if opened is None else opened.journal.failure
        # A journal that broke says it again when it is closed; why was said already.
        with contextlib.suppress(*(() if failure is None else (type(failure),))):
            await self._gateway.close()

    async def _open(self) -> None:
        """Open the gateway if it can be, and let the branch's servers say what it is."""
        async with self._changing:
            before = self._gateway.opened
            await self._gateway.open()
            if self._gateway.opened is not None and before is None:
                self._begin_opened()
            if not self._branch or self._trusted != has_authority(self._folder):
                await self._start_branch()

    def _begin_opened(self) -> None:
        opened = self._gateway.opened
        if opened is None or self._group is None:
            return
        clock = self._gateway.clock
        port = JournalPort(opened, folder=self._folder, clock=clock)
        sync = self._sync = synchronising(opened, port, self._config, clock=clock)
        self._courier = Courier(opened, port, clock=clock)
        works = (opened.events.run(), opened.audit.run(), sync.run(), self._meet_neighbours(opened))
        for work in works:
            self._opened_tasks.append(self._group.create_task(_until_cancelled(work)))
        collect_seldom()
        self._schedule.start(wake=lambda: sync.wake(Wake.TIMER), prune=self._prune)

    async def _meet_neighbours(self, opened: Opened) -> None:
        """Tell the gateways next door newer lists, and ask them, while this one is open."""
        config, clock = self._config.neighbours, self._gateway.clock
        if config.port is not None:
            server = self._next_door = Server(self._context, NEIGHBOURS, described=False)
            tls = neighbour_tls(opened.identity, serving=True)
            await server.start(host=self._config.listen.host, port=config.port, tls=tls)
            self._write_ports()
        asking = self._neighbours = Neighbours(opened, config, clock=clock)
        try:
            await asking.run()
        finally:
            self._neighbours = None
            if self._next_door is not None:
                await self._next_door.stop()

    # ---- the tamper switch ----------------------------------------------------------------
    def _arm(self) -> None:
        """Look at the switch before any key is opened. Raises: SwitchFailed, OSError."""
        self._switch = open_switch(self._config.tamper)
        arm(self._folder)
        reason = self._switch.tripped()
        if reason is not None:
            self._gateway.freeze(self._mark(reason))

    def _mark(self, reason: str) -> Mark:
        _log.error("tamper.tripped", source=self._switch.source, reason=reason)
        now_ms = self._gateway.clock.now_ms()
        return Mark(time_ms=now_ms, source=self._switch.source, reason=reason)

    async def _watch_switch(self) -> None:
        mark = self._mark(await self._switch.wait())
        # Begun is begun: who stops the daemon meanwhile waits for it.
        self._tripping = asyncio.ensure_future(self._trip(mark))
        await asyncio.shield(self._tripping)

    async def _trip(self, mark: Mark) -> None:
        # 1. Refuse, and leave the mark, before anything else may take its time.
        self._gateway.freeze(mark)
        async with self._changing:
            # 2. What was just being opened refuses as well.
            self._gateway.freeze(mark)
            # 3. Who asked before gets an answer; then nothing uses the keys any more.
            await self._end_opened()
            # 4. The keys go.
            if not await self._gateway.drop(mark):
                self.stop()

    async def _end_opened(self) -> None:
        """End what works with an open gateway; listeners still hear that it is frozen."""
        opened, self._sync, self._courier = self._gateway.opened, None, None
        for task in self._opened_tasks:
            task.cancel()
        self._schedule.stop()
        if opened is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await opened.events.flush()
                await self._answered()
        # Streams that were woken ask the store for the event before it closes.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        opened.events.stop()

    async def _answered(self) -> None:
        """Wait until nobody but listeners is being answered."""
        context = self._context
        while context.running > context.streams:  # noqa: ASYNC110 - an event costs each payment
            await asyncio.sleep(ANSWER_S / 100)

    async def _prune(self) -> None:
        opened = self._gateway.opened
        if opened is not None:
            await opened.prune(self._gateway.clock.now_ms())

    async def _start_branch(self) -> None:
        for server in self._branch:
            await server.stop()
        self._trusted = has_authority(self._folder)
        listen = self._config.listen
        branch = Server(self._context, BRANCH, described=True)
        pairing = Server(self._context, PAIRING, described=False)
        self._branch = [branch, pairing]
        trusted = branch_tls(self._folder, clients=True)
        await branch.start(host=listen.host, port=listen.port, tls=trusted)
        anybody = branch_tls(self._folder, clients=False)
        await pairing.start(host=listen.host, port=listen.pairing_port, tls=anybody)
        self._write_ports()

    async def _start_fixed(self) -> None:
        metrics = Server(self._context, METRICS, described=False)
        await metrics.start(host=LOOPBACK, port=self._config.listen.metrics_port, tls=None)
        local = Server(self._context, LOCAL, described=False, body_bytes_max=LOCAL_BYTES_MAX)
        self._folder.socket.unlink(missing_ok=True)
        self._fixed = [metrics, local]
        # Bound by ourselves, so that nobody may open it before its mode is set.
        await local.start_local(_private_socket(str(self._folder.socket)))
        await self._start_page()
        self._write_ports()

    async def _start_page(self) -> None:
        """The technician's page; without it the gateway pays all the same."""
        config = self._config.technician
        if not config.listen:
            return
        page = Server(self._context, TECHNICIAN, described=False)
        self._fixed.append(page)
        try:
            await page.start(host=config.host, port=config.port, tls=None)
        except OSError as error:
            _log.error("page.failed", listen=config.listen, detail=str(error))

    def _write_ports(self) -> None:
        names = ("port", "pairing_port", "metrics_port", "", "technician_port")
        ports = [server.port for server in (*self._branch, *self._fixed)]
        found = {name: port for name, port in zip(names, ports, strict=False) if port}
        if self._next_door is not None:
            found["neighbours_port"] = self._next_door.port
        content = msgspec.json.encode(found)
        replace_durably(self._folder.ports, content)

    async def _supervise(self) -> None:
        """Ask the token; feed the watchdog only when the store and the token answer, or say no."""
        every_s = min(PROBE_S, watchdog_s() or PROBE_S)
        while True:
            await asyncio.sleep(every_s)
            opened = self._gateway.opened
            if opened is None:
                await self._open_again()
            else:
                _stop_when_broken(opened.journal)
                await opened.probe_token()
                await opened.probe_store()
                opened.observing.look(None if self._sync is None else self._sync.state)
            notify(ALIVE)

    async def _open_again(self) -> None:
        if self._gateway.mode is Mode.SEALED:
            await self._open()

    async def _stop(self) -> None:
        if self._tripping is not None:
            await self._tripping
        opened = self._gateway.opened
        if opened is not None:
            opened.events.stop()
        self._schedule.stop()
        for server in (*self._branch, *self._fixed):
            await server.stop()
        for task in self._opened_tasks:
            task.cancel()
        self._folder.socket.unlink(missing_ok=True)
        self._folder.ports.unlink(missing_ok=True)


def _stop_when_broken(journal: Journal) -> None:
    failure = journal.failure
    if failure is not None:
        raise JournalBroken(f"{type(failure).__name__}: {failure}") from failure


async def _until_cancelled(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await work


def _private_socket(path: str) -> socket.socket:
    """A listening socket that its owner alone may open."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(path)
    os.chmod(path, 0o600)
    return made


def run_daemon(config: Config, *, secret: Secret) -> int:
    """Run until SIGTERM; gives the exit code."""
    start_logging(config.log.level)
    allow_files(config)
    yield_soon()

    async def run() -> None:
        await Daemon(config, secret=secret).run()

    outcome = WELL
    try:
        uvloop.run(run())
    except* (EdgeError, HsmError, StoreError, JournalError, OSError) as group:
        for error in group.exceptions:
            code = getattr(error, "code", "os-error")
            _log.error("daemon.failed", code=str(code), detail=str(error))
            print(f"cbdc-edge: {error}", file=sys.stderr)
        outcome = FAILED
    return outcome
