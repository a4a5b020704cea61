"""A journal and its issuer for tests of the engine: real envelopes, no store, no network, no time.

The issuer checks no rules; it keeps entries, and does what a test tells it to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sync.engine import Engine, Surroundings
from sync.errors import Code, TransportError
from sync.exchange import TAKES, build_down, first_objects, open_up, takes
from sync.meter import Link, Traffic
from sync.ports import Load, Position
from tests.support.issuer import NOW_S, Issuer, Journal
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import DOWN_TYPE, NEWEST_LISTS, Down, Up
from wallet.protocol.sealed import seal, short_id

NOW_MS = NOW_S * 1000
WAIT_S = 20
BYTES_MAX = 1 << 40
ISSUER = Issuer("sync")
# What an object of the simulated issuer begins with that is a list.
LISTED = b"list"
WALLETS_LIST = NEWEST_LISTS + 2


def raw(key: X25519PrivateKey) -> bytes:
    """Its public half."""
    return key.public_key().public_bytes_raw()


class SimulatedJournal:
    """A `JournalPort` over a list of entries; segments have at most `segment` of them."""

    def __init__(self, *, entries: int = 0, segment: int = 3) -> None:
        self.names = Journal(ISSUER, "sync")
        self.anchor = TrustAnchor(ISSUER.root)
        self.hpke = X25519PrivateKey.generate()
        self.to: bytes | None = None
        self.entries = [bytes([number]) for number in range(entries)]
        self.unsigned = 0
        self.acknowledged = 0
        self.segment = segment
        self.signed = True
        self.taken: list[bytes] = []
        self.lists: list[bytes] = []
        self.refuses_lists = False
        self.handed: list[bytes] = []
        self.error: Exception | None = None
        self.loads: list[Load] = []
        self.meter: bytes | None = None

    def position(self) -> Position:
        """See `JournalPort`."""
        return Position(
            journal=self.names.journal,
            epoch=self.names.epoch,
            acknowledged=self.acknowledged,
            size=len(self.entries) + self.unsigned,
        )

    async def waits(self) -> bool:
        """See `JournalPort`."""
        return self.acknowledged < len(self.entries)

    async def load_meter(self) -> bytes | None:
        """See `JournalPort`."""
        return self.meter

    async def keep_meter(self, counted: bytes) -> None:
        """See `JournalPort`."""
        self.meter = counted

    async def up(self, exchange: bytes, *, load: Load) -> tuple[Up, Sequence[bytes]] | None:
        """See `JournalPort`."""
        self.loads.append(load)
        if self.error is not None:
            raise self.error
        if not self.signed:
            return None
        first = self.acknowledged
        claims = Up(
            journal=self.names.journal,
            epoch=self.names.epoch,
            exchange=exchange,
            acknowledged_size=first,
            entries=tuple(self._fitting(first, load)),
            checkpoint=b"",
            newest={WALLETS_LIST: len(self.lists)},
            health=None if load.answer_bytes_max is None else {TAKES: load.answer_bytes_max},
        )
        return claims, [b"leaf"]

    def _fitting(self, first: int, load: Load) -> list[bytes]:
        """One at least, as many as the load and the segment allow."""
        found: list[bytes] = []
        room = BYTES_MAX if load.bytes_max is None else load.bytes_max
        for entry in self.entries[first : first + self.segment]:
            room -= len(entry)
            if found and room < 0:
                break
            found.append(entry)
        return found

    async def sign(self, payload: bytes, type_: str) -> bytes:
        """See `JournalPort`."""
        return self.names.key.sign_object(type_, payload, self.names.chain)

    async def recipient(self) -> bytes | None:
        """See `JournalPort`."""
        return self.to

    def own_keys(self) -> Mapping[bytes, X25519PrivateKey]:
        """See `JournalPort`."""
        return {short_id(raw(self.hpke)): self.hpke}

    async def take(self, down: Down) -> None:
        """See `JournalPort`."""
        self.taken += down.objects
        lists = [raw for raw in down.objects if raw.startswith(LISTED)]
        if not self.refuses_lists:
            # Each becomes an entry.
            self.lists += lists
            self.unsigned += len(lists)
        if down.problem is None and down.acknowledged_size <= len(self.entries):
            self.acknowledged = down.acknowledged_size

    async def handed_over(self, leaves: Sequence[bytes]) -> None:
        """See `JournalPort`."""
        self.handed += leaves


class SimulatedCloud:
    """A `Transport` with the issuer behind it."""

    def __init__(self, journal: SimulatedJournal) -> None:
        self.journal = journal
        self.hpke = X25519PrivateKey.generate()
        self.entries: list[bytes] = []
        self.ups: list[Up] = []
        self.probes = 0
        self.probe_bytes = 5_000
        self.hung_up = 0
        self.line = Traffic()
        self.away: Code | None = None
        # The exchange at this number, from 1 on, gets there, and its answer does not come back.
        self.lost_at: int | None = None
        self.objects: list[bytes] = []
        self.lists: list[bytes] = []
        self.told: list[int] = []
        self.changes: dict[str, Any] = {}
        self.role = "sync"
        self.meanwhile: Callable[[], None] = lambda: None
        self.gate = asyncio.Event()
        self.gate.set()

    def traffic(self) -> Traffic:
        """See `Transport`."""
        return self.line

    async def hang_up(self) -> None:
        """See `Transport`."""
        self.hung_up += 1

    async def probe(self) -> None:
        """See `Transport`."""
        self.probes += 1
        self.line = self.line.plus(Traffic(sent=self.probe_bytes))
        self._away()

    async def exchange(self, sealed: bytes) -> bytes:
        """See `Transport`."""
        self._away()
        self.line = self.line.plus(Traffic(sent=len(sealed)))
        up = open_up(sealed, keys={short_id(raw(self.hpke)): self.hpke}, root=self.journal.anchor)
        self.ups.append(up.claims)
        self.meanwhile()
        await self.gate.wait()
        if "problem" not in self.changes and "acknowledged" not in self.changes:
            self._keep(up.claims)
        if len(self.ups) == self.lost_at:
            raise TransportError(Code.TIMEOUT, "the answer is lost")
        return seal(self._answer(up.claims), recipient=raw(self.journal.hpke))

    def _away(self) -> None:
        if self.away is not None:
            raise TransportError(self.away, "away")

    def _keep(self, up: Up) -> None:
        if up.acknowledged_size > len(self.entries):
            # It was restored from an older backup: it says what it holds, and takes nothing.
            return
        overlap = len(self.entries) - up.acknowledged_size
        assert list(up.entries[:overlap]) == self.entries[up.acknowledged_size :][: len(up.entries)]
        self.entries += up.entries[overlap:]

    def _answer(self, up: Up) -> bytes:
        up = msgspec.structs.replace(up, exchange=self.changes.get("exchange", up.exchange))
        lacking = self.lists[up.newest[WALLETS_LIST] :]
        objects, waiting = first_objects(
            [*self.objects, *lacking], bytes_max=takes(up) or BYTES_MAX
        )
        self.told.append(sum(map(len, objects)))
        payload = build_down(
            up,
            acknowledged=self.changes.get("acknowledged", len(self.entries)),
            objects=objects,
            waiting=waiting,
            problem=self.changes.get("problem"),
        )
        key, chain = ISSUER.role(self.role)
        return key.sign_object(DOWN_TYPE, payload, chain)


class Hands:
    """A clock that stands, chance that is a number, and waits that a test lets go."""

    def __init__(self) -> None:
        self.now = NOW_MS
        self.jitter = 0.5
        self.waits: list[int | None] = []
        self.over = asyncio.Event()
        self.link = Link()

    def now_ms(self) -> int:
        """See `Clock`."""
        return self.now

    def monotonic_ms(self) -> int:
        """See `Clock`."""
        return self.now

    async def wait(self, event: asyncio.Event, timeout_ms: int | None) -> None:
        """Until the event, or until the test says that the time is over."""
        self.waits.append(timeout_ms)
        waits = [event] if timeout_ms is None else [event, self.over]
        tasks = [asyncio.create_task(each.wait()) for each in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.over.clear()
            for task in tasks:
                task.cancel()


class Pair:
    """An engine between a simulated journal and a simulated cloud."""

    def __init__(self, *, entries: int = 0, exchanges_max: int = 100) -> None:
        self.journal = SimulatedJournal(entries=entries)
        self.cloud = SimulatedCloud(self.journal)
        self.journal.to = raw(self.cloud.hpke)
        self.hands = Hands()
        self.events: list[tuple[str, dict[str, object]]] = []
        self.states: list[str] = []
        self.engine = Engine(
            self.journal,
            self.cloud,
            surroundings=Surroundings(
                clock=self.hands,
                jitter=lambda: self.hands.jitter,
                nonce=lambda size: bytes([len(self.cloud.ups) + 1]) * size,
                wait=self.hands.wait,
                link=lambda: self.hands.link,
            ),
            tell=self._hear,
            exchanges_max=exchanges_max,
        )
        self.task: asyncio.Task[None] | None = None

    def _hear(self, name: str, **data: object) -> None:
        self.events.append((name, data))
        self.states.append(self.engine.state)

    @property
    def names(self) -> list[str]:
        """Names of the events so far."""
        return [name for name, _ in self.events]

    async def __aenter__(self) -> Pair:
        """Its task runs."""
        self.task = asyncio.create_task(self.engine.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Its task ends."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, check: Callable[[], bool]) -> None:
        """Wait for a state."""
        async with asyncio.timeout(WAIT_S):
            while not check():
                await asyncio.sleep(0)
