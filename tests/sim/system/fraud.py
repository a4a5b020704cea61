"""The scenario of the public simulator sjure/CBDC-offline-sim against this system.

There, 50 people of whom one in ten cheats pay each other offline while the intermediary is away
most of the time; a cheater's wallet has lost its protection: it pays what it does not have and
shows no history. Its four cases (no protection; a ban list after consolidation; the payee validates
what it sees; payees gossip) have 159 attempts each at seed 1 with the script's own parameters and
50 ticks to recover. Here, 45 honest holders at five gateways meet five devices that were broken
into, and as many attempts are made: by value from nowhere, by a clone, by an older store. Boxes,
line and issuer are those of `tests.sim.system`.
"""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from cloud.database import Database
from cloud.issuer.lists import ListChange, change_list, held
from tests.sim.system import world as worlds
from tests.sim.system.box import Box
from tests.sim.system.checks import borne, money
from tests.sim.system.issuer import JOURNAL, Issuer
from tests.sim.system.people import HOUR_MS, Holder, Note
from wallet.journal import Mode, Receipted
from wallet.protocol.lists import ListId
from wallet.protocol.policy import JournalLimit

ATTEMPTS, AMOUNT = 159, 1_000
CHEATERS, HONEST_EACH = 5, 9
# What the policy lets a gateway hold of value that the issuer has not settled.
EXPOSURE = 8 * AMOUNT
# The intermediary is away for most of its 250 ticks: it fails every fourth, is back after fifty.
TICK_MS = HOUR_MS
FAILS, RECOVERS = 1 / 4, 1 / 50
LATE_MS = 200 * 24 * HOUR_MS


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One row. `accepted`: a payee took it; `beyond`: past what the policy exposes a gateway to."""

    name: str
    attempts: int
    accepted: int
    beyond: int
    detected: int
    created_minor: int
    borne_minor: int


class Fraud(worlds.World):
    """The world of the scenario."""

    def __init__(self, seed: int, database: Database, folder: Path) -> None:
        super().__init__(seed, database, folder)
        limits = {**JOURNAL, JournalLimit.EXPOSURE_HARD: EXPOSURE}
        self.issuer = Issuer(database, random.Random(seed), journal=limits)
        self.attempts = self.beyond = 0
        self.accepted: list[Note] = []
        self.counts: dict[str, int] = {}

    def sizes(self) -> tuple[int, int, int]:
        """See `World`."""
        return worlds.GATEWAYS, CHEATERS, HONEST_EACH

    def funded(self, box: Box) -> int:
        """A cheater has one payment's worth of its own."""
        return AMOUNT if box in self.devices else worlds.FUNDED

    def plan(self) -> None:
        """Nobody else cheats than all devices, all the time."""
        for box in self.devices:
            for holder in self.at(box):
                holder.honest = False

    async def begin(self) -> None:
        """Cheaters spend what is theirs, and keep the store of before."""
        await super().begin()
        for box in self.devices:
            (cheater,) = self.at(box)
            box.copy_store(self._unspent(box))
            self.counts[box.name] = box.token.count
            await self._spend(box, cheater, self._payee())
        self.accepted = []

    def _unspent(self, box: Box) -> Path:
        return self.folder / f"{box.name}-unspent"

    def _payee(self) -> Holder:
        return self.chance.choice([holder for holder in self.people.holders if holder.honest])

    async def live(self, *, days: int = 0) -> None:
        """Until all attempts are made, however long it takes; then everything arrives."""
        while self.attempts < ATTEMPTS:
            self.now_ms += TICK_MS
            for box in self.boxes:
                self.tick(box)
                line = self.line(box)
                if self.chance.random() < (RECOVERS if line.cut else FAILS):
                    line.cut = not line.cut
            await self._ordinary()
            await self._attempts()
            await self._talk()
        await self.heal()
        await self._revoke()

    async def _ordinary(self) -> None:
        payer, payee = self.chance.sample(self.people.holders, 2)
        if payer.honest:
            await self.people.pay(payer, payee, 100, now_ms=self.now_ms)

    async def _attempts(self) -> None:
        for box in self.devices:
            if self.attempts < ATTEMPTS and self.chance.random() < 1 / 5:
                self.attempts += 1
                await self._attempt(box)

    async def _attempt(self, box: Box) -> None:
        """Pay what is spent already, in the way that is this device's own."""
        (cheater,) = self.at(box)
        way = self.devices.index(box) % 3
        if way == 0:
            # The process was broken into: its balance never falls.
            if box.is_open:
                self._refill(box, cheater)
                await self._spend(box, cheater, self._payee())
        elif way == 1:
            # The key was copied: a clone spends what the original has spent.
            other = box.clone(self.folder / f"{box.name}-{self.attempts}")
            other.token.count = self.counts[box.name]
            await other.put_back(self._unspent(box))
            await self._spend(other, cheater, self._payee())
            await other.crash()
        else:
            # The hardware is sound: the older store is put back, as often as it opens.
            await box.put_back(self._unspent(box))
            await self._spend(box, cheater, self._payee())

    def _refill(self, box: Box, cheater: Holder) -> None:
        wallets = box.journal.state.wallets
        poor = wallets[cheater.id]
        wallets[cheater.id] = msgspec.structs.replace(poor, settled=poor.settled + AMOUNT)

    async def _spend(self, box: Box, cheater: Holder, payee: Holder) -> None:
        cheater.sequence = box.journal.state.wallets[cheater.id].next_sequence
        order = self.people.order(cheater, payee, AMOUNT, now_ms=self.now_ms)
        made = await box.journal.pay(order)
        if not isinstance(made, Receipted):
            return
        self.people.take_receipt(cheater, payee, AMOUNT, made)
        note = payee.notes[-1]
        if await self.people.redeem(note) != "redeemed":
            return
        self.accepted.append(note)
        state = payee.home.journal.state
        if state.unsettled_total > EXPOSURE:
            self.beyond += 1

    async def _talk(self) -> None:
        for box in self.boxes:
            if not self.line(box).cut and box.running:
                await self.sync(box)
        await self._revoke()

    async def _revoke(self) -> None:
        """An officer puts every journal that was convicted on the list."""
        async with self.issuer.database.transaction() as connection:
            known = await held(connection, ListId.JOURNALS)
            listed = frozenset() if known is None else known.items
            rows = await connection.fetch(
                "SELECT journal, epoch FROM journal_epoch WHERE state = 'suspended'"
            )
            added = {(row["journal"], row["epoch"]): () for row in rows}
            fresh = {place: names for place, names in added.items() if place not in listed}
            if fresh:
                await change_list(
                    connection,
                    self.issuer.desk,
                    ListId.JOURNALS,
                    ListChange(added=fresh),
                    actor="world",
                    now_ms=self.now_ms,
                )

    async def account(self) -> Case:
        """What it came to."""
        await self.issuer.give_back(now_ms=self.now_ms + LATE_MS)
        async with self.issuer.database.transaction() as connection:
            total = await money(connection)
            rows = await connection.fetch(
                "SELECT journal FROM journal_epoch WHERE state = 'suspended'"
            )
        caught = {row["journal"] for row in rows}
        frozen = {box.id for box in self.devices if box.journal.mode is Mode.FROZEN_ROLLBACK}
        honest = {box.id for box in self.gateways}
        assert not caught & honest, "an honest gateway was suspended"
        return Case(
            name="this system",
            attempts=self.attempts,
            accepted=len(self.accepted),
            beyond=self.beyond,
            detected=sum(1 for n in self.accepted if n.payer.home.id in caught | frozen),
            created_minor=total.difference,
            borne_minor=borne(total),
        )


async def run(seed: int, database: Database, folder: Path) -> Case:
    """The whole scenario."""
    made = Fraud(seed, database, folder)
    try:
        await made.begin()
        await made.live()
        return await made.account()
    finally:
        await made.end()
