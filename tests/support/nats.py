"""NATS servers with JetStream for a test: processes of their own, on loopback and free ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import nats
import nats.errors
import nats.js.errors

from cloud.stream.settings import StreamConfig

LOOPBACK = "127.0.0.1"
SERVER = Path(sys.executable).with_name("nats-server")
START_S = 30.0
# Quick enough for a test; the same kinds of waits as in production.
QUICK = {"bytes_max": 64 << 20, "ack_wait_s": 2, "request_timeout_s": 2, "connect_timeout_s": 10}


class NatsServer:
    """One node: `start`, `kill` (SIGKILL) and `start` again keep its port and its files."""

    def __init__(self, folder: Path, name: str, *, port: int, more: str = "") -> None:
        self.name = name
        self.port = port
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._configuration = self._folder / "nats.conf"
        self._configuration.write_text(
            f'server_name: "{name}"\nhost: "{LOOPBACK}"\nport: {port}\n'
            f'jetstream {{ store_dir: "{self._folder / "data"}", max_file_store: 4GB }}\n{more}'
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"nats://{LOOPBACK}:{self.port}"

    def launch(self) -> None:
        """Start the process; `wait` says when it listens."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [SERVER, "-c", self._configuration], stdout=log, stderr=log
            )

    async def wait(self) -> None:
        """Until it listens."""
        async with asyncio.timeout(START_S):
            while True:
                assert self._process is not None
                assert self._process.poll() is None, (self._folder / "log").read_text()
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(LOOPBACK, self.port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)

    async def start(self) -> None:
        """Both."""
        self.launch()
        await self.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(START_S)
            self._process = None


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in held]


@contextlib.asynccontextmanager
async def nats_server(folder: Path, *, more: str = "") -> AsyncIterator[NatsServer]:
    """One node while the block runs."""
    server = NatsServer(folder, "one", port=free_ports(1)[0], more=more)
    await server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def nats_cluster(folder: Path, *, nodes: int = 3) -> AsyncIterator[list[NatsServer]]:
    """Nodes that keep every message of three, once they have found each other."""
    ports, routes = free_ports(nodes), free_ports(nodes)
    names = [f"n{number}" for number in range(nodes)]
    listed = ", ".join(f'"nats://{LOOPBACK}:{port}"' for port in routes)
    servers = []
    for name, port, route in zip(names, ports, routes, strict=True):
        more = f'cluster {{ name: "c", host: "{LOOPBACK}", port: {route}, routes: [{listed}] }}\n'
        servers.append(NatsServer(folder, name, port=port, more=more))
    try:
        for server in servers:
            server.launch()
        for server in servers:
            await server.wait()
        await _has_leader(servers[0])
        yield servers
    finally:
        for server in servers:
            server.stop()


async def _has_leader(server: NatsServer) -> None:
    """Until the nodes agree who makes streams."""
    client = await nats.connect(server.url)
    try:
        async with asyncio.timeout(START_S):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    await client.jetstream(timeout=1).account_info()
                    return
                await asyncio.sleep(0.05)
    finally:
        await client.close()


async def leader_of(servers: list[NatsServer], stream: str) -> NatsServer:
    """The node that orders the messages of a stream."""
    client = await nats.connect([server.url for server in servers])
    try:
        info = await client.jetstream().stream_info(stream)
    finally:
        await client.close()
    assert info.cluster is not None
    return next(server for server in servers if server.name == info.cluster.leader)


def stream_config(*servers: NatsServer, **changed: Any) -> StreamConfig:
    """The configuration of these servers."""
    replicas: Any = 3 if len(servers) >= 3 else 1
    values: dict[str, Any] = {"replicas": replicas, **QUICK, **changed}
    return StreamConfig(servers=tuple(server.url for server in servers), **values)


def write_config(path: Path, config: StreamConfig, dsns: Sequence[str]) -> Path:
    """A configuration of the programs: the stream, and their databases, the head first."""
    lines = [f"[database]\ndsn = {json.dumps(dsns[0])}"]
    lines += [f"[[database.shards]]\ndsn = {json.dumps(dsn)}" for dsn in dsns[1:]]
    lines.append("[stream]")
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if value is not None:
            lines.append(f"{name} = {json.dumps(value)}")
    path.write_text("\n".join(lines) + "\n")
    return path
