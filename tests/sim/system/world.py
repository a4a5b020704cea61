"""Thirty days of five gateways, ten devices and thirty holders, by a seed.

The world moves in steps of three hours. In each, people pay and redeem notes, boxes find their line
or do not, crash in the middle of a step, or have a wrong clock; tills carry receipts from branch to
branch; cheats act when their time has come. In the end all lines are good, and what is on its way
arrives.
"""

from __future__ import annotations

import random
from pathlib import Path

from cloud.database import Database
from tests.sim.system.box import Box
from tests.sim.system.cheats import CHEATS, Cheat
from tests.sim.system.issuer import Issuer
from tests.sim.system.lan import Lan
from tests.sim.system.line import Line
from tests.sim.system.people import DAY_MS, HOUR_MS, Holder, People
from tests.support.issuer import Key
from wallet.faults import POINTS, Point
from wallet.journal import Receipted

START_MS = 1_790_000_000_000
DAYS, STEP_MS = 30, 3 * HOUR_MS
GATEWAYS, DEVICES, PER_GATEWAY = 5, 10, 4
FUNDED = 50_000
PAYMENTS = 4
HEALING_ROUNDS = 12
# Hours by which clocks of honest boxes may be wrong for a while.
WRONG_HOURS = (-30, -2, -1, 1, 2)
_NEVER_IN_A_STEP = {
    Point.BEFORE_OPENING,
    Point.OPENING_WRITTEN,
    Point.CHAIN_WRITTEN,
    Point.WINDOW_WRITTEN,
    Point.OPENED,
}
ENDINGS = [point for point in POINTS if point not in _NEVER_IN_A_STEP]


class World:
    """Everything; `live` is its thirty days."""

    def __init__(self, seed: int, database: Database, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.chance = random.Random(seed)
        self.now_ms = START_MS
        self.issuer = Issuer(database, random.Random(f"issuer {seed}"))
        self.people: People
        self.boxes: list[Box] = []
        self.cheats: list[Cheat] = []
        # (time, gateway, receipt): what a till will bring somewhere.
        self.later: list[tuple[int, Box, Receipted]] = []
        self.lan = Lan()
        # Lists that a gateway had of another one while it had no line.
        self.heard = 0
        self.crashes = 0
        self.story: list[tuple[object, ...]] = []

    # ---- who is there ---------------------------------------------------------------------
    @property
    def gateways(self) -> list[Box]:
        """The branches' boxes."""
        return self.boxes[:GATEWAYS]

    @property
    def devices(self) -> list[Box]:
        """Holders' own."""
        return self.boxes[GATEWAYS:]

    def honest_gateways(self) -> list[Box]:
        """Those that nobody cheats with."""
        return [box for box in self.gateways if box not in self.culprits()]

    def culprits(self) -> list[Box]:
        """Boxes that are meant to cheat, now or later."""
        return [cheat.culprit for cheat in self.cheats]

    def at(self, box: Box) -> list[Holder]:
        """Holders whose wallet is there."""
        return [holder for holder in self.people.holders if holder.home is box]

    def line(self, box: Box) -> Line:
        """Its line."""
        assert isinstance(box.transport, Line)
        return box.transport

    def sizes(self) -> tuple[int, int, int]:
        """How many gateways, devices, and holders at each gateway."""
        return GATEWAYS, DEVICES, PER_GATEWAY

    def funded(self, box: Box) -> int:
        """What a holder there begins with."""
        return FUNDED

    # ---- the beginning --------------------------------------------------------------------
    async def begin(self) -> None:
        """Everybody is enrolled and funded, and the issuer knows."""
        await self.issuer.begin(now_ms=self.now_ms)
        self.people = People(self.chance, self.issuer.anchor)
        gateways, devices, each = self.sizes()
        names = [f"gate{n}" for n in range(gateways)] + [f"device{n}" for n in range(devices)]
        for name in names:
            box = Box(
                name, self.folder / name, chance=self.chance, seed=self.seed, now_ms=self.now_ms
            )
            box.transport = Line(self.issuer, box.id, self.chance, now_ms=lambda: self.now_ms)
            self.line(box).quiet = True
            if len(self.boxes) < gateways:
                self.lan.join(box)
            await self.issuer.admit(box, now_ms=self.now_ms)
            self.boxes.append(box)
            for number in range(each if box in self.gateways else 1):
                await self._settle_in(f"{name}-{number}", box)
        for box in self.boxes:
            for _ in range(2):
                self._note(await box.sync())
        for box in self.boxes:
            self.line(box).quiet = False
        self.plan()

    async def _settle_in(self, name: str, box: Box) -> None:
        amount = self.funded(box)
        holder = Holder(name, Key(f"{self.seed}-{name}"), box, funded=amount)
        self.people.holders.append(holder)
        await self.issuer.enrol(box, holder.key.public, now_ms=self.now_ms)
        await self.issuer.fund(box, holder.id, amount, now_ms=self.now_ms)

    @staticmethod
    def kinds(seed: int) -> list[type[Cheat]]:
        """Two cheats of gateways and two of devices, in turns: a few seeds have them all."""
        chosen = []
        for from_device in (False, True):
            kinds = [kind for kind in CHEATS if kind.from_device is from_device]
            chosen += [kinds[(2 * seed + number) % len(kinds)] for number in range(2)]
        return chosen

    def plan(self) -> None:
        """Who cheats, how, and from when on."""
        boxes = self.chance.sample(self.gateways, 2) + self.chance.sample(self.devices, 2)
        for kind, box in zip(self.kinds(self.seed), boxes, strict=True):
            cheater = self.chance.choice(self.at(box))
            at_ms = START_MS + self.chance.randint(2, 12) * DAY_MS
            cheat = kind(self, box, cheater, at_ms=at_ms)
            cheater.honest = not cheat.needs_holder
            self.cheats.append(cheat)

    # ---- thirty days ----------------------------------------------------------------------
    async def live(self, *, days: int = DAYS) -> None:
        """All of it, or less."""
        for step in range(days * DAY_MS // STEP_MS):
            self.now_ms += STEP_MS
            for box in self.boxes:
                self.tick(box)
            if step % 24 == 23:
                await self.issuer.refresh(now_ms=self.now_ms)
            if self.chance.random() < 0.02:
                self.issuer.restart()
            await self._trouble()
            await self._pay()
            await self._redeem()
            await self._cheat()
            await self._carry()
            await self._listen()
            await self._sync()
            self.story.append(self._told())
        await self.heal()

    def tick(self, box: Box) -> None:
        """Its clock goes on, right or wrong."""
        wrong_ms = box.wrong_hours * HOUR_MS
        box.clock.wall_ms = self.now_ms + wrong_ms
        box.clock.steady_ms += STEP_MS

    async def _trouble(self) -> None:
        for box in self.boxes:
            line = self.line(box)
            if self.chance.random() < (0.04 if line.cut else 0.015):
                line.cut = not line.cut
            if box in self.culprits():
                continue
            if self.chance.random() < (0.1 if box.wrong_hours else 0.01):
                box.wrong_hours = 0 if box.wrong_hours else self.chance.choice(WRONG_HOURS)
            if self.chance.random() < 0.012:
                self.crashes += 1
                await box.restart()
            elif self.chance.random() < 0.012:
                box.faults.point = self.chance.choice(ENDINGS)

    async def _pay(self) -> None:
        for _ in range(PAYMENTS):
            payer = self.chance.choice(self.people.holders)
            payee = self._payee_of(payer)
            if not payer.honest or not payer.home.running:
                continue
            amount = self.chance.randint(50, 4_000)
            await self.people.pay(payer, payee, amount, now_ms=self.now_ms)
        again = self.chance.choice(self.people.holders)
        if again.honest and again.home not in self.culprits() and self.chance.random() < 0.3:
            await self.people.pay_again(again, now_ms=self.now_ms)

    def _payee_of(self, payer: Holder) -> Holder:
        """A neighbour, somebody elsewhere, or now and then the payer's own online account."""
        what = self.chance.random()
        if what < 0.03:
            return payer
        near = [holder for holder in self.at(payer.home) if holder is not payer]
        if near and what < 0.6:
            return self.chance.choice(near)
        far = [holder for holder in self.people.holders if holder.home is not payer.home]
        return self.chance.choice(far)

    async def _redeem(self) -> None:
        for holder in self.people.holders:
            if holder.notes and self.chance.random() < 0.3 and holder.home.running:
                await self.people.redeem(self.chance.choice(holder.notes))
        if self.people.notes and self.chance.random() < 0.2:
            # Somebody brings a note again, or to another branch.
            note = self.chance.choice(self.people.notes)
            at = self.chance.choice((note.payee.home, *self.gateways))
            if at.running and (note.redeemed or at is not note.payee.home):
                known = note.redeemed
                outcome = await self.people.redeem(note, at=at)
                assert known or outcome != "redeemed"

    async def _cheat(self) -> None:
        for cheat in self.cheats:
            if not cheat.done and not cheat.prevented and self.now_ms >= cheat.at_ms:
                await cheat.act()

    async def _carry(self) -> None:
        """Tills bring receipts from branch to branch."""
        due = [item for item in self.later if item[0] <= self.now_ms and item[1].running]
        self.later = [item for item in self.later if item not in due]
        for _, box, made in due:
            await self._hand_in(box, made)
        if self.chance.random() < 0.1:
            seen = [made for items in self.people.tills.values() for made in items[-20:]]
            if seen:
                await self._hand_in(self.chance.choice(self.gateways), self.chance.choice(seen))

    async def _hand_in(self, box: Box, made: Receipted) -> None:
        if box.running:
            await self.people.hand_in(box, made)

    async def _listen(self) -> None:
        """Gateways ask those next door for newer lists, whether they have a line or not."""
        self.lan.cut = self.chance.random() < 0.3
        for box in self.honest_gateways():
            if box.running and self.chance.random() < 0.1:
                await self.ask_next_door(box)

    async def ask_next_door(self, box: Box) -> None:
        """Once; the process may end in the middle of it."""
        taken = await box.neighbours.ask_all()
        if self.line(box).cut:
            self.heard += taken
        await box.revive()

    async def _sync(self) -> None:
        for box in self.boxes:
            share = 0.06 if box in self.gateways else 0.02
            if self.chance.random() < share and box.running:
                await self.sync(box)

    async def sync(self, box: Box) -> None:
        """One session; the process may end in the middle of it."""
        self._note(await box.sync())
        await box.revive()

    def _note(self, outcome: str) -> None:
        self.people.outcomes[f"sync {outcome.partition(':')[0]}"] += 1

    def _told(self) -> tuple[object, ...]:
        """What a step came to, for those who ask whether a seed tells the same story again."""
        roots = [box.journal._engine.frontier.root() for box in self.boxes]
        return (*roots, *[box.journal.acknowledged for box in self.boxes])

    # ---- the end --------------------------------------------------------------------------
    async def heal(self) -> None:
        """Every line is good, every box runs, and what is on its way arrives."""
        for box in self.boxes:
            box.faults.point, box.wrong_hours = None, 0
            self.line(box).cut, self.line(box).quiet = False, True
            self.tick(box)
        for number in range(HEALING_ROUNDS):
            # Then time stands still, for the issuer settles anew whenever it has gone on.
            self.now_ms += 2 * HOUR_MS if number < 2 else 0
            before = self._told()
            for box in self.boxes:
                box.clock.wall_ms = max(box.clock.wall_ms, self.now_ms)
                await self._finish(box)
            if number > 1 and self._told() == before:
                return

    async def _finish(self, box: Box) -> None:
        await self.line(box).deliver_late(everything=True)
        if box.gone:
            return
        for holder in self.at(box):
            if holder.waiting is not None:
                await self.people.pay(holder, holder, 1, now_ms=self.now_ms)
            for note in list(holder.notes):
                await self.people.redeem(note)
        for _, gateway, made in self.later:
            await self._hand_in(gateway, made)
        self.later = []
        await self.sync(box)

    async def end(self) -> None:
        """Let go of all boxes."""
        for box in self.boxes:
            if box.running:
                await box.crash()
