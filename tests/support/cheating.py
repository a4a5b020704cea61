"""Branches that cheat at the end of an honest history, in ways that the seed mixes."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

from tests.support.arrivals import DOLLAR, Parcel, Plot, parcels
from tests.support.breaches import body_of, forge, place, write
from tests.support.reporting import Branch
from wallet.protocol.entry import EntryKind


class Cheats:
    """A plot in which some branches cheat; the others keep to the rules."""

    def __init__(self, choice: random.Random) -> None:
        self.choice = choice
        self.plot = Plot(choice)
        self.plot.go_on(40)
        euros = [branch for branch in self.plot.branches if branch.currency != DOLLAR]
        self.cheaters = choice.sample(euros, choice.randint(1, 2))
        self.honest = [branch for branch in self.plot.branches if branch not in self.cheaters]
        self.twins: list[tuple[str, Branch]] = []
        # Receipts that somebody hands in at an honest branch.
        self.shown: list[tuple[bytes, bytes]] = []
        self.done: list[str] = []
        self.plot.bring_in_all()
        for branch in self.cheaters:
            self._cheat(branch)

    def _cheat(self, branch: Branch) -> None:
        """One cheat that forks, or one after which the journal says nothing more; or both."""
        forking: list[Callable[[Branch], None]] = [self._fork, self._hide, self._pay_by_twin]
        ending: list[Callable[[Branch], None]] = [
            *(self._overdraw, self._post_nothing, self._travel, self._replay, self._exchange),
            *(self._repeat, self._scribble),
        ]
        if self.choice.random() < 0.5:
            self._do(self.choice.choice(forking), branch)
            if self.choice.random() < 0.5:
                return
        self._do(self.choice.choice(ending), branch)

    def _do(self, cheat: Callable[[Branch], None], branch: Branch) -> None:
        self.done.append(f"{branch.book.name}{cheat.__name__}")
        cheat(branch)

    def _someone(self) -> Branch:
        return self.choice.choice([b for b in self.honest if b.currency != DOLLAR])

    def _rich(self, branch: Branch, amount: int) -> None:
        """A grant, so that there is something to cheat with."""
        branch.grant(self.plot.of(branch)[0], amount)

    # ---- cheats that fork -------------------------------------------------------------------
    def _twin(self, branch: Branch) -> Branch:
        """A copy of the disk: the branch itself goes on otherwise."""
        self._rich(branch, 100)
        twin = copy.deepcopy(branch)
        one, other = self.plot.of(branch)
        branch.book.accept(branch.book.pay(one, other, 11))
        return twin

    def _fork(self, branch: Branch) -> None:
        twin = self._twin(branch)
        one, other = self.plot.of(branch)
        twin.book.accept(twin.book.pay(one, other, 22))
        self.twins.append((f"{branch.book.name}'", twin))

    def _hide(self, branch: Branch) -> None:
        twin = self._twin(branch)
        one, other = self.plot.of(branch)
        index = twin.book.accept(twin.book.pay(one, other, 33)).index
        self.shown.append((twin.book.context.entries[index], twin.book.receipt(index)))

    def _pay_by_twin(self, branch: Branch) -> None:
        twin, target = self._twin(branch), self._someone()
        payee = self.choice.choice(self.plot.of(target))
        target.take_in(twin, twin.pay_out(self.plot.of(branch)[0], payee, target, 44))

    # ---- cheats after which nothing follows -------------------------------------------------
    def _overdraw(self, branch: Branch) -> None:
        one, other = self.plot.of(branch)
        forge(branch.book, branch.book.pay(one, other, 50_000))

    def _post_nothing(self, branch: Branch) -> None:
        target = self._someone()
        payee = self.choice.choice(self.plot.of(target))
        order = branch.book.pay(
            self.plot.of(branch)[0], payee, 60_000, payee_journal=target.book.journal
        )
        target.take_in(branch, forge(branch.book, order))

    def _travel(self, branch: Branch) -> None:
        one, other = self.plot.of(branch)
        time_ms = branch.book.state.time_ms - 1
        forge(branch.book, branch.book.pay(one, other, 1), time_ms=time_ms)

    def _exchange(self, branch: Branch) -> None:
        one, other = self.plot.of(branch)
        self._rich(branch, 100)
        entry = branch.book.accept(branch.book.pay(one, other, 5))
        order = branch.book.order(one, other, 5, currency=DOLLAR).signed.raw
        known = entry.body.order.signed.raw  # type: ignore[union-attr]  # a payment
        write(branch.book, place(branch.book, EntryKind.PAY, body_of(entry).replace(known, order)))

    def _repeat(self, branch: Branch) -> None:
        one, other = self.plot.of(branch)
        self._rich(branch, 100)
        entry = branch.book.accept(branch.book.pay(one, other, 5))
        write(branch.book, place(branch.book, EntryKind.PAY, body_of(entry)))

    def _replay(self, branch: Branch) -> None:
        source = self._someone()
        self._rich(source, 100)
        payee = self.choice.choice(self.plot.of(branch))
        index = branch.take_in(source, source.pay_out(self.plot.of(source)[0], payee, branch, 55))
        entry = branch.book.context.read[index]
        write(branch.book, place(branch.book, EntryKind.TRANSFER_IN, body_of(entry)))

    def _scribble(self, branch: Branch) -> None:
        write(branch.book, b"nonsense")

    # ---- reports ----------------------------------------------------------------------------
    def parcels(self) -> list[Parcel]:
        """The reports of all branches and twins; a twin's begin where it was copied, or before."""
        made: list[Parcel] = []
        witness = self._someone()
        for branch in self.plot.branches:
            collected: list[Any] = self.shown if branch is witness else []
            made += parcels(self.choice, branch.book.name, branch, collected=collected)
        for name, twin in self.twins:
            first = self.choice.randint(0, twin.size - 1)
            made.append(Parcel(name, 0, twin.report(first)))
        return made
