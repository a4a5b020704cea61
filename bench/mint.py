"""Nutshell, a Cashu mint, as a process of its own, and the swaps that are fired at it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import cpu_seconds, percentile
from bench.loadtool import accepted, closed_loop, connect, request_of

HERE = Path(__file__).parent
LOCK = HERE / "nutshell.lock"
VENV = Path(".build/peers/nutshell").absolute()
PATH = "/v1/swap"
JSON = "application/json"
START_S = 30
PREPARE_S = 120


def install() -> None:
    """A virtual environment of its own from the lock file, once for each state of the lock."""
    installed = VENV / "installed"
    if installed.exists() and installed.read_bytes() == LOCK.read_bytes():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(VENV / "bin" / "pip"), "install", "-qq", "--disable-pip-version-check"]
    command = [*pip, "--require-hashes", "--no-deps", "-r", str(LOCK)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    installed.write_bytes(LOCK.read_bytes())


def version() -> str:
    """The version of Nutshell in the lock."""
    lines = LOCK.read_text().splitlines()
    (found,) = [line.split()[0] for line in lines if line.startswith("cashu==")]
    return found.removeprefix("cashu==")


class Mint:
    """A running mint. `swap` measures it."""

    def __init__(self, port: int, process_id: int) -> None:
        self._port = port
        self._process_id = process_id
        self._swaps = list[bytes]()

    def prepare(self, count: int) -> None:
        """Have so many swaps ready: minted, blinded and serialised by Nutshell's own code."""
        url = f"http://127.0.0.1:{self._port}"
        command = [str(VENV / "bin" / "python"), str(HERE / "nutshell.py"), url, str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=PREPARE_S)
        bodies = done.stdout.splitlines()
        self._swaps += [request_of(PATH, body, content_type=JSON) for body in bodies]

    async def swap(self, count: int, *, clients: int) -> tuple[float, float, float]:
        """(swaps a second, their p95 in seconds, the mint's seconds of CPU for each).

        Raises: RuntimeError if the mint did not accept every one.
        """
        swaps, self._swaps = self._swaps[:count], self._swaps[count:]
        connections = await connect(self._port, None, clients)
        before = cpu_seconds(self._process_id)
        load = accepted(await closed_loop(connections, swaps), status=200)
        cpu = cpu_seconds(self._process_id) - before
        for connection in connections:
            connection.close()
        return load.rate, percentile(load.seconds, 0.95), cpu / len(swaps)


@contextlib.contextmanager
def mint() -> Iterator[Mint]:
    """Nutshell with its fake Lightning backend and SQLite, on loopback.

    No limit of requests, no fees and no access log: what would slow it down for other reasons.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as folder:
        environment = {
            **os.environ,
            "CASHU_DIR": folder,
            "FAKEWALLET_DELAY_INCOMING_PAYMENT": "0",
            "LOG_LEVEL": "WARNING",
            "MINT_AUTH_DATABASE": f"{folder}/auth",
            "MINT_BACKEND_BOLT11_SAT": "FakeWallet",
            "MINT_DATABASE": f"{folder}/mint",
            "MINT_INPUT_FEE_PPK": "0",
            "MINT_LISTEN_HOST": "127.0.0.1",
            "MINT_LISTEN_PORT": str(port),
            "MINT_PRIVATE_KEY": "bench",
            "MINT_RATE_LIMIT": "FALSE",
            "TOR": "FALSE",
        }
        command, quiet = [VENV / "bin" / "mint"], subprocess.DEVNULL
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=quiet, stderr=quiet)
        try:
            _wait_for(port)
            yield Mint(port, process.pid)
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        # The mint says nothing when it is up: its port is asked until the deadline.
        time.sleep(0.1)
    raise TimeoutError("the mint does not answer")
