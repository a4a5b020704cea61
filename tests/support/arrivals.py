"""Journals whose whole histories are written, and the reports of them in any order of arrival."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from cloud.database import Database
from cloud.ingest.intake import Reconciling
from tests.support.issuer import Key
from tests.support.reporting import Branch, open_bank
from tests.support.world import EURO, NOW_MS
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.ids import journal_text, wallet_text

DOLLAR = "USD"
NAMES = (("north", EURO), ("south", EURO), ("west", EURO), ("far", DOLLAR), ("farther", DOLLAR))
FUNDED = 1_000


class Post(msgspec.Struct, frozen=True):
    """A note on its way: the branch that it left, its place there, and where it goes to."""

    source: Branch
    index: int
    target: Branch


class Plot:
    """Five branches of two currencies that pay each other, by the seed."""

    def __init__(self, choice: random.Random) -> None:
        self.choice = choice
        self.branches = [Branch(name, currency=currency) for name, currency in NAMES]
        self.holders = {
            branch.book.name: [Key(f"{branch.book.name}-{number}") for number in range(2)]
            for branch in self.branches
        }
        self.posted: list[Post] = []
        for branch in self.branches:
            branch.enrol(*self.of(branch))
            branch.grant(self.of(branch)[0], FUNDED)

    def of(self, branch: Branch) -> list[Key]:
        """The holders of a branch."""
        return self.holders[branch.book.name]

    def go_on(self, steps: int) -> None:
        """Honest steps: payments, notes out, notes in."""
        for _ in range(steps):
            branch = self.choice.choice(self.branches)
            self.choice.choice([self._pay, self._post, self._post, self._bring_in])(branch)

    def bring_in_all(self) -> None:
        """Every note that is still on its way."""
        while self.posted:
            self._bring_in(self.branches[0])

    def _payer(self, branch: Branch) -> tuple[Key, int] | None:
        """Somebody with money here, and some of it."""
        rich = [key for key in self.of(branch) if sum(branch.book.balance(key)[:2])]
        if not rich:
            return None
        payer = self.choice.choice(rich)
        return payer, self.choice.randint(1, sum(branch.book.balance(payer)[:2]))

    def _pay(self, branch: Branch) -> None:
        one, other = self.of(branch)
        found = self._payer(branch)
        if found is not None:
            payer, amount = found
            payee = other if payer is one else one
            order = branch.book.pay(payer, payee, amount, currency=branch.currency)
            branch.book.accept(order)

    def _post(self, branch: Branch) -> None:
        found = self._payer(branch)
        others = [b for b in self.branches if b.currency == branch.currency and b is not branch]
        if found is not None:
            target = self.choice.choice(others)
            index = branch.pay_out(found[0], self.choice.choice(self.of(target)), target, found[1])
            self.posted.append(Post(branch, index, target))

    def _bring_in(self, branch: Branch) -> None:
        if self.posted:
            note = self.posted.pop(self.choice.randrange(len(self.posted)))
            note.target.take_in(note.source, note.index)


class Parcel(msgspec.Struct, frozen=True):
    """A report of a branch and the order in which its branch made it."""

    name: str
    number: int
    up: VerifiedUp


def parcels(
    choice: random.Random, name: str, branch: Branch, *, collected: Sequence[Any] = ()
) -> list[Parcel]:
    """The whole history in random segments; what was collected goes with the last one."""
    cuts = sorted(choice.sample(range(1, branch.size), min(3, branch.size - 1)))
    edges = [0, *cuts, branch.size]
    made = []
    for number, (first, end) in enumerate(itertools.pairwise(edges)):
        last = end == branch.size
        up = branch.report(first, end, collected=tuple(collected) if last else ())
        made.append(Parcel(name, number, up))
    return made


def shuffled(choice: random.Random, made: Sequence[Parcel]) -> list[Parcel]:
    """Any order between branches, that of each branch kept; some come twice, some too soon."""
    order = [parcel.name for parcel in made]
    choice.shuffle(order)
    waiting = {name: iter([p for p in made if p.name == name]) for name in set(order)}
    found: list[Parcel] = []
    for name in order:
        found.append(next(waiting[name]))
        if choice.random() < 0.2:
            found.append(choice.choice(found))
    for at in sorted((choice.randrange(len(found)) for _ in range(3)), reverse=True):
        found.insert(at, choice.choice(made))
    # Whatever came too soon comes again.
    return [*found, *_in_turn(made)]


def _in_turn(made: Sequence[Parcel]) -> Iterator[Parcel]:
    yield from sorted(made, key=lambda parcel: parcel.number)


async def open_books(database: Database, branches: Sequence[Branch]) -> None:
    """The banks, and what was granted from them."""
    for currency in (EURO, DOLLAR):
        await open_bank(database, currency)
    for branch in branches:
        await branch.hold(database)


async def deliver(reconciling: Reconciling, made: Sequence[Parcel]) -> None:
    """Reports one after the other."""
    for parcel in made:
        await reconciling.ingest(parcel.up, now_ms=NOW_MS)


async def picture_of(database: Database) -> dict[str, Any]:
    """All that is decided in the end: verdicts, balances, notes, epochs."""
    async with database.transaction() as connection:
        verdicts = await connection.fetch(
            "SELECT journal, epoch, index, verdict.state, code FROM verdict"
            " JOIN journal_epoch USING (epoch_id) WHERE verdict.state <> 'settled'"
        )
        accounts = await connection.fetch("SELECT name, balance FROM ledger_account")
        notes = await connection.fetch(
            "SELECT journal, epoch, index, state, in_journal, in_epoch, in_index FROM note"
        )
        epochs = await connection.fetch(
            "SELECT journal, epoch, state, reason, size, applied FROM journal_epoch"
        )
    return {
        "verdicts": {tuple(row) for row in verdicts},
        "balances": {row["name"]: row["balance"] for row in accounts if row["balance"]},
        "notes": {tuple(row) for row in notes},
        "epochs": {tuple(row) for row in epochs},
    }


def own_books(branch: Branch, keys: Sequence[Key]) -> dict[str, int]:
    """What a journal's own book says, as accounts of the ledger that are not empty."""
    lead = f"offline/{journal_text(branch.book.journal)}/{branch.book.epoch}"
    held = {key: sum(branch.book.balance(key)[:2]) for key in keys}
    return {f"{lead}/{wallet_text(key.public.id)}": sum_ for key, sum_ in held.items() if sum_}
