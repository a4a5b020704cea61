"""A head and more databases; what they tell each other is delivered by the test, in any order."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from cloud.database import Database
from cloud.ledger.conservation import Conservation, discrepancies
from cloud.reconciler.returns import return_expired_notes
from cloud.reconciler.stragglers import sweep
from cloud.shards.account import account_of_all, waiting_of
from cloud.shards.homes import settle_down
from cloud.shards.reconcilers import Reconcilers
from cloud.shards.relay import Relay, Taker
from cloud.shards.shards import Shards, identify
from cloud.stream.api import Delivery, Figures, Message
from tests.support.arrivals import picture_of
from tests.support.reporting import SUPPLY, Branch, WorldSigning
from tests.support.world import ANCHOR, NOW_MS

ISSUER = b"the test's issuer"[:16]


class SetClock:
    """Time that the test sets."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        """See `Clock`."""
        return self.ms

    def monotonic_ms(self) -> int:
        """See `Clock`."""
        return self.ms


class Mailbox:
    """A stream whose messages lie there until the test delivers them, or loses them."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish(self, message: Message) -> None:
        """See `Stream`."""
        self.messages.append(message)

    async def deliveries(self, subject: str, *, ahead: int = 1) -> AsyncGenerator[Delivery, None]:
        """Nothing comes by itself: the test takes messages out."""
        for each in list[Delivery]():
            yield each

    async def figures(self) -> Figures:
        """See `Stream`."""
        return Figures(waiting=len(self.messages), redelivered=0, parked=0)

    async def close(self) -> None:
        """See `Stream`."""


class Several:
    """Shards of the test's world."""

    def __init__(self, databases: Sequence[Database], choice: random.Random) -> None:
        self.shards = Shards(databases)
        self.choice = choice
        self.clock = SetClock()
        self.box = Mailbox()
        self.relay = Relay(self.shards, self.box, self.clock)
        self.restart()

    def restart(self) -> None:
        """Another process goes on: nothing is in memory."""
        self.shards = Shards([database for _, database in self.shards])
        self.reconciling = Reconcilers(self.shards, anchor=ANCHOR, signing=WorldSigning())
        self.takers = [
            Taker(self.shards, number, anchor=ANCHOR, stream=self.box, clock=self.clock)
            for number, _ in self.shards
        ]

    @property
    def head(self) -> Database:
        """Where the online wallets are."""
        return self.shards.head

    async def name(self) -> Several:
        """Let each database know its number."""
        for number, database in self.shards:
            async with database.transaction() as connection:
                await identify(connection, number, ISSUER if number else None, ISSUER)
        return self

    async def house(self, *places: tuple[Branch, int]) -> None:
        """Let branches live at these shards."""
        async with self.head.transaction() as connection:
            for branch, number in places:
                home = await settle_down(connection, branch.book.journal, number, now_ms=NOW_MS)
                assert home == number

    async def publish(self) -> list[Message]:
        """What is told now, taken out of the stream."""
        for number, _ in self.shards:
            await self.relay.publish(number)
        found, self.box.messages = self.box.messages, []
        return found

    async def deliver(self, message: Message) -> None:
        """Let the shard that it is for take a message."""
        await self.takers[int(message.subject.removeprefix("shard."))].take(message.body)

    async def sync(self, *branches: Branch) -> None:
        """Report one after the other; what that makes shards tell each other is taken."""
        for branch in branches:
            assert (await branch.sync(self.reconciling)).problem is None
            await self.drain()

    async def states(self, *branches: Branch) -> list[str]:
        """What the issuer holds of journals' epochs, where they live."""
        found = []
        for branch in branches:
            database = self.shards.database(await self.shards.home_of(branch.book.journal))
            async with database.transaction() as connection:
                state = await connection.fetchval(
                    "SELECT state FROM journal_epoch WHERE journal = $1 AND epoch = $2",
                    *(branch.book.journal, branch.book.epoch),
                )
            found.append(state)
        return found

    async def return_notes(self, *, now_ms: int) -> int:
        """Notes nobody redeemed, of all shards."""
        found = 0
        for number, database in self.shards:
            here = self.shards.here(number)
            found += await return_expired_notes(database, now_ms=now_ms, here=here)
        await self.drain()
        return found

    async def drain(self, *, lost: float = 0.0, twice: float = 0.0) -> None:
        """Deliver all in any order, some of it twice and some of it only when it is sent again."""
        old: list[Message] = []
        while True:
            found = [m for m in await self.publish() if self.choice.random() >= lost]
            old += found
            again = [m for m in old if self.choice.random() < twice]
            for message in self.choice.sample([*found, *again], len(found) + len(again)):
                await self.deliver(message)
            if not found and not await self.waiting():
                return
            self.clock.ms += 1_000_000

    async def waiting(self) -> int:
        """Messages that are not known to be taken."""
        found = 0
        for _, database in self.shards:
            async with database.transaction() as connection:
                found += await waiting_of(connection)
        return found

    async def taken(self) -> int:
        """Messages that were taken."""
        found = 0
        for _, database in self.shards:
            async with database.transaction() as connection:
                found += await connection.fetchval("SELECT count(*) FROM shard_taken")
        return found

    async def sweep(self) -> None:
        """Upkeep of each shard."""
        for _, database in self.shards:
            await sweep(database, ANCHOR, now_ms=NOW_MS)

    async def everywhere(self) -> list[Conservation]:
        """Where the value of each currency is: everything adds up, or the test fails."""
        async with self.head.transaction() as connection:
            found = await account_of_all(self.shards, connection)
        for _, database in self.shards:
            async with database.transaction() as connection:
                assert await discrepancies(connection) == []
        assert {(line.difference, line.issued) for line in found} == {(0, SUPPLY)}
        return found

    async def where(self) -> Conservation:
        """The same of one currency."""
        (found,) = await self.everywhere()
        return found

    async def picture(self) -> dict[str, Any]:
        """As `picture_of` shows one database: what is between shards shows as well."""
        total: dict[str, Any] = {"verdicts": set(), "balances": {}, "notes": set(), "epochs": set()}
        for _, database in self.shards:
            one = await picture_of(database)
            for part in ("verdicts", "notes", "epochs"):
                total[part] |= one[part]
            for account, balance in one["balances"].items():
                name = _of_both_ends(account)
                total["balances"][name] = total["balances"].get(name, 0) + balance
        total["balances"] = {name: sum_ for name, sum_ in total["balances"].items() if sum_}
        return total


def _of_both_ends(account: str) -> str:
    """An account between two shards is the same one at both of them: they sum up to nothing."""
    lead, *rest = account.split("/")
    return "/".join((lead, rest[0], rest[2])) if lead == "between" else account
