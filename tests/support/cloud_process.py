"""The cloud as a process of its own, with its commands and its API, as people run them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.programs import PIPE, ROOT, Process, Stream, start_program

WAIT_S = 60


class CloudProcess:
    """A cloud in a folder. `config`: a file with its configuration."""

    def __init__(
        self,
        folder: Path,
        *,
        config: Path | None = None,
        prefix: tuple[str, ...] = (),
        settings: tuple[str, ...] = (),
    ) -> None:
        """`prefix`: a program that runs it, and its arguments; `settings`: of its configuration."""
        self.folder = folder
        # Where it is found; see the setting `listen.host`.
        self.host = "127.0.0.1"
        self._settings = [part for text in settings for part in ("--set", text)]
        self.log = folder.parent / f"{folder.name}.log"
        self.process: Process | None = None
        self._listen = {"gateway_port": 0, "api_port": 0}
        self._prefix = prefix
        self._program = ["cloud.cli", "--folder", str(folder)]
        if config is not None:
            self._program += ["--config", str(config)]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """`cbdc-cloud` on this folder: (exit code, output, errors)."""
        process = await self._start(*arguments)
        async with asyncio.timeout(WAIT_S):
            out, errors = await process.communicate()
        return process.returncode or 0, out.decode(), errors.decode()

    async def _start(self, *arguments: str, output: Stream = PIPE) -> Process:
        return await start_program(
            *(*self._program, *arguments),
            environment=self._environment,
            prefix=self._prefix,
            stdout=output,
            stderr=output,
        )

    async def start(self) -> None:
        """Run it on free ports, after that on the same ones; wait until it listens."""
        (self.folder / "ports.json").unlink(missing_ok=True)
        values = [f"listen.{name}={port}" for name, port in self._listen.items()]
        flags = [part for value in values for part in ("--set", value)] + self._settings
        with self.log.open("ab") as log:
            self.process = await self._start(*flags, "run", output=log)
        async with asyncio.timeout(WAIT_S):
            while not (self.folder / "ports.json").exists():
                if self.process.returncode is not None:
                    raise AssertionError(f"the cloud ended: {self.log.read_text()[-4000:]}")
                await asyncio.sleep(0.05)
        self._listen = self.ports

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    @contextlib.asynccontextmanager
    async def worker(self, name: str) -> AsyncIterator[WorkerProcess]:
        """A worker of this cloud while the block runs."""
        log = self.folder.parent / f"{self.folder.name}-{name}.log"
        with log.open("ab") as stream:
            process = await self._start("worker", output=stream)
        worker = WorkerProcess(process, log)
        try:
            yield worker
        finally:
            await worker.stop()

    @property
    def ports(self) -> dict[str, int]:
        """Where it listens."""
        found: dict[str, int] = json.loads((self.folder / "ports.json").read_text())
        return found

    @property
    def gateway_url(self) -> str:
        """Where gateways find it."""
        return f"https://{self.host}:{self.ports['gateway_port']}"

    @property
    def authority(self) -> str:
        """The CA of its certificate, in PEM."""
        return (self.folder / "transport-ca.pem").read_text()

    def officer_file(self, name: str) -> Path:
        """The token of one of the first two officers."""
        return self.folder / f"officer-{name}.token"

    def officer(self, name: str) -> str:
        """The same, as text."""
        return self.officer_file(name).read_text()

    @contextlib.asynccontextmanager
    async def api(self, token: str | None = None) -> AsyncIterator[Api]:
        """Calls by somebody."""
        tls = ssl.create_default_context(cadata=self.authority)
        url = f"https://{self.host}:{self.ports['api_port']}"
        async with aiohttp.ClientSession(
            url, connector=aiohttp.TCPConnector(ssl=tls), timeout=aiohttp.ClientTimeout(WAIT_S)
        ) as session:
            yield Api(session, token)


class WorkerProcess:
    """`cbdc-cloud worker` beside a cloud."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self._log = log

    async def ready(self) -> str:
        """Wait until it works; the name by which it shares partitions."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for line in self.lines("worker.ready"):
                    return str(line["name"])
                assert self.process.returncode is None, self._log.read_text()[-4000:]
                await asyncio.sleep(0.05)

    def lines(self, action: str) -> list[dict[str, Any]]:
        """What it logged under an action; the last line may be half written."""
        found = []
        for text in self._log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                line = json.loads(text)
                if line.get("action") == action:
                    found.append(line)
        return found

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()


class Api:
    """Calls with one token: (status, value)."""

    def __init__(self, session: aiohttp.ClientSession, token: str | None) -> None:
        self.session = session
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def get(self, path: str) -> tuple[int, Any]:
        """A GET."""
        return await self.raw("GET", path, None)

    async def post(self, path: str, body: Any, *, key: str | None = None) -> tuple[int, Any]:
        """A POST of JSON."""
        return await self.raw("POST", path, json.dumps(body).encode(), key=key)

    async def raw(
        self, method: str, path: str, body: bytes | None, *, key: str | None = None
    ) -> tuple[int, Any]:
        """Any call."""
        headers = {**self._headers, "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        async with self.session.request(method, path, data=body, headers=headers) as response:
            return response.status, json.loads(await response.read())


@contextlib.asynccontextmanager
async def running_cloud(folder: Path, *, config: Path | None = None) -> AsyncIterator[CloudProcess]:
    """A new cloud that runs while the block does."""
    cloud = CloudProcess(folder, config=config)
    code, out, errors = await cloud.command("init")
    assert code == 0, (out, errors)
    try:
        await cloud.start()
        yield cloud
    finally:
        await cloud.stop()
