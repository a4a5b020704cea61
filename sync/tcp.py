"""What a TCP connection carried, by the kernel's own count, and whether it still moves.

Linux's TCP_INFO has bytes on the line, retransmitted ones included, and segments: each is counted
with a header of 52 bytes (IPv4, TCP, timestamps; IPv6 has 20 more). Name look-ups are not in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

from sync.meter import Traffic

HEADER_BYTES = 52
TICK_S = 0.5
_INFO_BYTES = 256
_ACKED_RECEIVED = struct.Struct("=QQII")
_ACKED_AT, _SENT_AT = 120, 200
_SENT = struct.Struct("=Q")


class Watch:
    """Sockets of one call, kept open beside their users until they are counted."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def make(self, family: int, kind: int, protocol: int) -> socket.socket:
        """A socket that is counted."""
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        self._sockets.append(made.dup())
        return made

    def progress(self) -> int:
        """Grows while the line moves anything."""
        return sum(acked + received for acked, received, _, _ in map(_counts, self._sockets))

    def traffic(self) -> Traffic:
        """What they have carried."""
        total = Traffic()
        for one in self._sockets:
            _, came, out, back = _counts(one)
            sent, received = _sent(one) + out * HEADER_BYTES, came + back * HEADER_BYTES
            total = total.plus(Traffic(sent=sent, received=received))
        return total

    def close(self) -> Traffic:
        """Let go of the sockets; what they carried."""
        total = self.traffic()
        for one in self._sockets:
            one.close()
        self._sockets.clear()
        return total


@contextlib.asynccontextmanager
async def moving(watch: Watch, *, still_s: float, most_s: float) -> AsyncIterator[None]:
    """Raises TimeoutError in the block once nothing moves for so long, or it takes too long.

    A slow line is no dead one: as long as bytes go over, it is waited for.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(most_s):
        async with asyncio.timeout(still_s) as still:
            task = loop.create_task(_extend(watch, still, still_s))
            try:
                yield
            finally:
                task.cancel()


async def _extend(watch: Watch, still: asyncio.Timeout, still_s: float) -> None:
    loop, before = asyncio.get_running_loop(), 0
    while not still.expired():
        await asyncio.sleep(TICK_S)
        now = watch.progress()
        if now != before:
            before = now
            still.reschedule(loop.time() + still_s)


def _counts(one: socket.socket) -> tuple[int, int, int, int]:
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _ACKED_AT + _ACKED_RECEIVED.size:
        return 0, 0, 0, 0
    acked, received, out, back = _ACKED_RECEIVED.unpack_from(info, _ACKED_AT)
    return acked, received, out, back


def _sent(one: socket.socket) -> int:
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    return int(_SENT.unpack_from(info, _SENT_AT)[0]) if len(info) >= _SENT_AT + 8 else 0
