"""One gateway in a world by a seed: its clock, disk, power and token fail, its journal may not.

The journal, its store and SQLCipher are the real ones. The disk below, the token beside and the
order of turns between the store's jobs and the loop come from the seed; nothing depends on wall
time or on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import msgspec

from hsm import software
from hsm.api import HsmError
from tests.sim import neighbour, replica
from tests.sim.disk import Disk, PowerCut
from tests.sim.hosted import LOCK_S, PINS, TRIES_MAX, SimulatedHosted, Thief
from tests.sim.neighbour import Neighbour
from tests.sim.replica import Replica, Verdicts
from tests.sim.token import HARDWARE, SimulatedToken
from tests.sim.turns import PowerFaults, Turns
from tests.support.gateway import PASSPHRASE, STORE_KEY, Gateway
from tests.support.live_issuer import LiveIssuer
from wallet.faults import Faults
from wallet.journal import Journal
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.keys import EDDSA, from_raw
from wallet.protocol.lists import SignedList
from wallet.store.database import Database
from wallet.store.errors import StoreError

NOW_S = 1_790_000_000
# What an operator can mend without losing anything.
_PASSING = ("store-full", "store-failed", "token-gone", "token-timeout", "token-refused")
HELPED_MAX = 5
LIMITS = {105: 7, 106: 60, 119: TRIES_MAX, 120: LOCK_S}


class Template(msgspec.Struct, frozen=True):
    """A new gateway with three wallets of devices and two hosted ones, as all seeds begin."""

    files: dict[str, bytes]
    token: software.SoftwareToken
    issuer: LiveIssuer
    count: int
    hosted: tuple[WalletId, ...]
    replica: replica.Beginning
    neighbour: neighbour.Beginning


_templates: dict[int, Template] = {}


async def template(*, payments: int) -> Template:
    """Made once in a process for each number of payments that it begins with."""
    if payments not in _templates:
        with tempfile.TemporaryDirectory() as name:
            _templates[payments] = await _made(Path(name), payments=payments)
    return _templates[payments]


async def _made(folder: Path, *, payments: int) -> Template:
    box = Gateway(folder, LiveIssuer("world", now_s=NOW_S))
    await box.create(limits=LIMITS)
    hosted = await _host(box)
    await asyncio.gather(*[box.pay(0, 1, amount_minor=1) for _ in range(payments)])
    state = box.journal.state
    held = Replica(box.anchor, state.journal)
    held.follow(await box.journal.entries(0, state.size))
    await box.journal.close()
    await box.database.close()
    count = await box.token.read()
    return Template(
        files={path.name: path.read_bytes() for path in folder.glob("store.db*")},
        token=await software.open_token(folder / "token", passphrase=PASSPHRASE),
        issuer=box.issuer,
        count=count,
        hosted=hosted,
        replica=held.beginning(),
        neighbour=neighbour.beginning(box.issuer, box.keys),
    )


async def _host(box: Gateway) -> tuple[WalletId, ...]:
    """Two funded wallets whose keys the gateway keeps."""
    wallets = SimulatedHosted(
        journal=box.journal, database=box.database, token=box.token, thief=Thief(())
    )
    made = []
    for number, pin in enumerate(PINS):
        key = await wallets.create(pin)
        await box.enrol(key, sequence=len(box.keys) + number)
        made.append(WalletId(key.id))
    return tuple(made)


class SimulatedGateway(Gateway):
    """A gateway in a simulated world."""

    token: SimulatedToken  # type: ignore[assignment]  # it has the face that is used here
    hosted: SimulatedHosted

    def __init__(
        self, folder: Path, made: Template, *, chance: random.Random, counter: str = HARDWARE
    ) -> None:
        super().__init__(folder, made.issuer)
        self.chance = chance
        self.disk = Disk(chance)
        self.faults = PowerFaults(self.disk)
        self.token = SimulatedToken(
            made.token,
            chance,
            self.disk,
            folder=folder / "token",
            count=made.count,
            kind=counter,
        )
        self.verdicts = Verdicts()
        self._held = made.replica
        self._lists: dict[bytes, SignedList] = {}
        self.replica = self.new_replica()
        self.neighbour = Neighbour(made.neighbour, self.anchor)
        self.thief = Thief(made.hosted)
        self.running = False
        for name, content in made.files.items():
            (folder / name).write_bytes(content)

    async def open(
        self, *, database: bool = True, verifying_processes: int = 0, faults: Faults | None = None
    ) -> Journal:
        """Open what the disk holds. Raises: PowerCut, StoreError, HsmError, JournalError."""
        self.token.restart()
        self.database = await Database.open(
            self.folder / "store.db",
            key=STORE_KEY,
            worker=lambda name, *, jobs_max: Turns(self.chance, self.disk),
        )
        try:
            self.journal = await Journal.open(
                database=self.database,
                token=self.token,
                clock=self.clock,
                anchor=self.anchor,
                faults=self.faults,
            )
            self.hosted = SimulatedHosted(
                journal=self.journal, database=self.database, token=self.token, thief=self.thief
            )
            self.running = True
        finally:
            if not self.running:
                await self.database.close()
        return self.journal

    def tell_issuer(self, listed: SignedList) -> None:
        """A list that the issuer made; it knows it for ever."""
        self._lists[listed.hash] = self.replica.lists[listed.hash] = listed

    def new_replica(self) -> Replica:
        """An issuer that holds what the seed began with."""
        made = Replica(self.anchor, JournalId(from_raw(EDDSA, self.token.public_key).id))
        made.begin(self._held)
        made.lists.update(self._lists)
        return made

    async def start(self) -> None:
        """Open, whatever it takes: an operator puts the token back and makes room."""
        helped = 0
        while not self.running:
            try:
                await self.open()
            except PowerCut:
                self.restart()
            except (StoreError, HsmError) as error:
                helped += 1
                if error.code not in _PASSING or helped > HELPED_MAX:
                    raise
                self.mend()
                if self.disk.off:
                    self.restart()

    async def stop(self) -> None:
        """An orderly end, if the power lasts."""
        with contextlib.suppress(PowerCut):
            await self.journal.close()
        await self.halt()

    async def halt(self) -> None:
        """The process is gone; the power is off or not."""
        engine = self.journal._engine
        tasks: list[asyncio.Task[Any]] = [engine._task]
        if engine._moving is not None:
            tasks.append(engine._moving)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if engine.failed.done():
            assert isinstance(engine.failed.exception(), PowerCut)
        await self.database.close()
        self.running = False
        if self.disk.off:
            self.restart()

    def restart(self) -> None:
        """The power comes back; the clock may have been lost with it."""
        self.disk.restart()
        self.token.files.restart()
        self.faults.arm(None)
        self.clock.steady_ms = 0

    def mend(self) -> None:
        """The token is there and answers, the disk has room and does as it says."""
        self.token.gone = self.token.slow = False
        self.token.mute_at = 0
        self.disk.room_bytes, self.disk.sync_fails = None, False


async def tried(work: Awaitable[object]) -> None:
    """Do it if disk, power and token let us."""
    with contextlib.suppress(PowerCut, StoreError, HsmError):
        await work
