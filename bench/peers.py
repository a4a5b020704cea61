"""Peers that run here: Nutshell (a Cashu mint) and PostgreSQL's pgbench, beside our engine.

What they do that we don't, and the other way round, stands in README beside the figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from bench.branch import bench_journal
from bench.engine import CALLERS, PAYMENTS, rate_of
from bench.figures import Figure, figure
from cloud.embedded import EmbeddedPostgres
from cloud.runner import programs_folder

# The versions that Nutshell 0.20 needs and does not ask for.
NUTSHELL = ("cashu==0.20.2", "marshmallow<4", "limits<4")
VENV = Path(".build/peers/nutshell")
SWAPS = 60
SETTLE_S = 30
PGBENCH_S = 8
PGBENCH_CLIENTS = 8


def install_nutshell() -> None:
    """A virtual environment of its own, once."""
    if (VENV / "installed").exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *NUTSHELL], check=True, stdout=sys.stderr)
    (VENV / "installed").touch()


@contextlib.contextmanager
def mint(folder: Path) -> Iterator[str]:
    """Nutshell's mint with its fake Lightning backend and SQLite, on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {
        **os.environ,
        "MINT_PRIVATE_KEY": "bench",
        "MINT_BACKEND_BOLT11_SAT": "FakeWallet",
        "MINT_DATABASE": str(folder / "mint"),
        "MINT_LISTEN_HOST": "127.0.0.1",
        "MINT_LISTEN_PORT": str(port),
        "MINT_INPUT_FEE_PPK": "0",
        "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
        "TOR": "FALSE",
        "CASHU_DIR": str(folder),
    }
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([VENV / "bin" / "mint"], env=environment, stdout=quiet, stderr=quiet)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        # The mint says nothing when it is up: its port is asked until the deadline.
        time.sleep(0.1)
    raise TimeoutError("the mint does not answer")


def nutshell_rate() -> float:
    """Swaps a second of one wallet against the mint."""
    install_nutshell()
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name, mint(Path(name)) as url:
        command = [
            str(VENV / "bin" / "python"),
            "bench/nutshell.py",
            url,
            f"{name}/wallet",
            str(SWAPS),
        ]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={**os.environ, "TOR": "FALSE", "CASHU_DIR": name},
        )
    found = re.search(r"swaps/s ([0-9.]+)", done.stdout)
    if found is None:
        raise RuntimeError("Nutshell's wallet did not finish")
    return float(found[1])


async def pgbench_rate() -> float:
    """TPC-B like transactions a second, with fsync: debit and credit, no signatures."""
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        Path(name).chmod(0o755)
        server = await EmbeddedPostgres.start(Path(name) / "postgres")
        try:
            dsn = await server.ensure_database("bench")
            program = programs_folder() / "pgbench"
            await asyncio.to_thread(_pgbench, program, "-i", "-q", "-s", "4", dsn)
            options = ("-c", str(PGBENCH_CLIENTS), "-j", "2", "-T", str(PGBENCH_S))
            told = await asyncio.to_thread(_pgbench, program, *options, dsn)
        finally:
            await server.stop()
    found = re.search(r"tps = ([0-9.]+)", told)
    if found is None:
        raise RuntimeError(f"pgbench said: {told[-300:]}")
    return float(found[1])


def _pgbench(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


async def engine_rate() -> float:
    """Our engine in one process, both cores allowed, as the peers have them."""
    async with bench_journal() as bench:
        await rate_of(bench, bench.orders(2_000), callers=CALLERS)
        rate, _ = await rate_of(bench, bench.orders(PAYMENTS), callers=CALLERS)
    return rate


async def measure() -> list[Figure]:
    """The same engine beside each peer."""
    rate = await engine_rate()
    swaps = await asyncio.to_thread(nutshell_rate)
    transactions = await pgbench_rate()
    name = "engine in process, durable, with receipts"
    return [
        figure(
            name,
            rate,
            "payments/s",
            beside="Nutshell, swaps of one wallet, SQLite",
            beside_value=swaps,
        ),
        figure(
            name,
            rate,
            "payments/s",
            beside="pgbench TPC-B, 8 clients, no signatures",
            beside_value=transactions,
        ),
    ]


def run() -> list[Figure]:
    """Measure."""
    return uvloop.run(measure())
