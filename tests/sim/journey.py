"""One gateway through what people do and what goes wrong, step by step, by a seed."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

from hsm.api import HsmError
from tests.sim.disk import PowerCut
from tests.sim.ledger import Errand, check_books, check_receipts
from tests.sim.people import HOUR_MS, People
from tests.sim.token import COUNTERS
from tests.sim.world import LIMITS, SimulatedGateway, template, tried
from tests.support.vfs import watched
from wallet.faults import POINTS, Point
from wallet.journal import Mode, Receipted, engine
from wallet.journal.names import FLUSH_ENTRIES
from wallet.protocol.entry import Clock as Certainty
from wallet.protocol.entry import Close, EntryKind, decode_entry
from wallet.protocol.issued import decode_enrolment, decode_grant, decode_list, decode_policy
from wallet.protocol.refusals import Code, Refusal
from wallet.store.errors import StoreError

STEPS = 24
FEW = 3
# The share of steps after which everything is checked; it is after each power cut.
CHECKED = 0.15
# Some seeds begin just below the size at which a node of the tree is stored by itself.
MANY, MANY_EVERY = 236, 8
# Points that a life passes once and that its template has behind it.
OPENING = {
    Point.BEFORE_OPENING,
    Point.OPENING_WRITTEN,
    Point.CHAIN_WRITTEN,
    Point.WINDOW_WRITTEN,
    Point.OPENED,
}
PASSED = [point for point in POINTS if point not in OPENING]
MIXED = set(EntryKind) - {EntryKind.CLOSE}
Step = Callable[[], Awaitable[None]]


class Journey:
    """One gateway through payments and misfortunes."""

    def __init__(self, box: SimulatedGateway, chance: random.Random) -> None:
        self.box = box
        self.chance = chance
        self.people = People(box, chance)
        self.holders = self.people.holders
        self.true_ms = box.clock.wall_ms
        self.lists = 0
        # Size, mode, counter and receipts after each step.
        self.story: list[tuple[int, str, int, int]] = []

    # ---- what people do ---------------------------------------------------------------------
    def _errands(self) -> list[Errand]:
        """New errands of those who wait for nothing; else what they wait for, again."""
        made: list[Errand] = []
        for _ in range(self.chance.randint(1, FEW)):
            payer = self.chance.randrange(3)
            if not self.holders.open.get(self.box.wallet(payer)):
                made += self.people.orders(payer, now_ms=self.true_ms)
        if self.chance.random() < 0.3:
            made += self.people.note(self.true_ms)
        if self.chance.random() < 0.1:
            made.append(self.people.void(self.true_ms))
        made += [errand for errand in self.holders.waiting() if errand not in made]
        again = self.chance.sample(self.holders.sent, min(1, len(self.holders.sent)))
        return made + [errand for errand in again if errand not in made]

    async def pay(self) -> None:
        """Errands that arrive together, hosted wallets' among them."""
        await self._run(self._errands(), hosted=self.chance.random() < 0.4)
        if self.chance.random() < 0.3:
            self.people.deliver(self.true_ms)

    async def _run(self, errands: list[Errand], *, hosted: bool = False) -> None:
        journal = self.box.journal
        floor_ms, wall_ms = journal._clock.floor_ms, self.box.clock.wall_ms
        asked = [errand.ask(journal) for errand in errands]
        beside = [self.people.hosted()] if hosted else []
        outcomes = await asyncio.gather(*asked, *beside, return_exceptions=True)
        for errand, outcome in zip(errands, outcomes, strict=False):
            if isinstance(outcome, BaseException):
                _allow(outcome)
                continue
            assert isinstance(outcome, Receipted | Refusal)
            self.holders.hear(self.box, errand, outcome)
            if isinstance(outcome, Receipted) and not outcome.repeated:
                entry = decode_entry(outcome.entry)
                assert (entry.clock == Certainty.UNCERTAIN) == (wall_ms < floor_ms)
                assert entry.time_ms == max(wall_ms, floor_ms)
        for outcome in outcomes[len(errands) :]:
            if isinstance(outcome, BaseException):
                _allow(outcome)
            else:
                self.people.hear_hosted(outcome)

    # ---- what the issuer does -----------------------------------------------------------------
    async def settle(self) -> None:
        """The issuer settles some of it, holds some arrivals back, and acknowledges."""
        box, state = self.box, self.box.journal.state
        size = self.chance.randint(max(1, state.settled_size), state.size)
        named = sorted({self.chance.randrange(size) for _ in range(self.chance.randrange(3))})
        verdicts = [[index, 1 + index % 3, "sanctioned"] for index in named]
        settled_ms = max(self.true_ms, state.settled_ms + 1)

        async def hear() -> None:
            await box.journal.settle(await box.settlement(size, _6=verdicts, _7=settled_ms))
            await box.journal.acknowledge(size)

        await tried(hear())

    async def issue(self) -> None:
        """More value, a renewed enrolment, a newer policy or a newer list."""
        box, state = self.box, self.box.journal.state
        key = self.chance.choice(box.keys).public
        kind = self.chance.choice((EntryKind.FUND, EntryKind.ENROL, EntryKind.POLICY, None))
        if kind is None:
            listed = decode_list(box.issuer.list(5, [], sequence=self.lists))
            self.lists += 1
            box.tell_issuer(listed)
            await tried(box.journal.take_list(listed))
        elif kind is EntryKind.FUND:
            grant = box.issuer.grant(state.journal, key.id, 500, sequence=state.grants_next)
            await tried(box.journal.submit(decode_grant(grant)))
        elif kind is EntryKind.ENROL:
            days = self.chance.randint(300, 400)
            enrolment = box.issuer.enrolment(state.journal, key, days=days)
            await tried(box.journal.submit(decode_enrolment(enrolment)))
        else:
            sequence = state.policy_held().sequence + 1
            policy = box.issuer.policy({1: {}}, LIMITS, sequence=sequence)
            await tried(box.journal.submit(decode_policy(policy)))

    async def renew(self) -> None:
        """A newer certificate."""
        await tried(self.box.journal.renew(self.box.chain(days=self.chance.randint(15, 30))))

    async def flush(self) -> None:
        """Names and a snapshot move while payments go on."""
        self.box.journal._engine.names.recent.entries = FLUSH_ENTRIES
        await self.pay()

    async def restart(self) -> None:
        """An orderly stop, and a start."""
        await self.box.stop()
        await self.box.start()

    async def visit(self) -> None:
        """A technician makes room and puts the token back."""
        self.box.mend()
        await self.box.journal.probe()

    # ---- what goes wrong --------------------------------------------------------------------
    async def clock(self) -> None:
        """The clock jumps, is lost, or is right again."""
        jumps = (0, 0, 1, -1, self.chance.randint(-40, 30), -200_000)
        self.box.clock.wall_ms = max(0, self.true_ms + self.chance.choice(jumps) * HOUR_MS)

    async def token(self) -> None:
        """It goes, comes back, is slow, or does what was asked and does not answer."""
        token = self.box.token
        token.gone = not token.gone and self.chance.random() < 0.4
        token.slow = self.chance.random() < 0.4
        token.mute_at = self.chance.choice((0, 0, 1, 2, 3))
        await self.box.journal.probe()

    async def disk(self) -> None:
        """It is full, has room again, or fails at a sync."""
        self.box.disk.room_bytes = self.chance.choice((None, None, 0, 3_000, 20_000, 60_000))
        self.box.disk.sync_fails = self.chance.random() < 0.3

    async def power(self) -> None:
        """It will fail at a named point, or at any write or sync."""
        if self.chance.random() < 0.6:
            point = self.chance.choice(PASSED)
            self.box.faults.arm(point, passings=self.chance.randint(1, 3))
        else:
            self.box.disk.steps_left = self.chance.randint(0, 60)

    async def cut(self) -> None:
        """The power fails now, between two steps."""
        self.box.disk.cut()

    async def step(self) -> None:
        """One step, and a start if the power failed in it or beside it."""
        steps: tuple[Step, ...] = (
            *(self.pay, self.settle, self.issue, self.renew, self.flush, self.restart, self.visit),
            *(self.clock, self.token, self.disk, self.power, self.cut),
        )
        weights = (14, 2, 2, 1, 3, 1, 4, 2, 3, 2, 5, 1)
        with contextlib.suppress(PowerCut):
            await self.chance.choices(steps, weights=weights)[0]()
        self.wait()
        if self.chance.random() < CHECKED:
            await self.check()
        await self.revive()
        journal, token = self.box.journal, self.box.token
        told = (journal.state.size, str(journal.mode), token.count, len(self.holders.receipts))
        self.story.append(told)

    def wait(self) -> None:
        """A second passes, for the machine's own clock perhaps another time."""
        self.true_ms += 1_000
        self.box.clock.wall_ms += 1_000
        self.box.clock.steady_ms += self.chance.choice((10, 1_000, 61_000))

    async def revive(self) -> None:
        """After a power cut all is there. The next one may come while it starts."""
        while self.box.disk.off or not self.box.running:
            if self.box.running:
                await self.box.halt()
            if self.chance.random() < 0.3:
                await self.power()
            await self.box.start()
            assert self.box.journal.mode in (Mode.OPEN, Mode.SEALED)
            await self.check()

    async def check(self) -> None:
        """What must hold at any time; a flush beside it may be where the power fails."""
        with contextlib.suppress(PowerCut):
            raws = await check_books(self.box)
            await check_receipts(self.box, self.holders, raws)

    # ---- the end ------------------------------------------------------------------------------
    async def mend(self) -> None:
        """All is well again."""
        self.box.mend()
        self.box.faults.arm(None)
        self.box.disk.steps_left = None
        self.box.clock.wall_ms = self.true_ms
        if self.box.running:
            await self.box.journal.probe()

    async def end(self) -> None:
        """All is well: what was asked is in the journal, or was refused and is not."""
        await self.mend()
        await self.restart()
        assert self.box.journal.mode is Mode.OPEN
        await self.check()
        await self._ask_all()
        await self._mix()
        raws = await check_books(self.box)
        await check_receipts(self.box, self.holders, raws)
        await self._close()
        await self.box.stop()

    async def _ask_all(self) -> None:
        """Everything that was ever asked is asked again; then all is known."""
        box, outcomes = self.box, dict[int, Receipted | Refusal]()
        asked = list(self.holders.sent)
        while asked:
            # A refund is looked up first, so one that was asked later may overtake it.
            told = await asyncio.gather(*[errand.ask(box.journal) for errand in asked])
            for errand, outcome in zip(asked, told, strict=True):
                self.holders.hear(box, errand, outcome)
                outcomes[id(errand)] = outcome
            assert len(self.holders.waiting()) < len(asked), "what waits is not decided"
            asked = self.holders.waiting()
        await check_books(box)
        for errand in self.holders.sent:
            outcome = outcomes[id(errand)]
            stands = isinstance(outcome, Receipted) or outcome.code is errand.done_code
            assert stands == (errand.name in box.replica.names)

    async def _mix(self) -> None:
        """Whatever kind of entry this seed has not seen yet."""
        for _ in range(200):
            missing = MIXED - self.box.replica.kinds
            if not missing:
                return
            kind = min(missing)
            self.wait()
            self.box.clock.wall_ms = self.true_ms = max(
                self.true_ms, self.box.journal._clock.floor_ms
            )
            await self._add(kind)
            await check_books(self.box)
        raise AssertionError(f"no way to {missing}")

    async def _add(self, kind: EntryKind) -> None:
        orders = {
            EntryKind.PAY: "pay",
            EntryKind.TRANSFER_OUT: "send",
            EntryKind.DEFUND: "redeem",
        }
        if kind in orders:
            payer = self.chance.randrange(3)
            await self._run(self.people.orders(payer, now_ms=self.true_ms, kind=orders[kind]))
        elif kind is EntryKind.TRANSFER_IN:
            await self._run(self.people.note(self.true_ms))
        elif kind is EntryKind.VOID:
            await self._run([self.people.void(self.true_ms)])
        elif kind is EntryKind.SETTLEMENT:
            await self.settle()
        else:
            await self.issue()

    async def _close(self) -> None:
        """The epoch ends in order: a payment finds it closed, now and after a start."""
        journal = self.box.journal
        assert isinstance(await journal.submit(Close(reason=0)), Receipted)
        order = self.box.order(
            0, 1, sequence=journal.state.wallets[self.box.wallet(0)].next_sequence
        )
        refused = await journal.pay(order)
        assert isinstance(refused, Refusal)
        assert refused.code is Code.WRONG_JOURNAL
        await check_books(self.box)
        assert self.box.replica.kinds == set(EntryKind)


def _allow(outcome: BaseException) -> None:
    """What may come of a gateway whose power, disk or token fails; nothing else."""
    if not isinstance(outcome, PowerCut | StoreError | HsmError):
        raise outcome


@asynccontextmanager
async def journey(
    folder: Path, seed: int, *, counters: Sequence[str] = COUNTERS
) -> AsyncIterator[Journey]:
    """A gateway that has started; whatever is open in the end is let go."""
    chance = random.Random(seed)
    payments = MANY if seed % MANY_EVERY == 0 else 0
    counter = counters[seed % len(counters)]
    made = await template(payments=payments)
    box = SimulatedGateway(folder, made, chance=chance, counter=counter)
    with (
        watched(folder.resolve(), box.disk),
        box.token.watched(),
        # It notes each refusal and asks the real rules, so that the replica can be asked again.
        mock.patch.object(engine, "decide", box.verdicts.decide),
    ):
        await box.start()
        try:
            yield Journey(box, chance)
        finally:
            if box.running:
                await box.halt()


async def lived(folder: Path, seed: int) -> Journey:
    """A whole journey."""
    async with journey(folder, seed) as made:
        for _ in range(STEPS):
            await made.step()
        await made.end()
    return made
