"""A box with a journal in the simulated world: the real journal and store, a token by the seed.

A gateway's and a device's are alike. What is real: `wallet.journal`, SQLCipher,
`edge.journal_port`, `edge.intake` and `sync.engine`. What stands in for something: the token's key
comes from the seed and its counter is a number that nothing sets back, and jobs of the store run in
the loop's thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge.folder import Folder
from edge.intake import take_objects
from edge.journal_port import JournalPort
from hsm.api import Algorithm, Sealer
from sync.engine import COMPLETED, Engine, Surroundings
from sync.ports import Transport
from tests.sim.system.lan import Lan, NextDoor
from tests.support.gateway import SetClock
from tests.support.issuer import Key
from wallet.faults import Faults
from wallet.journal import Journal, Mode
from wallet.protocol.certificates import Chain, TrustAnchor
from wallet.protocol.entry import Open
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import decode_issued
from wallet.protocol.policy import Policy
from wallet.store.database import Database
from wallet.store.errors import StoreClosed
from wallet.store.worker import Worker

T = TypeVar("T")
STORE_KEY = b"\x05" * 32


class ProcessEnds(BaseException):
    """The box's process is gone: nothing that runs in it may catch this."""


class NoSealer:
    """A simulated box keeps no key in a file: nothing has to be sealed."""

    async def seal(self, secret: bytes, *, label: str) -> bytes:
        """As it is."""
        return secret

    async def unseal(self, sealed: bytes, *, label: str) -> bytes:
        """As it is."""
        return sealed


class SeedToken:
    """A token whose key is the seed's; a clone of it has a counter of its own."""

    driver = "software"
    algorithm = Algorithm.EDDSA

    def __init__(self, name: str) -> None:
        self.key = Key(name)
        self.public_key = self.key.public.raw
        self.signer = self.counter = self
        self.sealer: Sealer = NoSealer()
        self.count = 0

    async def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self.key.sign(message)

    async def read(self) -> int:
        """The count."""
        return self.count

    async def increment(self) -> int:
        """One on."""
        self.count += 1
        return self.count

    async def probe(self) -> None:
        """It is there."""

    async def close(self) -> None:
        """The key is the seed's."""


class Inline(Worker):
    """Jobs of the store, each at once: no thread decides what comes first."""

    def __init__(self, name: str, *, jobs_max: int) -> None:
        # No thread is started: what the class it stands for does with one is done here.
        self._stopped = False

    async def run(self, job: Callable[[], T]) -> T:
        """The job's result."""
        if self._stopped:
            raise StoreClosed("it has stopped")
        return job()

    async def finish(self, last_job: Callable[[], T]) -> T:
        """The last job."""
        self._stopped = True
        return last_job()


class Ending(Faults):
    """Ends the process at a named point."""

    __slots__ = ("point",)

    def __init__(self) -> None:
        self.point: str | None = None

    def at(self, point: str) -> None:
        """The end, if it is this one."""
        if point == self.point:
            self.point = None
            raise ProcessEnds(point)


class Box:
    """One journal, its folder, token, clock and line."""

    journal: Journal
    database: Database
    engine: Engine
    neighbours: NextDoor

    def __init__(
        self, name: str, folder: Path, *, chance: random.Random, seed: int, now_ms: int
    ) -> None:
        self.name = name
        self.folder = folder
        self.chance = chance
        self.token = SeedToken(f"{seed}-{name}")
        self.hpke = X25519PrivateKey.from_private_bytes(
            hashlib.sha256(f"{seed}-{name}-hpke".encode()).digest()
        )
        self.clock = SetClock(now_ms)
        self.faults = Ending()
        self.transport: Transport
        self.anchor: TrustAnchor
        self.running = False
        # Nobody will ever see it again.
        self.gone = False
        self.wrong_hours = 0
        self.lan: Lan | None = None
        self.next_door: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None

    @property
    def id(self) -> JournalId:
        """Its journal."""
        return JournalId(self.token.key.public.id)

    # ---- life -----------------------------------------------------------------------------
    async def create(self, chain: Chain, objects: list[bytes]) -> None:
        """The first epoch, and what the issuer gave at enrolment."""
        self.folder.mkdir(parents=True)
        self.database = await self._store()
        policy = next(made for made in map(decode_issued, objects) if isinstance(made, Policy))
        self.journal = await Journal.create(
            database=self.database,
            token=self.token,
            clock=self.clock,
            anchor=self.anchor,
            chain=chain,
            opening=Open(journal=self.id, epoch=1, currency=policy.currency, policy=policy),
            faults=self.faults,
        )
        await take_objects(self.journal, self.database, objects)
        self._serve()

    async def open(self) -> None:
        """Start on what the folder holds."""
        self.database = await self._store()
        self.journal = await Journal.open(
            database=self.database,
            token=self.token,
            clock=self.clock,
            anchor=self.anchor,
            faults=self.faults,
        )
        self._serve()

    async def _store(self) -> Database:
        # Every page was verified at other starts; what a rotten disk does has its own simulation.
        path = self.folder / "store.db"
        return await Database.open(path, key=STORE_KEY, worker=Inline, check=False)

    def _serve(self) -> None:
        opened = SimpleNamespace(
            journal=self.journal,
            database=self.database,
            token=self.token,
            identity=SimpleNamespace(hpke_private=self.hpke.private_bytes_raw()),
        )
        self.engine = Engine(
            JournalPort(cast(Any, opened), folder=Folder(self.folder), clock=self.clock),
            self.transport,
            surroundings=Surroundings(
                clock=self.clock,
                jitter=self.chance.random,
                nonce=self.chance.randbytes,
                wait=_until_asked,
            ),
            tell=lambda name, **data: None,
        )
        if self.lan is not None:
            self.neighbours = NextDoor(cast(Any, opened), self, self.lan, clock=self.clock)
        self._task = asyncio.create_task(self.engine.run())
        self.running = True

    async def crash(self) -> None:
        """The process ends between two steps."""
        serving = self.journal._engine
        tasks: list[asyncio.Task[Any]] = [serving._task]
        tasks += [task for task in (serving._moving, self._task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        broken = self.journal.failure
        assert broken is None or isinstance(broken, ProcessEnds), broken
        if self._task is not None and not self._task.cancelled():
            assert isinstance(self._task.exception(), ProcessEnds), self._task
        await self.database.close()
        self.faults.point = None
        self.running = False

    @property
    def ended(self) -> bool:
        """Whether its process came to a point at which it had to end."""
        synchronising = self._task is not None and self._task.done()
        return self.journal.failure is not None or synchronising

    async def revive(self) -> bool:
        """Start it again if it has ended; answers whether it had."""
        if not self.running or not self.ended:
            return False
        await self.restart()
        return True

    async def restart(self) -> None:
        """A crash, and a start."""
        if self.running:
            await self.crash()
        await self.open()

    def copy_store(self, to: Path) -> None:
        """The files of the store, as whoever holds the box for a moment takes them along."""
        to.mkdir(parents=True)
        for path in self.folder.glob("store.db*"):
            shutil.copy2(path, to / path.name)

    async def put_back(self, copy: Path) -> None:
        """An older store in the place of this one."""
        if self.running:
            await self.crash()
        for path in self.folder.glob("store.db*"):
            path.unlink()
        for path in copy.iterdir():
            shutil.copy2(path, self.folder / path.name)
        await self.open()

    def clone(self, folder: Path) -> Box:
        """Another box with a copy of the store and of the key: stolen, or a broken token's."""
        other = Box(self.name, folder, chance=self.chance, seed=0, now_ms=self.clock.wall_ms)
        other.token.key, other.token.public_key = self.token.key, self.token.public_key
        other.token.count = self.token.count
        other.hpke, other.transport, other.anchor = self.hpke, self.transport, self.anchor
        self.copy_store(folder)
        return other

    # ---- the line -------------------------------------------------------------------------
    async def sync(self) -> str:
        """One session with the issuer: `completed`, or what went wrong."""
        result, detail = await self.engine.now()
        return result if result == COMPLETED else detail

    @property
    def is_open(self) -> bool:
        """Whether it takes payments."""
        return self.running and self.journal.mode is Mode.OPEN


async def _until_asked(event: asyncio.Event, timeout_ms: int | None) -> None:
    """No wait ends by itself: the world says when a box tries again."""
    await event.wait()
