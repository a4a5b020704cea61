"""The programs of the demo as processes: each command as an operator would type it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from pathlib import Path

from edge.errors import DaemonRefused, DaemonSilent
from edge.folder import Folder
from edge.http.local import SyncAnswer
from edge.http.types import GatewayAnswer
from edge.local_client import LocalClient
from edge.pos.terminal import Terminal

START_S = 60
COMMAND_S = 120
_EDGE_PORTS = ("port", "pairing_port", "metrics_port")
_CLOUD_PORTS = ("gateway_port", "api_port")


class CommandFailed(Exception):
    """A command of the demo that did not end well."""

    code = "demo-command-failed"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def command(
    module: str,
    *arguments: str,
    environment: dict[str, str] | None = None,
    alone: bool = False,
) -> str:
    """Run one command to its end; its output. `alone`: without any network, where that can be.

    Raises: CommandFailed.
    """
    lonely = ("unshare", "--net") if alone and os.geteuid() == 0 and shutil.which("unshare") else ()
    process = await asyncio.create_subprocess_exec(
        *(*lonely, sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    async with asyncio.timeout(COMMAND_S):
        out, errors = await process.communicate()
    if process.returncode != 0:
        raise CommandFailed(f"{module} {' '.join(arguments)}: {errors.decode()[-1000:]}")
    return out.decode()


class Program:
    """A program that goes on, with its log beside its folder."""

    def __init__(self, module: str, folder: Path, ports: tuple[str, ...]) -> None:
        self.folder = folder
        self._module = module
        # Chosen once: a program that is started again is found where it was.
        self.options = [
            part for name in ports for part in ("--set", f"listen.{name}={free_port()}")
        ]
        self._environment = {"CBDC_EDGE_PASSPHRASE": "demo"}
        self.process: asyncio.subprocess.Process | None = None

    async def run_command(self, *arguments: str) -> str:
        """A command of the same program on the same folder."""
        return await command(
            self._module,
            *("--folder", str(self.folder), *arguments),
            environment=self._environment,
        )

    async def start(self) -> None:
        """Start it and wait until it says where it listens."""
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        with self.folder.with_suffix(".log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self._module, "--folder", str(self.folder)),
                *(*self.options, "run"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
            )
        async with asyncio.timeout(START_S):
            while not ports.exists():
                if self.process.returncode is not None:
                    raise CommandFailed(f"{self._module} ended at its start: see {log.name}")
                await asyncio.sleep(0.05)

    def port(self, name: str) -> int:
        """A port that it listens on."""
        found: dict[str, int] = json.loads((self.folder / "ports.json").read_text())
        return found[name]

    async def kill(self) -> None:
        """SIGKILL: as if the power went."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            async with asyncio.timeout(START_S):
                await self.process.wait()


def cloud_program(folder: Path) -> Program:
    """The cloud, with its embedded PostgreSQL."""
    return Program("cloud.cli", folder, _CLOUD_PORTS)


class Gateway(Program):
    """A branch gateway and what the demo asks of it."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__("edge.cli", folder, _EDGE_PORTS)
        self.options += ["--set", f"technician.listen=127.0.0.1:{free_port()}"]
        # It synchronises when the story says so.
        self.options += ["--set", "sync.interval_s=86400"]
        self.name = name
        self._local = LocalClient(Folder(folder))

    async def start(self) -> None:
        """Start it and wait until it takes payments."""
        await super().start()
        async with asyncio.timeout(START_S):
            mode = ""
            while mode != "open":
                mode = (await self.status()).mode
                await asyncio.sleep(0.02)

    async def status(self) -> GatewayAnswer:
        """What it says of itself."""
        while True:
            try:
                return await self._local.call("GET", "/status", GatewayAnswer)
            except (DaemonSilent, DaemonRefused):
                await asyncio.sleep(0.05)

    async def synchronise(self) -> None:
        """`cbdc-edge sync now`. Raises: CommandFailed when the exchange fails."""
        done = await self._local.call("POST", "/sync", SyncAnswer, body={})
        if done.result != "completed":
            raise CommandFailed(f"{self.name} did not synchronise: {done.detail}")

    async def pair(self, folder: Path) -> Terminal:
        """Pair a terminal: code and short authentication string, as two people do it."""
        technician = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge.cli", "--folder", str(self.folder)),
            *("device", "pair", "--yes-if-sas", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if technician.stdout is None:
            raise CommandFailed("no output of the pairing")
        code = (await technician.stdout.readline()).decode().split()[1]
        till = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge.pos.cli", "--folder", str(folder), "pair"),
            f"https://127.0.0.1:{self.port('pairing_port')}",
            f"https://127.0.0.1:{self.port('port')}",
            *("--name", folder.name),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "CBDC_POS_CODE": code},
        )
        if till.stdout is None:
            raise CommandFailed("no output of the till")
        shown = (await till.stdout.readline()).decode().split()[-1]
        await technician.communicate(shown.encode() + b"\n")
        await till.communicate()
        if technician.returncode or till.returncode:
            raise CommandFailed(f"pairing with {self.name} failed")
        return Terminal.load(folder)
