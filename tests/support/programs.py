"""Starts the project's programs as processes.

Where a `conftest.py` says `forked_programs()`, they are forked from one process that has imported
them: each is a process of its own with its own environment and streams, and starts in some 30 ms
instead of a second. Whoever enters namespaces or runs beneath another program starts them anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tests.support.forking import Forker, ask, read_number

ROOT = Path(__file__).resolve().parents[2]
PIPE, NOTHING = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
# What the loader reads before a program does: a fork would have it too late.
_OF_THE_LOADER = ("LD_PRELOAD", "LD_LIBRARY_PATH")
_forker: Forker | None = None


class Forked:
    """A forked program; what tests use of `asyncio.subprocess.Process`."""

    stdin: asyncio.StreamWriter | None = None
    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None

    def __init__(self, pid: int, told: int) -> None:
        """`told`: the pipe at which its end is told."""
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(told, self._end, told)

    def _end(self, told: int) -> None:
        asyncio.get_running_loop().remove_reader(told)
        self.returncode = read_number(told)
        os.close(told)
        self._ended.set()

    async def wait(self) -> int:
        """Its exit code; of a signal the number below zero."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, stdin: bytes | None = None) -> tuple[bytes, bytes]:
        """Give it its input and read what it says until its end."""
        if self.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.stdin.write(stdin or b"")
                await self.stdin.drain()
            self.stdin.close()
        out, errors = await asyncio.gather(_all_of(self.stdout), _all_of(self.stderr))
        await self.wait()
        return out, errors

    def send_signal(self, number: int) -> None:
        """A signal; nothing to one that ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


Process = asyncio.subprocess.Process | Forked
Stream = int | IO[bytes]


@contextlib.contextmanager
def forked_programs() -> Iterator[None]:
    """Fork programs while the block runs."""
    global _forker
    with Forker() as _forker:
        yield
    _forker = None


async def start_program(
    module: str,
    *arguments: str,
    environment: dict[str, str],
    prefix: tuple[str, ...] = (),
    stdin: Stream = NOTHING,
    stdout: Stream = PIPE,
    stderr: Stream = PIPE,
) -> Process:
    """`python -m module`, in the project's folder. `prefix`: a program that runs it."""
    apart = prefix or any(name in environment for name in _OF_THE_LOADER)
    if _forker is not None and not apart:
        return await _fork(_forker, module, arguments, environment, (stdin, stdout, stderr))
    return await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, "-m", module, *arguments),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=ROOT,
    )


async def _fork(
    forker: Forker,
    module: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    streams: tuple[Stream, Stream, Stream],
) -> Forked:
    theirs: list[int] = []
    ours: list[int | None] = []
    opened: list[int] = []
    for place, stream in enumerate(streams):
        if isinstance(stream, int) and stream == PIPE:
            ends = os.pipe()
            theirs.append(ends[0] if place == 0 else ends[1])
            ours.append(ends[1] if place == 0 else ends[0])
            opened.append(theirs[-1])
            continue
        if isinstance(stream, int) and stream == NOTHING:
            opened.append(os.open(os.devnull, os.O_RDWR))
            stream = opened[-1]
        theirs.append(stream if isinstance(stream, int) else stream.fileno())
        ours.append(None)
    try:
        told = ask(forker, module, arguments, environment, ROOT, theirs)
    finally:
        for number in opened:
            os.close(number)
    # The first one waits until all programs are imported.
    forked = Forked(await asyncio.to_thread(read_number, told), told)
    stdin, out, errors = ours
    forked.stdin = None if stdin is None else await _writer(stdin)
    forked.stdout = None if out is None else await _reader(out)
    forked.stderr = None if errors is None else await _reader(errors)
    return forked


async def _reader(number: int) -> asyncio.StreamReader:
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(number, "rb", buffering=0)
    )
    return reader


async def _writer(number: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(number, "wb", buffering=0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _all_of(stream: asyncio.StreamReader | None) -> bytes:
    return b"" if stream is None else await stream.read()
