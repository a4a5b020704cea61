"""A whole branch and a whole cloud, as processes in two network namespaces with a bad line between.

Run as a program in a user namespace (`run_branch`): it plays one afternoon and prints what came of
it. Somebody pays at the gateway all the while; the line is a slow modem, flaps, leads to a portal
that stands in the way, and then to whom a lying name server names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import ssl
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from edge.http.links import LineAnswer
from edge.http.local import SyncAnswer, WalletsAnswer
from edge.http.octets import to_text
from edge.http.types import PaymentAnswer
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from tests.support.branch import Daemon
from tests.support.cloud_branch import database_of, done, identity
from tests.support.cloud_process import CloudProcess
from tests.support.link_world import (
    CLOUD,
    DNS_PORT,
    GATEWAY,
    HOST,
    PORTAL,
    Names,
    ask_the_cloud_for_names,
    run_apart,
)
from tests.support.packets import End, Quality, Wire
from tests.support.tls_pair import Authority
from wallet.clock import SystemClock
from wallet.protocol.ids import parse_journal
from wallet.protocol.merkle import leaf_hash

MOST_S = 500.0
# Over a modem that loses packets a handshake may fail some times, and each waits longer.
WAIT_S = 120
ISSUED, FUNDS, AMOUNT = 1_000_000, 500_000, 7
TIER = 2
PAUSE_S = 0.15
GOOD = Quality(delay_ms=5)
MODEM = Quality(rate_bits=40_000, delay_ms=300, loss=0.05)
FLAPPING = Quality(rate_bits=400_000, delay_ms=20, flap_s=3)
# PostgreSQL refuses root, and root is what a user namespace makes of us.
AS_A_USER = ("unshare", "--map-user=1000", "--map-group=1000")
_REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://portal.test/\r\nContent-Length: 0\r\n\r\n"
_CONFIG = """
[sync]
interval_s = 1
timeout_s = 10
[[sync.links]]
interface = "tun-*"
kind = "metered"
"""
Result = TypeVar("Result")


class Side:
    """One namespace with the loop that runs in it."""

    def __init__(self, device: str, *addresses: str) -> None:
        self.end = End(device, *addresses)
        self.loop = asyncio.new_event_loop()
        self.end.run(self.loop.run_forever)

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Let it do something, from the loop of another side."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))


class World:
    """Cloud, gateway, and who may stand between them."""

    def __init__(self, folder: Path, *, config: str = _CONFIG) -> None:
        """`config`: the gateway's, to begin with."""
        self.folder = folder
        self.branch = Side("tun-branch", GATEWAY, CLOUD)
        self.cloud_side = Side("tun-cloud", CLOUD, GATEWAY, PORTAL)
        # It has the cloud's own address: whoever asks for that one is answered by it.
        self.portal_side = Side("tun-portal", CLOUD, GATEWAY)
        self.wire = Wire(self.branch.end, self.cloud_side.end, GOOD)
        settings = (f"listen.host={CLOUD}", f"listen.names={HOST},{CLOUD}")
        self.cloud = CloudProcess(folder / "cloud", prefix=AS_A_USER, settings=settings)
        self.cloud.host = CLOUD
        self.daemon = Daemon(folder / "gateway")
        self.config = folder / "gateway.toml"
        self.config.write_text(config)
        self.daemon.command.environment["CBDC_EDGE_CONFIG"] = str(self.config)
        self.payer, self.payee = DeviceKey(b"\x01" * 32), DeviceKey(b"\x02" * 32)
        self.lying = False
        # Connections that somebody took in the cloud's place, and what they were told.
        self.strangers = self.told_strangers = 0
        self.paid: dict[str, str] = {}
        self.slowest_s = 0.0
        self.phase = "plain"
        self.told: dict[str, Any] = {"phases": {}}

    # ---- the afternoon --------------------------------------------------------------------
    async def play(self) -> None:
        """All of it, in the gateway's namespace."""
        try:
            await self._play()
        except TimeoutError as error:
            # Another thread waits for this one, and would not see where it waited.
            log = self.daemon.log.read_text()[-4000:] if self.daemon.process else ""
            story = f"{self.phase}: {self.told}\n{log}\n{traceback.format_exc()}"
            raise AssertionError(story) from error

    async def _play(self) -> None:
        began = time.monotonic()
        await self.cloud_side.run(self._found())
        await self._enrol()
        self.told["prepared_s"] = time.monotonic() - began
        till = await self.daemon.pair(self.folder / "till")
        async with Client(till) as client, self._paying(client):
            await self._over("2g", MODEM, self._progressed())
            await self._over("flapping", FLAPPING, self._survived_a_flap())
            self.wire.turn(self.branch.end, self.portal_side.end)
            await self._over("portal", GOOD, self._refused_a_stranger())
            self.wire.turn(self.branch.end, self.cloud_side.end)
            self.lying = True
            await self._over("lies", GOOD, self._refused_a_stranger())
            self.lying = False
            self.phase = "mended"
            await self._progressed()
        await self._agree(till_url=till.url)
        self.told["took_s"] = time.monotonic() - began

    async def _over(self, name: str, quality: Quality, until: Coroutine[Any, Any, None]) -> None:
        """Let the line be like this until something has come of it, and somebody has paid."""
        began, before, dropped = time.monotonic(), len(self.paid), self.wire.dropped
        held = await self._acknowledged()
        self.phase, self.wire.quality = name, quality
        await until
        self.told["phases"][name] = {
            "took_s": time.monotonic() - began,
            "paid": len(self.paid) - before,
            "taken": await self._acknowledged() - held,
            "dropped": self.wire.dropped - dropped,
            "line": (await self._line()).state,
        }
        self.wire.quality = GOOD

    async def _progressed(self) -> None:
        """Wait until the gateway has, by itself, told the cloud of payments made meanwhile."""
        size = (await self.daemon.wait_for(lambda status: True)).size or 0
        await self.daemon.wait_for(lambda status: (status.acknowledged or 0) > size, most_s=WAIT_S)

    async def _survived_a_flap(self) -> None:
        """Wait until packets were lost while the line was away, and told payments after that."""
        before = self.wire.dropped
        async with asyncio.timeout(WAIT_S):
            while self.wire.dropped == before:
                await asyncio.sleep(0.05)
        await self._progressed()

    async def _refused_a_stranger(self) -> None:
        """Wait until somebody else answered, and the gateway knew it."""
        before = self.strangers
        async with asyncio.timeout(WAIT_S):
            while self.strangers == before or (await self._line()).state != "captive":
                await asyncio.sleep(0.05)

    async def _agree(self, *, till_url: str) -> None:
        """Synchronise until the cloud has settled all, then look at both books."""
        async with asyncio.timeout(WAIT_S):
            while True:
                await self.daemon.local.call("POST", "/sync", SyncAnswer, body={})
                status = await self.daemon.wait_for(lambda status: True)
                if status.acknowledged == status.size:
                    break
        wallets = (await self.daemon.local.call("GET", "/wallets", WalletsAnswer)).wallets
        self.told |= {
            "size": status.size,
            "settled": status.settled,
            "gateway": {wallet.wallet: wallet.balance for wallet in wallets},
            "unsettled": sum(wallet.unsettled for wallet in wallets),
            "paid": sorted(self.paid),
            "slowest_s": self.slowest_s,
            "strangers": self.strangers,
            "told_strangers": self.told_strangers,
        }
        self.told |= await self.cloud_side.run(self._cloud_books())
        self.told["stopped"] = await self.daemon.stop()
        await self.cloud_side.run(self.cloud.stop())

    # ---- the gateway ----------------------------------------------------------------------
    async def _acknowledged(self) -> int:
        return (await self.daemon.wait_for(lambda status: True)).acknowledged or 0

    async def _line(self) -> LineAnswer:
        return await self.daemon.local.call("GET", "/line", LineAnswer)

    @contextlib.asynccontextmanager
    async def _paying(self, client: Client) -> AsyncIterator[None]:
        """Somebody pays until the block ends; a payment that fails ends it."""
        task = asyncio.create_task(self._pay(client))
        try:
            yield
        finally:
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        assert isinstance(outcome, asyncio.CancelledError), outcome

    async def _pay(self, client: Client) -> None:
        while True:
            await self._pay_once(client)
            await asyncio.sleep(PAUSE_S)

    async def _pay_once(self, client: Client) -> None:
        journal = parse_journal((await self.daemon.wait_for(lambda status: True)).id or "")
        now_ms, began = SystemClock().now_ms(), time.monotonic()
        order = self.payer.sign_order(
            sequence=len(self.paid),
            payee=self.payee.public.id,
            payee_journal=journal,
            amount_minor=AMOUNT,
            currency="EUR",
            created_ms=now_ms,
            expires_ms=now_ms + 86_400_000,
            kind=0,
            authorisation=0,
            payer_journal=journal,
            payer_epoch=1,
        )
        body = {"order": to_text(order)}
        # Begun is begun: the end of the block waits for its receipt.
        paying = client.call("POST", "/v1/payments", PaymentAnswer, body=body)
        answer = await asyncio.shield(self._receipted(asyncio.ensure_future(paying)))
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        assert answer.state == "accepted"

    async def _receipted(self, paying: asyncio.Future[PaymentAnswer]) -> PaymentAnswer:
        answer = await paying
        self.paid[answer.id] = self.phase
        return answer

    # ---- the cloud ------------------------------------------------------------------------
    async def _found(self) -> None:
        """The cloud, its name server, and whoever may answer in its place."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: Names(lambda: self.lying), local_addr=(CLOUD, DNS_PORT)
        )
        code, out, errors = await self.cloud.command("init")
        assert code == 0, (out, errors)
        await self.cloud.start()
        await asyncio.start_server(self._stranger, PORTAL, self.port)
        await self.portal_side.run(self._stand_in_the_way())

    async def _stand_in_the_way(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(
            lambda: Names(lambda: False), local_addr=(CLOUD, DNS_PORT)
        )
        await asyncio.start_server(self._redirect, CLOUD, self.port)

    @property
    def port(self) -> int:
        """Where the cloud takes gateways."""
        return self.cloud.ports["gateway_port"]

    async def _redirect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.strangers += 1
        with contextlib.suppress(OSError):
            writer.write(_REDIRECT)
            await writer.drain()
        writer.transport.abort()

    async def _stranger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whom the name server names when it lies: it has a certificate of its own."""
        self.strangers += 1
        pem = self.folder / "stranger.pem"
        pem.write_text(Authority("stranger", host=HOST).pair)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await writer.start_tls(tls)
            self.told_strangers += len(await reader.read())
        writer.transport.abort()

    async def _enrol(self) -> None:
        """The gateway, provisioned over the line; two wallets, one with money."""
        token = await self.cloud_side.run(self._begin_branch())
        (self.folder / "enrol.txt").write_text(token)
        code, out, errors = await self.daemon.command.edge(
            *("provision", "--cloud", f"https://{HOST}:{self.port}"),
            *("--cloud-ca", str(self.folder / "cloud" / "transport-ca.pem")),
            *("--token-file", str(self.folder / "enrol.txt")),
        )
        assert code == 0, (out, errors)
        await self.daemon.start()
        journal = (await self.daemon.wait_for(lambda status: status.mode == "open")).id or ""
        await self.cloud_side.run(self._enrol_wallets(journal))
        await self._funded()

    async def _funded(self) -> None:
        """Wait until the money has come."""
        await self.daemon.wait_for(lambda status: (status.balance_total or 0) == FUNDS)

    async def _begin_branch(self) -> str:
        async with self.cloud.api(self.cloud.officer("first")) as first:
            body = {"name": "branch", "currency": "EUR", "tiers": [TIER], "level": "software"}
            token: str = (await done(first, "/v1/issuer/gateways", body))["token"]
            holder = {"holder": "bank", "wallet": "bank-eur", "currency": "EUR"}
            self.holder: str = (await done(first, "/v1/issuer/holders", holder))["token"]
            draft = {"draft_id": identity(), "action": "issue", "wallet": "bank-eur"}
            supply = {**draft, "amount": ISSUED, "reason": "test"}
            made = await done(first, "/v1/issuer/supply", supply)
        async with self.cloud.api(self.cloud.officer("second")) as second:
            await done(second, f"/v1/issuer/supply/{made['draft_id']}/approve", {})
        return token

    async def _enrol_wallets(self, journal: str) -> None:
        async with self.cloud.api(self.cloud.officer("first")) as first:
            for key in (self.payer, self.payee):
                body = {"journal": journal, "key": to_text(key.public.cose_key), "tier": TIER}
                await done(first, "/v1/issuer/enrolments", body)
        body = {
            "funding_id": secrets.token_hex(32),
            "journal": journal,
            "offline_wallet": self.payer.text,
            "amount": FUNDS,
        }
        async with self.cloud.api(self.holder) as api:
            await done(api, "/v1/wallets/bank-eur/fundings", body)

    async def _cloud_books(self) -> dict[str, Any]:
        """What the cloud holds of the journal, and where it says that the money is."""
        async with database_of(self.cloud) as connection:
            held = await connection.fetch("SELECT entry FROM journal_entry ORDER BY index")
            rows = await connection.fetch(
                "SELECT split_part(name, '/', 4) AS name, balance FROM ledger_account"
                " WHERE kind = 'offline'"
            )
            evidence = await connection.fetchval("SELECT count(*) FROM journal_evidence")
        async with self.cloud.api(self.cloud.officer("second")) as officer:
            _, account = await officer.get("/v1/issuer/account")
        return {
            "held": [leaf_hash(row["entry"]).hex() for row in held],
            "cloud": {row["name"]: row["balance"] for row in rows},
            "evidence": evidence,
            "account": account["currencies"][0],
        }


def played(make: Callable[[Path], World], *, most_s: float) -> dict[str, Any]:
    """Play a world in this process, which has namespaces of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ask_the_cloud_for_names(folder)
        world = make(folder)
        playing = asyncio.run_coroutine_threadsafe(world.play(), world.branch.loop)
        try:
            world.wire.run_until(playing.done, most_s=most_s)
            playing.result()
        finally:
            _end(world)
        return world.told


def _end(world: World) -> None:
    """Nothing goes on when something went wrong."""
    for side, stop in ((world.branch, world.daemon.kill), (world.cloud_side, world.cloud.stop)):
        future = asyncio.run_coroutine_threadsafe(stop(), side.loop)
        with contextlib.suppress(TimeoutError):
            future.result(20)


def run_branch() -> dict[str, Any]:
    """Play it in a process with namespaces of its own; what came of it."""
    return run_apart("tests.support.branch_world", most_s=MOST_S + 50)


if __name__ == "__main__":
    print(json.dumps(played(World, most_s=MOST_S)))
    sys.stdout.flush()
    os._exit(0)
