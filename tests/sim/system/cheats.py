"""Who cheats, how, and what the issuer may find of it.

A cheat has one culprit, a journal, which must be suspended for it in the end, and no other. It acts
at a chosen time or when it can; `done` is true once it has gained what it wanted for the moment.
Some cheats do not get that far, because the box itself refuses: they count as `prevented`, and
leave no culprit.
"""

from __future__ import annotations

import abc
import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim.system.box import Box
from tests.sim.system.people import DAY_MS, Holder
from wallet.journal import Mode, Receipted
from wallet.protocol.refusals import Refusal
from wallet.protocol.state import NEVER

if TYPE_CHECKING:
    from tests.sim.system.world import World

PAYMENT = 9_500
FORK = frozenset({"fork", "hidden-entry"})


class Cheat(abc.ABC):
    """One plan. `kinds`: of evidence that may be found; `gained`: value beyond what is owned."""

    name = ""
    kinds: frozenset[str] = frozenset()
    from_device = True
    # The wallet's holder cheats, and not the keeper of the box alone.
    needs_holder = True
    # The box comes back, and tells.
    returns = True

    def __init__(self, world: World, culprit: Box, cheater: Holder, *, at_ms: int) -> None:
        self.world = world
        self.culprit = culprit
        self.cheater = cheater
        self.at_ms = at_ms
        self.done = self.prevented = False
        self.gained = 0

    @abc.abstractmethod
    async def act(self) -> None:
        """Try; it is called again until it is done or prevented."""

    async def _note_to(self, box: Box, payee: Holder, amount: int) -> bool:
        """The cheater pays from a box of its own to an honest payee, who checks and redeems."""
        people = self.world.people
        order = people.order(self.cheater, payee, amount, now_ms=self.world.now_ms)
        made = await box.journal.pay(order)
        if isinstance(made, Refusal):
            people.outcomes[f"{self.name}: {made.code}"] += 1
            return False
        sequence = self.cheater.sequence
        people.take_receipt(self.cheater, payee, amount, made)
        self.cheater.sequence = sequence
        return True

    def _victims(self) -> Sequence[Holder]:
        """Two honest holders at two honest gateways."""
        homes = self.world.chance.sample(self.world.honest_gateways(), 2)
        return [self.world.chance.choice(self.world.at(home)) for home in homes]

    def _amount(self) -> int:
        wallet = self.culprit.journal.state.wallets.get(self.cheater.id)
        balance = 0 if wallet is None else wallet.balance
        return min(balance, 8_000)


class ClonedStore(Cheat):
    """The device and its key are copied, and both spend the same value."""

    name, kinds = "cloned store", FORK

    async def act(self) -> None:
        """See `Cheat`."""
        amount = self._amount()
        if amount < 100 or not self.culprit.is_open:
            return
        other = self.culprit.clone(self.world.folder / f"{self.culprit.name}-clone")
        await other.open()
        one, two = self._victims()
        paid = await self._note_to(self.culprit, one, amount)
        again = await self._note_to(other, two, amount)
        await other.crash()
        self.done = paid and again
        self.gained = amount if self.done else 0
        self.prevented = not self.done
        if paid:
            self.cheater.sequence += 1


class RolledBackStore(Cheat):
    """An older copy of the store is put back after paying; a counter that moved on shows it."""

    name, kinds = "rolled-back store", FORK

    async def act(self) -> None:
        """See `Cheat`."""
        amount = self._amount()
        if amount < 100 or not self.culprit.is_open:
            return
        kept = self.world.folder / f"{self.culprit.name}-older"
        self.culprit.copy_store(kept)
        one, two = self._victims()
        if not await self._note_to(self.culprit, one, amount):
            self.prevented = True
            return
        if self.world.chance.random() < 0.4:
            # The counter moves at every start.
            await self.culprit.restart()
        await self.culprit.put_back(kept)
        if self.culprit.journal.mode is Mode.FROZEN_ROLLBACK:
            self.prevented = True
            refused = not await self._note_to(self.culprit, two, amount)
            assert refused, "a frozen journal paid"
            return
        self.done = await self._note_to(self.culprit, two, amount)
        self.gained = amount
        self.cheater.sequence += 1


class ForkedJournal(Cheat):
    """Each of two lives of a device is told to the issuer, in turns."""

    name, kinds = "forked journal", FORK

    async def act(self) -> None:
        """See `Cheat`."""
        amount = self._amount()
        if amount < 100 or not self.culprit.is_open or self.culprit.engine.online is False:
            return
        other = self.culprit.clone(self.world.folder / f"{self.culprit.name}-fork")
        await other.open()
        one, two = self._victims()
        paid = await self._note_to(self.culprit, one, amount)
        again = await self._note_to(other, two, amount)
        await self.culprit.sync()
        await other.sync()
        await other.crash()
        self.done, self.prevented = paid and again, not (paid and again)
        self.gained = amount
        self.cheater.sequence += 1


class HiddenEntry(Cheat):
    """A gateway gives a receipt, forgets the entry, and goes on as if it had never been."""

    name, kinds, from_device = "hidden entry", FORK, False
    needs_holder = False

    async def act(self) -> None:
        """See `Cheat`."""
        world, box = self.world, self.culprit
        payers = [holder for holder in world.at(box) if holder.waiting is None]
        if len(payers) < 3 or not box.is_open:
            return
        payer, payee, other = world.chance.sample(payers, 3)
        amount = world.chance.randint(100, 2_000)
        kept = world.folder / f"{box.name}-older-{world.now_ms}"
        box.copy_store(kept)
        count = box.token.count
        order = world.people.order(payer, payee, amount, now_ms=world.now_ms)
        made = await box.journal.pay(order)
        if isinstance(made, Refusal):
            return
        world.people.take_receipt(payer, payee, amount, made)
        if box.token.count != count:
            # The counter would show it: another time.
            return
        await box.put_back(kept)
        assert box.is_open, "a store of the same window"
        # Another payment takes the place of the first one.
        cover = await world.people.pay(other, payer, 1, now_ms=world.now_ms)
        if cover != "paid":
            return
        self.done, self.gained = True, amount
        # The till of the payee has the receipt, and takes it to another branch.
        self.at_ms = world.now_ms + world.chance.randint(1, 6) * DAY_MS
        world.later.append((self.at_ms, world.chance.choice(world.honest_gateways()), made))


class Forger(Cheat):
    """What somebody does who has broken into the process of a box."""

    made_up = sequence = 0

    def enrich(self) -> None:
        """Value from nowhere: a fortune, once."""
        if not self.made_up:
            wallets = self.culprit.journal.state.wallets
            rich = copy.copy(wallets[self.cheater.id])
            self.made_up, self.sequence = 500_000, rich.next_sequence
            rich.settled += self.made_up
            wallets[rich.wallet] = rich

    def judge(self) -> None:
        """It has cheated once it has paid more than is settled; if nothing, it is honest so far.

        Beyond that it pays what has arrived, but says that it pays of the fortune.
        """
        wallets = self.culprit.journal.state.wallets
        after = wallets[self.cheater.id]
        self.done = after.settled < self.made_up
        if self.done:
            # The payment that goes beyond is rejected whole.
            self.gained = self.made_up - after.settled + PAYMENT
        elif after.next_sequence == self.sequence:
            poor = copy.copy(after)
            poor.settled, self.made_up = poor.settled - self.made_up, 0
            wallets[poor.wallet] = poor


class FromNowhere(Forger):
    """A device that was broken into pays what it never had."""

    name, kinds = "value from nowhere", frozenset({"violation"})

    async def act(self) -> None:
        """See `Cheat`."""
        if not self.culprit.is_open or self.cheater.id not in self.culprit.journal.state.wallets:
            return
        self.enrich()
        for payee in [victim for _ in range(5) for victim in self._victims()]:
            if await self._note_to(self.culprit, payee, PAYMENT):
                self.cheater.sequence += 1
        self.judge()


class NeverReturns(FromNowhere):
    """The same, and nobody ever sees the device again: what it paid are claims, if anything."""

    name, kinds, returns = "device that never returns", frozenset(), False

    async def act(self) -> None:
        """See `Cheat`."""
        await super().act()
        if self.done:
            notes = self.world.people.notes
            paid = sum(note.amount for note in notes if note.payer is self.cheater)
            self.gained = paid - self.cheater.funded
            self.culprit.gone = True
            await self.culprit.crash()


class Collusion(Forger):
    """Payer, payee and gateway agree: the payee shall be paid by the issuer for what never was."""

    name, kinds, from_device = "colluding payer and payee", frozenset({"violation"}), False

    async def act(self) -> None:
        """See `Cheat`."""
        world, box = self.world, self.culprit
        others = [holder for holder in world.at(box) if holder is not self.cheater]
        if not box.is_open or self.cheater.id not in box.journal.state.wallets:
            return
        if box.journal.state.wallets[self.cheater.id].unsettled:
            # Here it may pay what has arrived, and would not cheat with it: another time.
            return
        self.enrich()
        # Of what is beyond the rules one is rejected, and about the others a person decides.
        for accomplice in [*others, *others, *others]:
            order = world.people.order(self.cheater, accomplice, PAYMENT, now_ms=world.now_ms)
            if isinstance(await box.journal.pay(order), Receipted):
                accomplice.honest = False
                self.cheater.sequence += 1
        self.judge()


class ReplayedNote(Cheat):
    """A gateway forgets that a note was redeemed, and redeems it once more."""

    name, kinds, from_device = "replayed note", frozenset({"violation", "note-replayed"}), False
    needs_holder = False

    async def act(self) -> None:
        """See `Cheat`."""
        world, box = self.world, self.culprit
        known = [
            note
            for note in world.people.notes
            if note.redeemed
            and note.payee.home is box
            and note.payer.honest
            and note.made.index is not None
        ]
        if not known or not box.is_open:
            return
        note = known[-1]
        # Honest journals are asked first: each of them refuses.
        for honest in world.honest_gateways():
            if honest.is_open:
                outcome = await world.people.redeem(note, at=honest)
                assert outcome == "note-not-for-us", outcome
        box.journal.state.redeemed.clear()
        made = await box.journal.redeem(note.made.entry, note.made.receipt)
        self.done = isinstance(made, Receipted) and not made.repeated
        self.gained = note.amount if self.done else 0
        if self.done:
            note.payee.honest = False


class StaleLists(Cheat):
    """A gateway that was told nothing for long says that its lists are fresh, and takes a note."""

    name, kinds, from_device = "stale lists", frozenset({"violation", "stale-lists"}), False
    needs_holder = False

    async def act(self) -> None:
        """See `Cheat`."""
        world, box = self.world, self.culprit
        box.transport.cut = True  # type: ignore[attr-defined]  # the world's lines are `Line`
        lists = box.journal.state.lists
        oldest = min(held.issued_ms for held in lists.values())
        if world.now_ms - oldest < 11 * DAY_MS or not box.is_open:
            return
        waiting = [note for holder in world.at(box) for note in holder.notes]
        for note in waiting:
            honest = await world.people.redeem(note)
            assert honest != "redeemed", "lists older than the policy allows were used"
            if honest != "lists-stale":
                continue
            box.journal.state.lists_hard_from_ms = NEVER
            if await world.people.redeem(note) == "redeemed":
                self.done, self.gained = True, note.amount
                note.payee.honest = False
                break
        if self.done:
            box.transport.cut = False  # type: ignore[attr-defined]  # the world's lines are `Line`


class TimeTravel(Cheat):
    """A gateway writes an entry that is older than the one before it."""

    name, kinds, from_device = "time travel", frozenset({"violation", "time-travel"}), False

    async def act(self) -> None:
        """See `Cheat`."""
        world, box = self.world, self.culprit
        if not box.is_open or self.cheater.id not in box.journal.state.wallets:
            return
        payee = world.chance.choice([h for h in world.at(box) if h is not self.cheater])
        back_ms = world.now_ms - 3 * DAY_MS
        box.clock.wall_ms, box.journal.state.time_ms = back_ms, 0
        box.journal._clock.floor_ms = 0
        order = world.people.order(self.cheater, payee, 50, now_ms=back_ms)
        made = await box.journal.pay(order)
        self.done = isinstance(made, Receipted)
        if self.done:
            self.gained = 50
            self.cheater.sequence += 1
            payee.honest = False


CHEATS: tuple[type[Cheat], ...] = (
    ClonedStore,
    RolledBackStore,
    ForkedJournal,
    HiddenEntry,
    FromNowhere,
    NeverReturns,
    Collusion,
    ReplayedNote,
    StaleLists,
    TimeTravel,
)
