"""Start-up with a long journal, and memory over many payments."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from bench.branch import WALLETS, Bench, taken
from bench.engine import CALLERS, rate_of
from bench.figures import Figure, figure, peak_mib, resident_mib
from tests.support.live_issuer import LiveIssuer
from wallet.journal.engine import Waiting
from wallet.journal.trust import Facts
from wallet.protocol.entry import Payment
from wallet.protocol.messages import decode_order

ENTRIES = 1_000_000
CHUNK = 10_000
SETTLED_EVERY = 100_000
FLAT_FROM, FLAT_TO = 20_000, 220_000
OPEN = "--open"


async def fill(bench: Bench, entries: int) -> None:
    """Write payments through the engine; their signatures are not what is measured here."""
    engine, settled = bench.journal._engine, 0
    while (missing := entries - bench.journal.state.size) > 0:
        payments = [decode_order(raw) for raw in bench.orders(min(CHUNK, missing))]
        loop = asyncio.get_running_loop()
        waiting = [
            Waiting(Payment(order=order), loop.create_future(), Facts(trusted=(order.signed,)))
            for order in payments
        ]
        for item in waiting:
            engine.submit(item)
        for outcome in await asyncio.gather(*[item.future for item in waiting]):
            taken(outcome)
        if bench.journal.state.size - settled >= SETTLED_EVERY:
            settled = bench.journal.state.size
            await bench.settle()


async def _open(folder: Path, root: bytes) -> None:
    """In a process of its own: open the journal and say how long it took, and the peak."""
    issuer = LiveIssuer()
    issuer.root = root
    bench = Bench(folder, issuer)
    start = time.perf_counter()
    await bench.reopen()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak": peak_mib(), "size": bench.journal.state.size}))
    await bench.close()


async def measure() -> list[Figure]:
    """Fill a journal, kill the process that holds it, open it anew; then pay and watch memory."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        folder = Path(name)
        bench = Bench(folder, LiveIssuer())
        await bench.create()
        await fill(bench, ENTRIES)
        (folder / "root.der").write_bytes(bench.issuer.root)
        await bench.close()
        command = [sys.executable, "-m", "bench.startup", OPEN, str(folder)]
        opened = json.loads(await asyncio.to_thread(subprocess.check_output, command))
    flat = await flatness()
    return [
        figure(
            f"start with {opened['size']:,} entries",
            opened["seconds"],
            "s",
            beside="the goal",
            beside_value=10,
            goal="< 10 s",
        ),
        figure(
            "peak memory of that start",
            opened["peak"],
            "MiB",
            beside="the goal",
            beside_value=500,
            goal="< 500 MiB",
        ),
        flat,
    ]


async def flatness() -> Figure:
    """Resident memory after 220,000 payments beside that after 20,000."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        bench = Bench(Path(name), LiveIssuer())
        await bench.create()
        early = 0.0
        while bench.journal.state.size < FLAT_TO + 2 * WALLETS:
            await rate_of(bench, bench.orders(CHUNK), callers=CALLERS)
            await bench.settle()
            if bench.journal.state.size >= FLAT_FROM and not early:
                early = resident_mib()
        late = resident_mib()
        await bench.close()
    return figure(
        "memory after 220,000 payments",
        late,
        "MiB",
        beside="after 20,000",
        beside_value=early,
        goal="flat: about 1",
    )


def run() -> list[Figure]:
    """Measure."""
    return uvloop.run(measure())


if __name__ == "__main__" and OPEN in sys.argv:
    place = Path(sys.argv[-1])
    uvloop.run(_open(place, (place / "root.der").read_bytes()))
