"""A process that has imported the project's programs and forks them; see `programs`.

Over a socket of packets it gets what to run, with the three streams and a pipe: there it tells the
number of the new process, and its exit code when it ended. What still runs when nobody holds the
other end of the socket is killed.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# The entry points of pyproject.toml.
PROGRAMS = {"edge.cli": "run", "edge.pos.cli": "run", "cloud.cli": "main"}
PACKET_BYTES_MAX = 128 * 1024
STOP_TIMEOUT_S = 20
_FILES_MAX = 1024
_NUMBER_BYTES = 8


class Forker:
    """Our end; the process begins with the first program."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def __enter__(self) -> Forker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._process is not None and self._socket is not None:
            self._socket.close()
            self._process.wait(STOP_TIMEOUT_S)

    def connection(self) -> socket.socket:
        """The socket."""
        if self._socket is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            command = [sys.executable, "-m", "tests.support.forking", str(theirs.fileno())]
            # Whoever runs tests at a terminal interrupts them, not their programs.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, process_group=0
            )
            theirs.close()
        return self._socket


def ask(
    forker: Forker,
    module: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    folder: Path,
    streams: list[int],
) -> int:
    """Have a program started; the end of the pipe at which its number and its end are told."""
    wish = json.dumps([module, arguments, environment, str(folder)]).encode()
    told, tells = os.pipe()
    socket.send_fds(forker.connection(), [wish], [*streams, tells])
    os.close(tells)
    return told


def serve(connection: socket.socket) -> int:
    """Fork what is asked for until nobody asks any more; in a new process, be the program."""
    programs = {name: getattr(importlib.import_module(name), PROGRAMS[name]) for name in PROGRAMS}
    gc.freeze()
    running: dict[int, int] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakes)
    while True:
        ready, _, _ = select.select([connection.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, _FILES_MAX)
            _bury(running)
        if connection.fileno() in ready:
            wish, numbers, _, _ = socket.recv_fds(connection, PACKET_BYTES_MAX, 4)
            if not wish:
                break
            pid = os.fork()
            if pid == 0:
                return _become(programs, wish, numbers)
            running[pid] = numbers.pop()
            _write_number(running[pid], pid)
            for number in numbers:
                os.close(number)
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return 0


def _bury(running: dict[int, int]) -> None:
    """Tell the ends of those that ended."""
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        told = running.pop(pid)
        # Perhaps nobody waits for it any more.
        with contextlib.suppress(BrokenPipeError):
            _write_number(told, os.waitstatus_to_exitcode(status))
        os.close(told)


def read_number(told: int) -> int:
    """The next number from the pipe: that of the process, then its exit code."""
    return int.from_bytes(os.read(told, _NUMBER_BYTES), signed=True)


def _write_number(told: int, number: int) -> None:
    os.write(told, number.to_bytes(_NUMBER_BYTES, signed=True))


def _become(programs: dict[str, Callable[[], int]], wish: bytes, numbers: list[int]) -> int:
    """Be a program: its streams, its environment, nothing of the process that forked it."""
    module, arguments, environment, folder = json.loads(wish)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for place, number in enumerate(numbers[:3]):
        os.dup2(number, place)
    os.closerange(3, _FILES_MAX)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # What it starts in its turn has tests of its own, and starts sooner without being measured.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv = [module, *arguments]
    return programs[module]()


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
