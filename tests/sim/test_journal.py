"""Crashes at named points of the journal, by a seed: money is kept, nothing counts twice.

Each step pays, settles, takes a list, sends an old order again, or lets the next payment die at
a named point. After a crash everybody who has no receipt sends the same order again.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

from tests.support.gateway import FUNDED_MINOR, Gateway, taken
from tests.support.world import picture
from wallet.journal import Mode, Receipted
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.messages import decode_order
from wallet.protocol.refusals import Refusal
from wallet.store.connection import Connection

POINTS = ("before-commit", "after-commit", "in-window", "after-sign", "token-refuses")
STEPS = 24
FEW = 4


class PowerCut(BaseException):
    """The machine is off: nothing that runs on it may catch this."""


class Journey:
    """One gateway through payments and crashes."""

    def __init__(self, box: Gateway, chance: random.Random) -> None:
        self.box = box
        self.chance = chance
        self.receipts: dict[bytes, Receipted] = {}
        self.sent: list[bytes] = []
        self.lists = 0

    def orders(self) -> list[bytes]:
        """Some new orders."""
        made = []
        for _ in range(self.chance.randint(1, FEW)):
            payer, payee = self.chance.sample(range(3), 2)
            made.append(self.box.order(payer, payee, amount_minor=self.chance.randint(1, 1000)))
        return made

    def keep(self, order: bytes, outcome: Receipted | Refusal) -> None:
        """A receipt that was released has to stand for ever."""
        if isinstance(outcome, Receipted):
            self.box.verified(outcome)
            self.receipts[decode_order(order).identity] = outcome

    async def send(self, orders: list[bytes]) -> list[Receipted | Refusal]:
        """Send orders together."""
        outcomes = await asyncio.gather(*[self.box.journal.pay(order) for order in orders])
        for order, outcome in zip(orders, outcomes, strict=True):
            self.keep(order, outcome)
        return outcomes

    async def pay(self) -> None:
        """New orders, and sometimes one that was sent before."""
        orders = self.orders()
        self.sent += orders
        again = self.chance.sample(self.sent, min(2, len(self.sent)))
        for outcome in await self.send(orders + again):
            taken(outcome)
        self.box.clock.wall_ms += self.chance.randint(-500, 5_000)
        self.box.clock.steady_ms += 1_000

    async def settle(self) -> None:
        """The issuer settles some of it, and acknowledges."""
        state = self.box.journal.state
        size = self.chance.randint(max(1, state.settled_size), state.size)
        self.box.clock.wall_ms = max(self.box.clock.wall_ms, state.settled_ms + 1)
        taken(await self.box.journal.settle(await self.box.settlement(size)))
        await self.box.journal.acknowledge(size)

    async def list(self) -> None:
        """A newer list."""
        taken(await self.box.take_list(5, [], sequence=self.lists))
        self.lists += 1

    async def stop(self) -> None:
        """An orderly restart changes nothing."""
        before = picture(self.box.journal.state)
        await self.box.reopen()
        assert picture(self.box.journal.state) == before

    async def crash(self) -> None:
        """Orders that die at a point; then the same orders again."""
        point, orders = self.chance.choice(POINTS), self.orders()
        self.sent += orders
        self.arm(point)
        failed = self.box.journal._engine.failed
        dying = [decode_order(order) for order in orders]
        work = _power_cut if point == "before-commit" else None
        outcomes = await asyncio.gather(
            *[
                self.box.journal.pay_decoded(Payment(order=order, request=None), with_commit=work)
                for order in dying
            ]
        )
        for order, outcome in zip(orders, outcomes, strict=True):
            self.keep(order, outcome)
        await self.box.crash()
        if point != "token-refuses":
            assert isinstance(failed.exception(), PowerCut)
        self.disarm()
        journal = await self.box.open()
        assert journal.mode is Mode.OPEN
        for outcome in await self.send(orders):
            taken(outcome)

    def arm(self, point: str) -> None:
        """Make the token fail at a point."""
        token = self.box.token
        if point == "after-commit":
            token.before_sign = _power_cut
        elif point == "after-sign":
            token.after_sign = _power_cut
        elif point == "in-window":
            self.box.clock.steady_ms += 10**9
            token.before_sign = _power_cut
        elif point == "token-refuses":
            token.gone = True

    def disarm(self) -> None:
        """The token is whole again."""
        token = self.box.token
        token.before_sign = token.after_sign = lambda: None
        token.gone = False

    async def check(self) -> None:
        """Conserved; no order twice; every receipt released is in the journal."""
        journal, state = self.box.journal, self.box.journal.state
        assert len(await self.send(self.sent)) == len(self.receipts)
        raws = await journal.entries(0, state.size)
        entries = [decode_entry(raw) for raw in raws]
        orders = [made.body.order for made in entries if isinstance(made.body, Payment)]
        assert state.balance_total() == 3 * FUNDED_MINOR
        assert all(count == 1 for count in Counter(o.identity for o in orders).values())
        assert {decode_order(order).identity for order in self.sent} == {
            order.identity for order in orders
        }
        times = [made.time_ms for made in entries]
        assert times == sorted(times)
        for identity, made in self.receipts.items():
            assert raws[made.index] == made.entry
            assert await journal.find(identity) == made.index


def _power_cut(connection: Connection | None = None) -> None:
    raise PowerCut


async def test_crashes_lose_nothing_and_count_nothing_twice(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    box = Gateway(tmp_path)
    await box.create(limits={105: 10, 106: 60})
    journey = Journey(box, chance)
    steps = (journey.pay, journey.settle, journey.list, journey.stop, journey.crash)
    for step in chance.choices(steps, weights=(10, 3, 2, 1, 6), k=STEPS):
        await step()
    await journey.check()
    await box.close()
