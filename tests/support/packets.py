"""A line between two network namespaces: packets that are late, lost, or as slow as a test says.

Each side is a thread with a network namespace and a TUN device of its own. What the kernel's netem
does elsewhere is done here, on the same IP packets, because not every kernel has it; an ordinary
user may run all of it in a user namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_TCP_OF_IPV4, _SYN, _ACK = 6, 0x02, 0x10
TUN = "/dev/net/tun"
PACKET_BYTES_MAX = 65_536
# What waits for longer than this at a slow line's end is dropped.
QUEUE_S = 3.0
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """One way: bits in a second, delay, share of packets lost; `flap_s` up and as long down."""

    rate_bits: int = 1_000_000_000
    delay_ms: int = 0
    loss: float = 0
    flap_s: float | None = None

    def is_up(self, since_s: float) -> bool:
        """Whether anything goes over it at this time."""
        return self.flap_s is None or int(since_s / self.flap_s) % 2 == 0


class End:
    """One side: what runs in its thread has its network namespace."""

    def __init__(self, device: str, address: str, peer: str, *more: str) -> None:
        self._device, self._addresses, self._peer = device, (address, *more), peer
        self.handle = -1
        self._ready = threading.Event()

    def run(self, work: Callable[[], None]) -> threading.Thread:
        """Begin the thread, and wait for its device."""

        def begin() -> None:
            self._enter()
            self._ready.set()
            work()

        thread = threading.Thread(target=begin, daemon=True)
        thread.start()
        if not self._ready.wait(20):
            raise AssertionError("no network namespace could be made")
        return thread

    def _enter(self) -> None:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        if not os.path.exists(TUN):
            # A small system has the driver, and nobody who made its node.
            os.makedirs(os.path.dirname(TUN), exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mknod(TUN, 0o666 | stat.S_IFCHR, os.makedev(10, 200))
        self.handle = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH", self._device.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(self.handle, _TUNSETIFF, request)
        first, *more = self._addresses
        commands = [f"addr add {first} peer {self._peer} dev {self._device}"]
        commands += [f"addr add {address}/32 dev {self._device}" for address in more]
        commands += ["link set lo up", f"link set {self._device} up"]
        commands.append(f"route add default dev {self._device}")
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)


@dataclass(slots=True)
class Passed:
    """TCP at one end: ports that connections began from, and bytes with all headers.

    `sent`: with what was lost on the way. `received`: what arrived.
    """

    ports: frozenset[int] = frozenset()
    sent: int = 0
    received: int = 0

    def since(self, before: Passed) -> Passed:
        """What came on top."""
        return Passed(
            self.ports - before.ports,
            self.sent - before.sent,
            self.received - before.received,
        )


@dataclass(order=True, slots=True)
class _Due:
    at_s: float
    number: int
    to: int = field(compare=False)
    packet: bytes = field(compare=False)


class Wire:
    """Carries packets between two ends until it is stopped."""

    def __init__(self, left: End, right: End, quality: Quality, *, seed: int = 1) -> None:
        self._ends = {left.handle: right.handle, right.handle: left.handle}
        self.quality = quality
        self._chance = random.Random(seed)
        self._free_s = dict.fromkeys(self._ends, 0.0)
        self._due: list[_Due] = []
        self._began_s = time.monotonic()
        self.carried = self.dropped = 0
        self.carried_bytes = 0
        self._passed = {handle: Passed() for handle in self._ends}

    def turn(self, end: End, to: End) -> None:
        """From now on what one end sends goes to another one, and back."""
        self._ends[end.handle] = to.handle
        self._ends[to.handle] = end.handle
        self._free_s.setdefault(to.handle, 0.0)
        self._passed.setdefault(to.handle, Passed())

    def passed(self, end: End) -> Passed:
        """What passed at an end until now."""
        return replace(self._passed[end.handle])

    def run_until(self, done: Callable[[], bool], *, most_s: float) -> None:
        """Carry until it is done. Raises: AssertionError when that takes too long."""
        end_s = time.monotonic() + most_s
        while not done():
            now_s = time.monotonic()
            if now_s > end_s:
                raise AssertionError(f"not done after {most_s} s")
            wait_s = min(0.05, max(0.0, self._due[0].at_s - now_s)) if self._due else 0.05
            ready, _, _ = select.select(list(self._ends), [], [], wait_s)
            for handle in ready:
                self._take(handle, os.read(handle, PACKET_BYTES_MAX))
            self._deliver()

    def _take(self, handle: int, packet: bytes) -> None:
        now_s, quality = time.monotonic(), self.quality
        if _is_tcp(packet):
            self._passed[handle].ports |= _begins(packet)
            self._passed[handle].sent += len(packet)
        begins_s = max(now_s, self._free_s[handle])
        lost = self._chance.random() < quality.loss or not quality.is_up(now_s - self._began_s)
        if lost or begins_s - now_s > QUEUE_S:
            self.dropped += 1
            return
        leaves_s = begins_s + len(packet) * 8 / quality.rate_bits
        self._free_s[handle] = leaves_s
        self.carried += 1
        self.carried_bytes += len(packet)
        at_s = leaves_s + quality.delay_ms / 1000
        heapq.heappush(self._due, _Due(at_s, self.carried, self._ends[handle], packet))

    def _deliver(self) -> None:
        now_s = time.monotonic()
        while self._due and self._due[0].at_s <= now_s:
            due = heapq.heappop(self._due)
            os.write(due.to, due.packet)
            if _is_tcp(due.packet):
                self._passed[due.to].received += len(due.packet)


def _is_tcp(packet: bytes) -> bool:
    return packet[0] >> 4 == 4 and packet[9] == _TCP_OF_IPV4


def _begins(packet: bytes) -> set[int]:
    """The port that it asks for a connection from, if it does."""
    segment = packet[(packet[0] & 15) * 4 :]
    begins = segment[13] & (_SYN | _ACK) == _SYN
    return {int.from_bytes(segment[:2], "big")} if begins else set()
