"""The story, scene by scene."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.demo.processes import Gateway, cloud_program, command
from bench.demo.shop import (
    FORGED,
    Branch,
    Purchase,
    Replay,
    Tally,
    funding_of,
    now_ms,
    read_purchases,
)
from cloud.client import Api
from cloud.config import Config
from edge.errors import GatewayUnreachable
from edge.http.octets import Octets
from edge.http.types import DeviceWalletBody, WalletAnswer, WalletBody
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from edge.pos.receipts import save_receipt

ISSUED = 10_000_000
DEVICE_TIER, MERCHANT_TIER = 1, 2
TOGETHER = 8
SYNC_ROUNDS = 20
RECEIPTS_PRINTED = 25


class Story:
    """Says what happens, and how long each scene took."""

    def __init__(self, folder: Path, customers: int) -> None:
        self.folder = folder
        self.purchases = read_purchases(customers)
        self.times: list[tuple[str, float]] = []
        self.cloud = cloud_program(folder / "cloud")
        self.gateways = (
            Gateway("north", folder / "north"),
            Gateway("south", folder / "south"),
        )
        self.branches: tuple[Branch, Branch]
        self.tally = Tally()
        self._config = Config(folder=folder / "cloud")

    @asynccontextmanager
    async def scene(self, title: str) -> AsyncIterator[None]:
        """One scene."""
        print(f"\n== {title}", flush=True)
        start = time.perf_counter()
        yield
        self.times.append((title, time.perf_counter() - start))

    async def tell(self) -> bool:
        """All of it; whether the account adds up."""
        async with AsyncExitStack() as stack:
            for program in (self.cloud, *self.gateways):
                stack.push_async_callback(program.stop)
            async with self.scene("The cloud: issuer, reconciler, ledger"):
                await self.open_cloud()
            async with self.scene("Two branches are provisioned, a till is paired with each"):
                self.branches = await self.open_branches(stack)
            async with self.scene("Wallets are enrolled and funded while the line is up"):
                await self.fund()
            async with self.scene("The line is cut: the cloud is gone"):
                await self.cloud.kill()
                print("   cloud killed; both gateways go on by themselves")
            async with self.scene(f"{len(self.purchases)} real purchases, paid offline"):
                await self.replay()
            async with self.scene("What is refused, and why"):
                await self.refuse()
            async with self.scene("Receipts are verified with no gateway and no network"):
                await self.verify()
            async with self.scene("The cloud comes back; the journals travel and are settled"):
                await self.settle()
            async with self.scene("The closing account"):
                return await self.account()

    # ---- scenes ---------------------------------------------------------------------------
    async def open_cloud(self) -> None:
        """Keys, database, first policy, two admins; then value is issued by both of them."""
        await self.cloud.run_command("init")
        await self.cloud.start()
        print("   root and role keys, embedded PostgreSQL, policy 0, two admins")
        await self.cloud.run_command(
            *("issuer", "holder", "--name", "demo-bank", "--wallet", "demo-bank"),
            *("--officer-file", str(self._officer("first"))),
            *("--token-file", str(self.folder / "demo-bank.token")),
        )
        drafted = await self.cloud.run_command(
            *("issuer", "issue", "--wallet", "demo-bank", "--amount", str(ISSUED)),
            *("--reason", "demo", "--officer-file", str(self._officer("first"))),
        )
        draft = drafted.split()[1].rstrip(":")
        approve = ("issuer", "approve", draft, "--officer-file", str(self._officer("second")))
        print(f"   {(await self.cloud.run_command(*approve)).strip()} (two officers)")

    def _officer(self, name: str) -> Path:
        return self.folder / "cloud" / f"officer-{name}.token"

    async def open_branches(self, stack: AsyncExitStack) -> tuple[Branch, Branch]:
        """Enrol, start and pair both."""
        north, south = [await self._open(stack, gateway) for gateway in self.gateways]
        return north, south

    async def _open(self, stack: AsyncExitStack, gateway: Gateway) -> Branch:
        token = self.folder / f"{gateway.name}.token"
        await self.cloud.run_command(
            *("gateway", "add", "--name", gateway.name, "--token-file", str(token)),
            "--allow-software",
        )
        await gateway.run_command(
            *("provision", "--cloud", f"https://127.0.0.1:{self.cloud.port('gateway_port')}"),
            *("--cloud-ca", str(self.folder / "cloud" / "transport-ca.pem")),
            *("--token-file", str(token)),
        )
        await gateway.start()
        terminal = await gateway.pair(self.folder / f"till-{gateway.name}")
        client = await stack.enter_async_context(Client(terminal, connections=TOGETHER))
        print(f"   {gateway.name}: {terminal.gateway}, SQLCipher store, one paired till")
        return Branch(gateway, client)

    async def fund(self) -> None:
        """Wallets wish to be enrolled, are, and get what they will spend."""
        amounts = funding_of(self.purchases)
        replay = Replay(self.branches, self.tally)
        for customer in amounts:
            home = replay.home(customer)
            home.customers[customer] = DeviceKey(customer.to_bytes(32, "big"))
        await in_turns(
            [
                self._wish(branch, branch.shop, MERCHANT_TIER, f"shop {branch.gateway.name}")
                for branch in self.branches
            ]
            + [
                self._wish(home, key, DEVICE_TIER, f"customer {customer}")
                for home in self.branches
                for customer, key in home.customers.items()
            ]
        )
        await self._sync()
        api = Api(self._config, self.folder / "demo-bank.token")
        await in_turns(
            [
                api.post(
                    "/v1/wallets/demo-bank/fundings",
                    {
                        "funding_id": secrets.token_hex(32),
                        "journal": home.journal,
                        "offline_wallet": key.text,
                        "amount": amounts[customer],
                    },
                )
                for home in self.branches
                for customer, key in home.customers.items()
            ]
        )
        await self._sync()
        total = sum(amounts.values())
        print(f"   {len(amounts)} customers and 2 shops; {euros(total)} moved offline by grants")

    async def _wish(self, branch: Branch, key: DeviceKey, tier: int, label: str) -> None:
        device = DeviceWalletBody(key=Octets(key.public.cose_key), tier=tier, label=label)
        body = WalletBody(device=device)
        await branch.client.call("POST", "/v1/wallets", WalletAnswer, body=body)

    async def _sync(self) -> None:
        """Exchange until the issuer holds and has settled all that there was."""
        for gateway in self.gateways:
            for _ in range(SYNC_ROUNDS):
                before = (await gateway.status()).size
                await gateway.synchronise()
                status = await gateway.status()
                if status.size == before:
                    break

    async def replay(self) -> None:
        """The purchases in their order; the power of one branch goes in the middle."""
        replay, half = Replay(self.branches, self.tally), len(self.purchases) // 2
        await self._buy_all(replay, self.purchases[:half])
        print(f"   {self.tally.paid} paid so far; now the power goes at north, in mid-payment")
        rest = self.purchases[half:]
        in_flight = rest[: 5 * TOGETHER]
        caught = await self._pull_the_plug(replay, in_flight)
        print(f"   north killed with {caught} payments on their way; started again, they are sent")
        print(f"   once more: {self.tally.repeated} had been stored and got their receipt again")
        await self._buy_all(replay, rest[len(in_flight) :])
        print(f"   paid {self.tally.paid} ({euros(self.tally.minor)}), of them", end=" ")
        print(f"{self.tally.notes} across the branches by notes")
        for code, count in sorted(self.tally.refused.items()):
            print(f"   refused {count:4} x {code}")

    async def refuse(self) -> None:
        """Orders that a gateway must not take."""
        replay, payer = Replay(self.branches, self.tally), min(funding_of(self.purchases))
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("more than a payment may be", {"amount_minor": 60_000}),
            ("a sequence that was used", {"sequence": 0}),
            ("a sequence too far ahead", {"sequence": 10_000}),
            ("expired an hour ago", {"created_ms": STAMP - 2 * HOUR, "expires_ms": STAMP - HOUR}),
            ("dated tomorrow", {"created_ms": STAMP + 24 * HOUR, "expires_ms": STAMP + 48 * HOUR}),
            ("the amount altered after signing", {"amount_minor": FORGED}),
            ("another currency", {"currency": "USD"}),
            ("of another epoch", {"payer_epoch": 2}),
        ]
        for what, changes in wrong:
            print(f"   {what:<34} {await replay.attempt(payer, **changes)}")

    async def _buy_all(self, replay: Replay, purchases: list[Purchase]) -> None:
        """Customers at once, each one's purchases in their order."""
        queues: dict[int, list[Purchase]] = {}
        for purchase in purchases:
            queues.setdefault(purchase.customer, []).append(purchase)
        waiting = iter(queues.values())

        async def serve() -> None:
            for queue in waiting:
                for purchase in queue:
                    await replay.buy(purchase, now_ms=now_ms())

        await asyncio.gather(*[serve() for _ in range(TOGETHER)])

    async def _pull_the_plug(self, replay: Replay, purchases: list[Purchase]) -> int:
        """Kill north while its tills wait; start it; send again what had no answer."""
        unanswered: list[Purchase] = []

        async def buy(purchase: Purchase) -> None:
            try:
                await replay.buy(purchase, now_ms=STAMP)
            except GatewayUnreachable:
                unanswered.append(purchase)

        customers: dict[int, Purchase] = {}
        for purchase in purchases:
            customers.setdefault(purchase.customer, purchase)
        first = [purchase for purchase in purchases if customers[purchase.customer] is purchase]
        tasks = [asyncio.create_task(buy(purchase)) for purchase in first]
        paid = self.tally.paid
        done = asyncio.ensure_future(asyncio.wait(tasks))
        while self.tally.paid < paid + 3 and not done.done():
            await asyncio.wait({done}, timeout=0.001)
        north = self.gateways[0]
        await north.kill()
        await asyncio.gather(*tasks)
        await self._restart(north)
        for purchase in unanswered:
            await replay.buy(purchase, now_ms=STAMP)
        later = [purchase for purchase in purchases if purchase not in first]
        await self._buy_all(replay, later)
        return len(unanswered)

    async def _restart(self, gateway: Gateway) -> None:
        """Start it again; it takes the ports that its tills know."""
        await gateway.start()

    async def verify(self) -> None:
        """The command that a customer's bank or a judge would use, in a network of nothing."""
        printed = self.folder / "receipts"
        for paid in self.tally.receipts[-RECEIPTS_PRINTED:]:
            save_receipt(printed, payment=paid.id, entry=paid.entry.raw, receipt=paid.receipt.raw)
        files = [str(path) for path in sorted(printed.iterdir())]
        root = self.folder / "cloud" / "root.der"
        shown = await command("edge.pos.cli", "verify", *files, "--root", str(root), alone=True)
        lines = shown.strip().splitlines()
        print(f"   {lines[0].rpartition('/')[2]}")
        print(f"   ... {len(files)} receipts hold under the issuer's root alone")

    async def settle(self) -> None:
        """The line is up again."""
        await self.cloud.start()
        await self._sync()
        for branch in self.branches:
            status = await branch.gateway.status()
            print(
                f"   {branch.gateway.name}: {status.size} entries, {status.acknowledged} held by"
                f" the issuer, {status.settled} settled"
            )

    async def account(self) -> bool:
        """Issued = online + offline + in transit, and the gateways' own books say the same."""
        found = json.loads(await self.cloud.run_command("status", "--json"))
        line: dict[str, Any] = found["currencies"][0]
        for name in ("issued", "online", "offline", "in_transit", "suspense", "loss"):
            print(f"   {name.replace('_', ' '):<12}{euros(line[name]):>18}")
        books = [(await branch.gateway.status()).balance_total or 0 for branch in self.branches]
        print(f"   gateways' own books: {' + '.join(euros(book) for book in books)}", end=" ")
        print(f"= {euros(sum(books))}")
        same = bool(line["difference"] == 0 and sum(books) == line["offline"])
        print(f"   {'It adds up, to the cent.' if same else 'IT DOES NOT ADD UP.'}")
        return same

    def clean(self) -> None:
        """Forget an earlier run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o755)


async def in_turns(calls: list[Coroutine[Any, Any, Any]]) -> None:
    """A few calls at once."""
    turns = asyncio.Semaphore(TOGETHER)

    async def one(call: Coroutine[Any, Any, Any]) -> None:
        async with turns:
            await call

    await asyncio.gather(*[one(call) for call in calls])


STAMP = now_ms()
HOUR = 3_600_000


def euros(minor: int) -> str:
    """Cents as euros."""
    sign = "-" if minor < 0 else ""
    return f"{sign}{abs(minor) // 100:,}.{abs(minor) % 100:02d} EUR"
