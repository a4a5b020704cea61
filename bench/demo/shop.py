"""Purchases that nobody here made up, and the wallets that replay them."""

from __future__ import annotations

import csv
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import msgspec

from bench.demo.processes import Gateway
from edge.errors import OrderRefused
from edge.http.octets import Octets
from edge.http.types import NoteBody, PaymentAnswer, PaymentBody, WalletAnswer
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from wallet.protocol.codec import encode
from wallet.protocol.ids import parse_journal, parse_wallet

PURCHASES = Path(__file__).parents[1] / "data" / "purchases.csv"
FUNDED_MOST = 250_000
FUNDED_LEAST = 5_000
RICH = 70_000
DAY_MS = 86_400_000
FORGED = 4_711


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the file. `amount` in cents."""

    number: int
    customer: int
    date: str
    amount: int


def read_purchases(customers: int) -> list[Purchase]:
    """All purchases of the first customers, by date; free items are no payments."""
    with PURCHASES.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if int(row["amount_minor"]) > 0]
    chosen = sorted({int(row["customer"]) for row in rows})[:customers]
    rows = [row for row in rows if int(row["customer"]) <= chosen[-1]]
    rows.sort(key=lambda row: row["date"])
    return [
        Purchase(
            number=number,
            customer=int(row["customer"]),
            date=row["date"],
            amount=int(row["amount_minor"]),
        )
        for number, row in enumerate(rows)
    ]


def funding_of(purchases: list[Purchase]) -> dict[int, int]:
    """What each customer takes offline: what it will spend, rounded up, within the policy."""
    spent: dict[int, int] = defaultdict(int)
    for purchase in purchases:
        spent[purchase.customer] += purchase.amount
    # One of them carries enough to try more than a single payment may be.
    spent[min(spent)] += RICH
    return {
        customer: min(FUNDED_MOST, max(FUNDED_LEAST, -(-amount // 1000) * 1000))
        for customer, amount in spent.items()
    }


class Branch:
    """A gateway with a till, the wallets of its customers and of the shop."""

    def __init__(self, gateway: Gateway, client: Client) -> None:
        self.gateway = gateway
        self.client = client
        self.journal = client.terminal.gateway
        self.shop = DeviceKey(gateway.name.encode().ljust(32, b"\x01"))
        self.customers: dict[int, DeviceKey] = {}
        self._sequences: Counter[str] = Counter()

    def key_of(self, customer: int) -> DeviceKey:
        """A customer's device."""
        return self.customers[customer]

    def order(
        self,
        purchase: Purchase,
        payee: DeviceKey,
        payee_journal: str,
        now_ms: int,
        **changes: Any,
    ) -> bytes:
        """The customer's signed order; its sequence counts on when it was accepted."""
        key = self.key_of(purchase.customer)
        claims: dict[str, Any] = {
            "sequence": self._sequences[key.text],
            "payee": parse_wallet(payee.text),
            "payee_journal": parse_journal(payee_journal),
            "amount_minor": purchase.amount,
            "currency": "EUR",
            "created_ms": now_ms,
            "expires_ms": now_ms + 7 * DAY_MS,
            "kind": 0,
            "authorisation": 0,
            "reference": f"purchase {purchase.number} of {purchase.date}",
            "payer_journal": parse_journal(self.journal),
            "payer_epoch": 1,
        }
        return key.sign_order(**{**claims, **changes})

    def accepted(self, customer: int) -> None:
        """The wallet's next order has the next sequence."""
        self._sequences[self.key_of(customer).text] += 1

    async def wallet(self, key: DeviceKey) -> WalletAnswer:
        """The gateway's word on a wallet."""
        return await self.client.call("GET", f"/v1/wallets/{key.text}", WalletAnswer)


class Tally:
    """What became of the purchases."""

    def __init__(self) -> None:
        self.paid = 0
        self.minor = 0
        self.notes = 0
        self.notes_refused: Counter[str] = Counter()
        self.repeated = 0
        self.refused: Counter[str] = Counter()
        self.receipts: list[PaymentAnswer] = []


class Replay:
    """Replays purchases through the tills of two branches."""

    def __init__(self, branches: tuple[Branch, Branch], tally: Tally) -> None:
        self._branches = branches
        self.tally = tally
        self._orders: dict[int, bytes] = {}
        self._paid: set[str] = set()

    def home(self, customer: int) -> Branch:
        """The branch that keeps the customer's wallet."""
        return self._branches[customer % 2]

    def till(self, purchase: Purchase) -> Branch:
        """The branch where it is bought: now and then the other one."""
        stranger = purchase.number % 7 == 0
        return self._branches[(purchase.customer + stranger) % 2]

    async def buy(self, purchase: Purchase, *, now_ms: int) -> None:
        """One purchase; after a failure the same order is sent again, never a new one.

        Raises: GatewayUnreachable when the power is gone.
        """
        home, till = self.home(purchase.customer), self.till(purchase)
        order = self._orders.get(purchase.number)
        if order is None:
            order = home.order(purchase, till.shop, till.journal, now_ms)
            self._orders[purchase.number] = order
        body = PaymentBody(order=Octets(order))
        try:
            paid = await home.client.call("POST", "/v1/payments", PaymentAnswer, body=body)
        except OrderRefused as refusal:
            self.tally.refused[refusal.problem] += 1
            return
        self._count(purchase, home, paid)
        if paid.note_for is not None:
            await self._redeem(till, paid)

    def _count(self, purchase: Purchase, home: Branch, paid: PaymentAnswer) -> None:
        self.tally.repeated += paid.reprint
        if paid.id in self._paid:
            return
        self._paid.add(paid.id)
        home.accepted(purchase.customer)
        self.tally.paid += 1
        self.tally.minor += purchase.amount
        self.tally.receipts.append(paid)

    async def attempt(self, customer: int, **changes: Any) -> str:
        """Send an order that differs from a right one in some claims; the code of its refusal."""
        home = self.home(customer)
        wrong = Purchase(number=10**6, customer=customer, date="today", amount=100)
        order = home.order(wrong, home.shop, home.journal, now_ms(), **changes)
        if changes.get("amount_minor") == FORGED:
            # Another amount under the same signature.
            order = order.replace(encode(FORGED), encode(FORGED + 1))
        body = PaymentBody(order=Octets(order))
        try:
            await home.client.call("POST", "/v1/payments", PaymentAnswer, body=body)
        except OrderRefused as refusal:
            return refusal.problem
        return "accepted"

    async def _redeem(self, till: Branch, paid: PaymentAnswer) -> None:
        note = NoteBody(entry=paid.entry, receipt=paid.receipt)
        try:
            await till.client.call("POST", "/v1/notes", PaymentAnswer, body=note)
            self.tally.notes += 1
        except OrderRefused as refusal:
            self.tally.notes_refused[refusal.problem] += 1


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000
