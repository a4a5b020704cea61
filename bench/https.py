"""Payments over mutual TLS against a handler that only decodes the body and answers the size.

The gateway and the handler run as processes of their own; the load tool shares their two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import ssl
import tempfile
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiohttp import web

from bench.branch import FUNDED_MINOR, JOURNAL, TIER, Purse
from bench.figures import Figure, figure, percentile
from bench.loadtool import (
    Connection,
    accepted,
    closed_loop,
    connect,
    open_loop,
    request_of,
)
from edge.http.octets import to_text
from edge.pos.terminal import Terminal
from tests.support.branch import Daemon, provisioned
from tests.support.live_issuer import LiveIssuer
from wallet.protocol.ids import JournalId, parse_journal

CONNECTIONS = 64
WALLETS = 64
# Short rounds in turn: a machine that changes its pace does so for both.
TOP_REQUESTS = 2_560
HALF_REQUESTS = 1_280
ROUNDS = 15
PATH = "/v1/payments"
JSON = "application/json"


def handler(pipe: Pipe, terminal: Terminal, answer_bytes: int) -> None:
    """The peer, in its own process: TLS with client certificates, decode, answer."""
    uvloop.run(_serve(pipe, terminal, answer_bytes))


async def _serve(pipe: Pipe, terminal: Terminal, answer_bytes: int) -> None:
    body = b"x" * answer_bytes
    decoder = msgspec.json.Decoder(dict[str, Any])

    async def post(request: web.Request) -> web.Response:
        decoder.decode(await request.read())
        return web.Response(body=body, status=201, content_type=JSON)

    app = web.Application()
    app.router.add_post(PATH, post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(cadata=terminal.authority)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(terminal.key + terminal.certificate)
        file.flush()
        tls.load_cert_chain(file.name)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    pipe.send(runner.addresses[0][1])
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    await runner.cleanup()


def objects(issuer: LiveIssuer, journal: bytes, purses: list[Purse]) -> list[bytes]:
    """Policy, lists, enrolments and grants for the bench's wallets."""
    made = [issuer.policy({1: TIER}, JOURNAL)]
    made += [issuer.list(number, []) for number in (1, 2, 5, 6)]
    made += [issuer.enrolment(journal, purse.key) for purse in purses]
    return made + [
        issuer.grant(journal, purse.key.id, FUNDED_MINOR, sequence=number)
        for number, purse in enumerate(purses)
    ]


def requests_of(purses: list[Purse], journal: JournalId, count: int) -> list[bytes]:
    """Requests with one order each; a wallet's orders stand far apart, in their sequence."""
    made = []
    for number in range(count):
        payer, payee = purses[number % WALLETS], purses[(number + 1) % WALLETS]
        order = payer.order(payee.key.id, journal=journal, payee_journal=journal)
        body = msgspec.json.encode({"order": to_text(order)})
        made.append(request_of(PATH, body, content_type=JSON))
    return made


class Peer:
    """The handler process."""

    def __init__(self, terminal: Terminal, answer_bytes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=handler, args=(theirs, terminal, answer_bytes))
        self._process.start()
        self.port: int = self._pipe.recv()

    def stop(self) -> None:
        """End it."""
        self._pipe.send(None)
        self._process.join(20)


class Till:
    """A paired terminal's connections to a running gateway, and the payments to send over them."""

    def __init__(self, daemon: Daemon, terminal: Terminal, purses: list[Purse]) -> None:
        self.terminal = terminal
        self.connections: list[Connection] = []
        self._daemon = daemon
        self._purses = purses
        self._journal = parse_journal(terminal.gateway)

    async def connect(self) -> None:
        """Open every connection."""
        port = self._daemon.ports["port"]
        self.connections = await connect(port, self.terminal.tls(), CONNECTIONS)

    @property
    def gateway_process_id(self) -> int:
        """The daemon's process. Raises: RuntimeError if it does not run."""
        if self._daemon.process is None:
            raise RuntimeError("the gateway does not run")
        return self._daemon.process.pid

    def requests(self, count: int) -> list[bytes]:
        """Requests that begin with the wallet whose turn it is, so that none overtakes another."""
        purses = self._purses
        turn = min(range(WALLETS), key=lambda number: (purses[number].sequence, number))
        return requests_of(purses[turn:] + purses[:turn], self._journal, count)


@contextlib.asynccontextmanager
async def open_till() -> AsyncIterator[Till]:
    """A gateway in its own process with funded wallets, and its till."""
    purses = [Purse(number) for number in range(1, WALLETS + 1)]
    with tempfile.TemporaryDirectory(prefix="cbdc-bench-") as name:
        folder = Path(name)
        made = provisioned(folder, objects=lambda issuer, j: objects(issuer, j, purses))
        async with made as (daemon, _):
            await daemon.start()
            try:
                till = Till(daemon, await daemon.pair(folder / "till"), purses)
                await till.connect()
                yield till
            finally:
                await daemon.stop()


async def measure() -> list[Figure]:
    """Rounds of the gateway and the handler in turn, each at its top and at half of ours."""
    async with open_till() as till:
        ours = till.connections
        status, answer = await ours[0].ask(till.requests(1)[0])
        if status != 201:
            raise RuntimeError(f"the gateway answered {status}: {answer[:300]!r}")
        peer = Peer(till.terminal, len(answer))
        try:
            return await _compare(till, peer)
        finally:
            peer.stop()


async def _compare(till: Till, peer: Peer) -> list[Figure]:
    # The handler shows a terminal's certificate, which is none of a server: not looked at here.
    trusting = till.terminal.tls()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    theirs = await connect(peer.port, trusting, CONNECTIONS)
    # Each wallet's first orders: the sequence goes on from the one above.
    rounds, half, half_peer = [], list[float](), list[float]()
    for _ in range(ROUNDS):
        requests = till.requests(TOP_REQUESTS)
        rate = accepted(await closed_loop(till.connections, requests), status=201).rate
        rounds.append((rate, (await closed_loop(theirs, requests)).rate))
        requests = till.requests(HALF_REQUESTS)
        mine = await open_loop(till.connections, requests, rate=rate / 2)
        half += accepted(mine, status=201).seconds
        half_peer += (await open_loop(theirs, requests, rate=rate / 2)).seconds
    rate, ceiling = sorted(rounds, key=lambda pair: pair[0] / pair[1])[ROUNDS // 2]
    return [
        figure(
            "payments over mutual TLS, 64 connections",
            rate,
            "payments/s",
            beside="aiohttp TLS handler, same sizes",
            beside_value=ceiling,
            goal=">= 0.30",
        ),
        figure(
            "p95 at half of that rate",
            percentile(half, 0.95) * 1000,
            "ms",
            beside="the handler's at the same rate",
            beside_value=percentile(half_peer, 0.95) * 1000,
            goal="< 50 ms",
        ),
    ]


def run() -> list[Figure]:
    """Measure on all the cores that there are: two."""
    return uvloop.run(measure())
