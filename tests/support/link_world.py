"""A gateway's engine and an issuer, in two network namespaces with a line between them.

Run as a program in a user namespace (`run_link`): it plays one case and prints what came of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sync.engine import Engine, Surroundings
from sync.meter import Link, LinkKind
from sync.transport import HttpsTransport
from tests.support.packets import End, Quality, Wire
from tests.support.sync_pair import LISTED, SimulatedCloud, SimulatedJournal, raw
from tests.support.tls_pair import Authority
from wallet.clock import SystemClock

GATEWAY, CLOUD, PORTAL = "10.9.0.1", "10.9.0.2", "10.9.0.3"
HOST, PORT, DNS_PORT = "cloud.test", 8443, 53
ENTRY_BYTES = 300
MOST_S = 90.0
ROOT = Path(__file__).resolve().parents[2]
_REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\nContent-Length: 0\r\n\r\n"
_PROBED = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


FREE = Link(name="eth0")
METERED = Link(name="wwan0", kind=LinkKind.METERED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the line is like, and what is wrong with it until the first session failed."""

    quality: Quality
    link: Link = FREE
    entries: int = 60
    # Lists that the issuer has for this gateway, and how large each is.
    lists: int = 0
    list_bytes: int = 8_000
    timeout_s: int = 20
    lies: bool = False
    portal: bool = False
    # How old all certificates of the transport are; below 0: the clock is behind.
    age_days: float = 0


CASES = {
    "plain": Case(quality=Quality()),
    "2g": Case(quality=Quality(rate_bits=40_000, delay_ms=300, loss=0.05), link=METERED),
    "satellite": Case(
        quality=Quality(rate_bits=512_000, delay_ms=350, loss=0.01),
        link=Link(name="sat0", kind=LinkKind.SATELLITE),
        entries=200,
    ),
    "flapping": Case(
        quality=Quality(rate_bits=400_000, delay_ms=20, flap_s=3), entries=500, timeout_s=2
    ),
    "lists": Case(
        quality=Quality(rate_bits=160_000, delay_ms=20, loss=0.01, flap_s=3),
        entries=5,
        lists=9,
        timeout_s=2,
    ),
    "lies": Case(quality=Quality(delay_ms=10), lies=True),
    "portal": Case(quality=Quality(delay_ms=10), portal=True),
    "expired": Case(quality=Quality(delay_ms=10), age_days=800),
    "clock": Case(quality=Quality(delay_ms=10), age_days=-1 / 24),
}


class World:
    """Both sides of one case."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case = case
        self.folder = folder
        self.lying, self.captive = case.lies, case.portal
        self.authority = Authority(age_days=case.age_days, host=HOST)
        self.stranger = Authority("stranger", host=HOST)
        self.journal = SimulatedJournal(segment=1_000)
        chance = random.Random(1)
        self.journal.entries = [chance.randbytes(ENTRY_BYTES) for _ in range(case.entries)]
        self.cloud = SimulatedCloud(self.journal)
        self.cloud.lists = [LISTED + chance.randbytes(case.list_bytes) for _ in range(case.lists)]
        self.journal.to = raw(self.cloud.hpke)
        self.begun = threading.Event()
        self.done = threading.Event()
        self.told: dict[str, Any] = {"events": [], "outcomes": [], "states": []}

    # ---- the issuer's side ----------------------------------------------------------------
    async def serve(self) -> None:
        """The cloud, a portal at another address, and a name server."""
        loop = asyncio.get_running_loop()
        own, others = self._tls(self.authority, "own"), self._tls(self.stranger, "others")

        async def cloud(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connected(reader, writer, own)

        async def portal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await writer.start_tls(others)
                self.told["strangers"] = self.told.get("strangers", 0) + len(await reader.read())
            writer.transport.abort()

        await asyncio.start_server(cloud, CLOUD, PORT)
        await asyncio.start_server(portal, PORTAL, PORT)
        await loop.create_datagram_endpoint(
            lambda: Names(lambda: self.lying), local_addr=(CLOUD, DNS_PORT)
        )
        self.begun.set()
        await asyncio.Event().wait()

    def _tls(self, authority: Authority, name: str) -> ssl.SSLContext:
        path = self.folder / f"{name}.pem"
        path.write_text(authority.pair)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(path)
        return tls

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext
    ) -> None:
        try:
            if self.captive:
                writer.write(_REDIRECT)
                await writer.drain()
                return
            await writer.start_tls(tls)
            while first := await reader.read(1):
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if first == b"H":
                    writer.write(_PROBED)
                    continue
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                answer = await self.cloud.exchange(await reader.readexactly(length))
                writer.write(_HEAD % len(answer) + answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            # The line broke; the engine will say what that came to.
            pass
        finally:
            writer.transport.abort()

    # ---- the gateway's side ---------------------------------------------------------------
    async def synchronise(self) -> None:
        """Sessions until the issuer holds all of it."""
        transport = HttpsTransport(
            self.authority.credentials(),
            url=f"https://{HOST}:{PORT}",
            timeout_s=self.case.timeout_s,
        )
        engine = Engine(
            self.journal,
            transport,
            surroundings=Surroundings(
                clock=SystemClock(), jitter=lambda: 0.1, link=lambda: self.case.link
            ),
            tell=lambda name, **data: self.told["events"].append([name, data]),
        )
        task = asyncio.create_task(engine.run())
        began = time.monotonic()
        while not self._whole():
            self.told["outcomes"].append(await engine.now())
            self.told["states"].append(engine.state)
            # What was wrong is mended: somebody logged in, the name server tells the truth.
            self.lying = self.captive = False
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        status, traffic = engine.status(), transport.traffic()
        self.told |= {
            "took_s": time.monotonic() - began,
            "segment_bytes": status.segment_bytes,
            "day_bytes": status.day_bytes,
            "sent": traffic.sent,
            "received": traffic.received,
            "reports": [len(up.entries) for up in self.cloud.ups],
            "held": self.cloud.entries == self.journal.entries,
            "lists": self.journal.lists == self.cloud.lists,
            "answers": self.cloud.told,
        }
        self.done.set()

    def _whole(self) -> bool:
        return (
            self.journal.acknowledged >= len(self.journal.entries)
            and len(self.journal.lists) >= self.case.lists
        )


class Names(asyncio.DatagramProtocol):
    """A name server that knows one name, and tells the truth or not."""

    def __init__(self, is_lying: Callable[[], bool]) -> None:
        self._is_lying = is_lying

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer with one address; none of IPv6."""
        end = data.index(b"\0", 12) + 5
        question, kind = data[12:end], data[end - 4 : end - 2]
        records = b""
        if kind == b"\x00\x01":
            address = PORTAL if self._is_lying() else CLOUD
            records = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address)
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, 1 if records else 0, 0, 0)
        transport = cast(asyncio.DatagramTransport, self._transport)
        transport.sendto(head + question + records, addr)


def play(case: Case) -> dict[str, Any]:
    """Play a case in this process, which has namespaces of its own."""
    with tempfile.TemporaryDirectory() as folder:
        ask_the_cloud_for_names(Path(folder))
        world = World(case, Path(folder))
        cloud = End("tun-cloud", CLOUD, GATEWAY, PORTAL)
        cloud.run(lambda: _loop(world.serve()))
        assert world.begun.wait(20)
        gateway = End("tun-branch", GATEWAY, CLOUD)
        wire: list[Wire] = []
        go = threading.Event()

        def branch() -> None:
            go.wait(20)
            _loop(world.synchronise())

        gateway.run(branch)
        wire.append(Wire(gateway, cloud, case.quality))
        go.set()
        wire[0].run_until(world.done.is_set, most_s=MOST_S)
        return {
            **world.told,
            "line_bytes": wire[0].carried_bytes,
            "dropped": wire[0].dropped,
        }


def ask_the_cloud_for_names(folder: Path) -> None:
    """The resolver of this process, which has a mount namespace of its own, and of its children."""
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {CLOUD}\noptions timeout:5 attempts:4\n")
    target = os.path.realpath("/etc/resolv.conf")
    subprocess.run(["mount", "--bind", str(resolver), target], check=True)


def _loop(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def run_link(name: str) -> dict[str, Any]:
    """Play a case in a process with namespaces of its own; what came of it."""
    return run_apart("tests.support.link_world", name, most_s=MOST_S + 20)


def run_apart(module: str, *arguments: str, most_s: float) -> dict[str, Any]:
    """Run a program of the tests with namespaces of its own; the JSON that it prints."""
    done = subprocess.run(
        [
            *("unshare", "--map-root-user", "--net", "--mount"),
            *(sys.executable, "-m", module, *arguments),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=most_s,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


if __name__ == "__main__":
    print(json.dumps(play(CASES[sys.argv[1]])))
    sys.stdout.flush()
    # Threads of the cloud run on: nothing of them is needed any more.
    os._exit(0)
