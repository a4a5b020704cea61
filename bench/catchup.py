"""A branch that was away for a month: a million entries go to a real cloud, segment by segment.

The journal and the line's engine are a gateway's own, over mutual TLS on loopback; the cloud has an
embedded PostgreSQL with fsync. All of it but PostgreSQL and the verifiers is one process. It takes
many minutes, and runs when it is named.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop
import zstandard

from bench.branch import Purse
from bench.figures import Figure, figure, verify_pair
from cloud.config import Config, DatabaseConfig
from cloud.database import open_database
from cloud.issuer import policies
from edge.folder import Folder
from edge.gateway import Opened
from edge.journal_port import JournalPort
from sync.engine import Engine, Surroundings
from sync.transport import Credentials, HttpsTransport
from tests.support.recovery import Box, Story, told
from wallet.clock import SystemClock
from wallet.journal.engine import Waiting
from wallet.journal.trust import Facts
from wallet.memory import collect_seldom
from wallet.protocol.entry import Payment
from wallet.protocol.messages import decode_order
from wallet.protocol.refusals import Refusal

ENTRIES = 1_000_000
PURSES = 40
FUNDED_MINOR = 20_000
CHUNK = 10_000
SESSIONS_MAX = 1_000
TIMEOUT_S = 600
SEGMENT_BYTES = 4 * 1024 * 1024
LEVEL = 3
# Nothing is reached of what ends a branch's time alone.
TIER = {1: 10**6, 2: 1}
JOURNAL = {102: 10**12, 104: 10**9, 105: 10**6, 106: 86_400, 112: 10**7, 116: 86_400, 118: 86_400}


class Holder:
    """A purse as the cloud enrols it."""

    def __init__(self, number: int) -> None:
        self.purse = Purse(number)
        self.public = self.purse.key


async def enrolled(story: Story) -> tuple[Box, list[Holder]]:
    """A gateway whose wallets have money."""
    holders = [Holder(number) for number in range(1, PURSES + 1)]
    async with story.database.transaction() as connection:
        await policies.next_policy(
            connection,
            story.cloud.cloud.desk,
            "EUR",
            tiers={0: TIER, 1: TIER},
            journal=JOURNAL,
            actor="bench",
            now_ms=story.cloud.clock.now_ms(),
        )
    box = await story.gateway("north")
    for holder in holders:
        await story.enrol(box, holder)  # type: ignore[arg-type]  # its public half is all that counts
        await story.fund(box, holder, FUNDED_MINOR)  # type: ignore[arg-type]  # likewise
    await box.sync()
    return box, holders


async def pay(opened: Opened, holders: list[Holder]) -> None:
    """Payments up to the size; their signatures are checked at the cloud, and not here."""
    journal, loop = opened.journal, asyncio.get_running_loop()
    place, number = journal.state.journal, 0
    while (missing := ENTRIES - journal.state.size) > 0:
        waiting = []
        for _ in range(min(CHUNK, missing)):
            payer, payee = holders[number % PURSES], holders[(number + 1) % PURSES]
            number += 1
            raw = payer.purse.order(payee.public.id, journal=place, payee_journal=place, amount=1)
            order = decode_order(raw)
            facts = Facts(trusted=(order.signed,))
            waiting.append(Waiting(Payment(order=order), loop.create_future(), facts))
        for item in waiting:
            journal._engine.submit(item)
        for outcome in await asyncio.gather(*[item.future for item in waiting]):
            if isinstance(outcome, Refusal):
                raise RuntimeError(f"refused: {outcome.code} {outcome.detail}")


async def sizes(opened: Opened) -> tuple[int, int]:
    """Bytes of all entries, and what zstd makes of them in segments."""
    raw = packed = 0
    part: list[bytes] = []
    packer = zstandard.ZstdCompressor(level=LEVEL)
    for first in range(0, opened.journal.state.size, CHUNK):
        part += await opened.journal.entries(first, CHUNK)
        if (size := sum(map(len, part))) >= SEGMENT_BYTES or first + CHUNK >= ENTRIES:
            raw, packed = raw + size, packed + len(packer.compress(b"".join(part)))
            part = []
    return raw, packed


async def send(opened: Opened, box: Box) -> tuple[float, int, int]:
    """Seconds until the issuer holds all, and bytes sent and received."""
    named = opened.identity
    credentials = Credentials(
        authority=named.cloud_ca,
        certificate=named.transport_certificate,
        key=named.transport_key,
    )
    url = f"https://127.0.0.1:{box.story.cloud.ports['gateway_port']}"
    transport = HttpsTransport(credentials, url=url, timeout_s=TIMEOUT_S)
    port = JournalPort(opened, folder=Folder(box.folder), clock=SystemClock())
    engine = Engine(
        port,
        transport,
        surroundings=Surroundings(clock=SystemClock()),
        tell=lambda name, **data: None,
    )
    task, goal = asyncio.create_task(engine.run()), opened.journal.state.size
    start = time.perf_counter()
    for _ in range(SESSIONS_MAX):
        outcome = await engine.now()
        if opened.journal.acknowledged >= goal:
            break
        if outcome[0] != "completed":
            raise RuntimeError(f"the session failed: {outcome[1]}")
    took_s = time.perf_counter() - start
    traffic = transport.traffic()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return took_s, traffic.sent, traffic.received


async def measure() -> list[Figure]:
    """Fill a journal without a line, then let it have one."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = Config(folder=folder / "store", database=DatabaseConfig())
        config.folder.mkdir(mode=0o755)
        now_ms = time.time_ns() // 1_000_000
        async with (
            open_database(config, now_ms=now_ms) as database,
            told(database, folder) as story,
        ):
            box, holders = await enrolled(story)
            async with box.running(offline=True) as branch:
                opened, before = branch.opened, branch.opened.journal.acknowledged
                await pay(opened, holders)
                raw, packed = await sizes(opened)
                collect_seldom()
                took_s, sent, received = await send(opened, box)
                entries = opened.journal.state.settled_size - before
            await story.where()
    with verify_pair() as ceiling:
        verified = ceiling()
    return [
        figure(
            f"catch-up of {ENTRIES:,} entries",
            entries / took_s,
            "entries/s",
            beside="libsodium verify, two processes",
            beside_value=verified,
        ),
        figure("its time", took_s, "s", beside="entries, raw, MiB", beside_value=raw / 2**20),
        figure(
            "bytes sent for an entry, all counted",
            sent / entries,
            "bytes",
            beside="the entry",
            beside_value=raw / ENTRIES,
        ),
        figure(
            "bytes received for an entry",
            received / entries,
            "bytes",
            beside="zstd -3 of the entry, in segments",
            beside_value=packed / ENTRIES,
        ),
    ]


def run() -> list[Figure]:
    """Measure."""
    return uvloop.run(measure())
