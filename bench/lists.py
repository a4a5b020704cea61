"""A million revoked wallets: bytes to send, memory, a look-up, and what taking them costs."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import uvloop

from bench.branch import WALLETS, Bench, taken
from bench.figures import Figure, figure, resident_mib
from cloud.issuer.lists import Items, _portions, _value
from tests.support.live_issuer import LiveIssuer
from wallet.protocol.envelope import DOWN_TYPE, Down, down_payload
from wallet.protocol.ids import JournalId
from wallet.protocol.issued import LIST_TYPE, decode_list
from wallet.protocol.lists import ListId, SignedList, content
from wallet.protocol.packed import PackedIds
from wallet.protocol.sealed import seal

IDS = 1_000_000
MORE = 1_000
LOOKUPS = 100_000
CALLERS = 16
QUIET_S = 3.0
DAY_MS = 86_400_000
# An X25519 key that nobody has: what is sealed to it is only measured.
RECIPIENT = b"\x09" + bytes(31)


def random_ids(count: int) -> Items:
    """Ids as hashes are."""
    return dict.fromkeys([os.urandom(20) for _ in range(count)], ())


def signed(
    issuer: LiveIssuer, items: Items, *, after: SignedList | None = None
) -> list[SignedList]:
    """A change as the issuer signs it: a full list first, where nothing is there yet."""
    made: list[SignedList] = []
    for added, removed in _portions(items, {}):
        before = made[-1] if made else after
        value, base = _value(ListId.WALLETS, added), None
        if before is not None:
            value, base = [value, _value(ListId.WALLETS, removed)], before.hash
        sequence = 0 if before is None else before.sequence + 1
        now_ms = time.time_ns() // 1_000_000
        claims = {2: int(ListId.WALLETS), 3: sequence, 4: now_ms, 5: now_ms + DAY_MS, 6: base}
        made.append(decode_list(issuer.issue(LIST_TYPE, {**claims, 7: content(value)})))
    return made


def down_bytes(issuer: LiveIssuer, lists: list[SignedList]) -> int:
    """An answer with these lists, signed, compressed and sealed."""
    answer = Down(
        journal=JournalId(bytes(20)),
        epoch=1,
        exchange=bytes(16),
        acknowledged_size=0,
        objects=tuple([listed.signed.raw for listed in lists]),
    )
    key, chain = issuer.role_key("sync")
    envelope = key.sign_object(DOWN_TYPE, down_payload(answer), chain)
    return len(seal(envelope, recipient=RECIPIENT))


def sizes(issuer: LiveIssuer, lists: list[SignedList]) -> list[Figure]:
    """`down` with all, and with what changed."""
    more = signed(issuer, random_ids(MORE), after=lists[-1])
    return [
        figure(
            f"`down` with {IDS:,} revoked wallets",
            down_bytes(issuer, lists),
            "bytes",
            beside="their ids alone",
            beside_value=20 * IDS,
        ),
        figure(
            f"`down` with {MORE:,} more",
            down_bytes(issuer, more),
            "bytes",
            beside="their ids alone",
            beside_value=20 * MORE,
        ),
    ]


def lookups(items: Items) -> list[Figure]:
    """Memory and time of what is held, beside Python's own set of the same ids."""
    probes = [os.urandom(20) for _ in range(LOOKUPS)]

    def look(held: PackedIds | frozenset[bytes]) -> float:
        start = time.perf_counter()
        if sum([probe in held for probe in probes]):
            raise RuntimeError("an id that nobody listed is found")
        return (time.perf_counter() - start) / LOOKUPS * 1e9

    packed = PackedIds.of_rows(b"".join([b"\x54" + item for item in sorted(items)]))
    plain = frozenset([bytes(bytearray(item)) for item in items])
    packed_bytes = sys.getsizeof(packed._rows) + sys.getsizeof(packed._marks)
    plain_bytes = sys.getsizeof(plain) + sum(map(sys.getsizeof, plain))
    # What the first look-ups bring into the caches is not what is asked here.
    look(packed), look(plain)
    return [
        figure(
            f"{IDS:,} ids in memory",
            packed_bytes / 2**20,
            "MiB",
            beside="Python's frozenset",
            beside_value=plain_bytes / 2**20,
        ),
        figure(
            "an id that is not among them",
            look(packed),
            "ns",
            beside="Python's frozenset",
            beside_value=look(plain),
        ),
    ]


class _Paying:
    """Payments one after the other by some callers, and when each was done."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.done_s: list[float] = []
        self._ended = False
        self._next = 0

    async def _pay(self) -> None:
        bench, journal = self._bench, self._bench.journal.state.journal
        while not self._ended:
            # Of the few that are on their way at once no two are of one wallet.
            payer, self._next = bench.purses[self._next % WALLETS], self._next + 1
            payee = bench.purses[self._next % WALLETS].key.id
            order = payer.order(payee, journal=journal, payee_journal=journal)
            taken(await bench.journal.pay(order))
            self.done_s.append(time.perf_counter())

    async def until(self, work: asyncio.Task[None]) -> None:
        """Pay until the work is done. Orders of one wallet keep their order."""
        callers = [asyncio.create_task(self._pay()) for _ in range(CALLERS)]
        await work
        self._ended = True
        await asyncio.gather(*callers)

    def longest_ms(self) -> float:
        """The longest time without a receipt."""
        return max(after - before for before, after in pairwise(self.done_s)) * 1000


async def taking(lists: list[SignedList], issuer: LiveIssuer) -> list[Figure]:
    """A gateway takes all of it while it pays, and starts with it."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        bench = Bench(Path(name), issuer)
        await bench.create()
        quiet, paying = _Paying(bench), _Paying(bench)
        await quiet.until(asyncio.create_task(asyncio.sleep(QUIET_S)))
        before_mib, start = resident_mib(), time.perf_counter()

        async def take() -> None:
            for listed in lists:
                # As `take_objects` does: what came is decoded on the loop.
                again = decode_list(listed.signed.raw)
                taken(await bench.journal.take_list(again))

        await paying.until(asyncio.create_task(take()))
        took_s, grown_mib = time.perf_counter() - start, resident_mib() - before_mib
        await bench.close()
        disk = sum([path.stat().st_size for path in Path(name).glob("store.db*")])
        start = time.perf_counter()
        await bench.reopen()
        started_s = time.perf_counter() - start
        if len(bench.journal.state.lists[ListId.WALLETS].items) != IDS:
            raise RuntimeError("the list is not what was sent")
        await bench.close()
    return [
        figure(
            f"longest wait for a receipt while {IDS:,} ids are taken",
            paying.longest_ms(),
            "ms",
            beside="while nothing is",
            beside_value=quiet.longest_ms(),
            goal="< 100 ms",
        ),
        figure(
            "taking them, payments meanwhile", took_s, "s", beside="lists", beside_value=len(lists)
        ),
        figure(
            "memory that they take",
            grown_mib,
            "MiB",
            beside="on disk, MiB",
            beside_value=disk / 2**20,
        ),
        figure(
            "start with them", started_s, "s", beside="the goal", beside_value=10, goal="< 10 s"
        ),
    ]


async def measure() -> list[Figure]:
    """All of it on one list."""
    issuer, items = LiveIssuer(), random_ids(IDS)
    lists = signed(issuer, items)
    made = [*sizes(issuer, lists), *lookups(items)]
    del items
    gc.collect()
    return made + await taking(lists, issuer)


def run() -> list[Figure]:
    """Measure."""
    return uvloop.run(measure())
