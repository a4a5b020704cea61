"""Several journals and their issuer, in any order of steps: no value is made, none is lost.

After every step the issuer's replica equals the gateway's state, and both equal what a plain
recomputation from the entries gives.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.sim.naive import NoteKey, Sheet, leaves
from tests.support.books import Book
from tests.support.issuer import Key
from tests.support.world import NOW_MS, picture, policy_of
from wallet.protocol.entry import Close, Entry, EntryKind, Note, Payment, Void
from wallet.protocol.ids import WalletId
from wallet.protocol.limits import day_totals
from wallet.protocol.messages import OrderKind, Request
from wallet.protocol.policy import JournalLimit, Limit
from wallet.protocol.rules import Proposal
from wallet.protocol.snapshot import read_snapshot, write_snapshot
from wallet.protocol.state import HOUR_MS

HOLDERS = [Key("anna"), Key("bert"), Key("cara", -7)]
TIER = {
    Limit.BALANCE_MAX: 1_000,
    Limit.HOPS_MAX: 4,
    Limit.PAIR_AMOUNT_DAY: 1_000,
    Limit.OUT_COUNT_DAY: 30,
    Limit.OUT_AMOUNT_SINCE_HARD: 2_000,
}
WIDE = {JournalLimit.EXPOSURE_HARD: 1_500, JournalLimit.NOTE_GRACE_S: 3_600}
POLICY = policy_of({0: TIER}, WIDE)
PLACES = st.integers(0, 2)
AMOUNTS = st.integers(1, 120)
SOME = st.integers(0, 2**16)
Orders = list[tuple[int, int, int]]
ORDERS = st.lists(st.tuples(PLACES, PLACES, AMOUNTS), max_size=5)
GRACES = st.sampled_from([0, 1, 30, None])
ENDS = st.sampled_from(["crash", "commit"])


class Economy(RuleBasedStateMachine):
    """Three journals, three holders with a wallet in each."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = NOW_MS
        self.books: list[Book] = []
        self.closed: list[Book] = []
        self.notes: list[Note] = []
        self.sent: list[Proposal] = []
        self.nonces = 0

    @initialize()
    def open(self) -> None:
        """All is open and funded."""
        for name in ("x", "y", "z"):
            book = Book(name)
            book.accept(book.opening(POLICY))
            for holder in HOLDERS:
                book.accept(book.enrolment(holder))
                book.accept(book.grant(holder, 100))
            self.books.append(book)

    # ---- steps --------------------------------------------------------------------------------
    def _do(self, book: Book, proposal: Proposal) -> None:
        self.sent.append(proposal)
        book.now_ms = self.now_ms
        outcome = book.submit(proposal)
        if isinstance(outcome, Entry) and outcome.kind == EntryKind.TRANSFER_OUT:
            self.notes.append(book.note(outcome.index))

    @rule(hours=st.sampled_from([0, 0, 1, 1, 5, 23, 24, 30]))
    def wait(self, hours: int) -> None:
        """Time passes."""
        self.now_ms += hours * HOUR_MS + 60_000

    @rule(at=PLACES, holder=PLACES, amount=AMOUNTS)
    def fund(self, at: int, holder: int, amount: int) -> None:
        """The issuer adds value."""
        book = self.books[at]
        book.now_ms = self.now_ms
        self._do(book, book.grant(HOLDERS[holder], amount))

    @rule(at=PLACES, to=PLACES, payer=PLACES, payee=PLACES, amount=AMOUNTS, asked=st.booleans())
    def pay(self, at: int, to: int, payer: int, payee: int, amount: int, asked: bool) -> None:
        """Somebody pays somebody, here or elsewhere, or moves own value."""
        book, other = self.books[at], self.books[to]
        book.now_ms = other.now_ms = self.now_ms
        kind = OrderKind.PAY
        if payer == payee:
            kind = OrderKind.REDEEM if at == to else OrderKind.REHOME
        request = self._request(other, payee, amount) if asked else None
        proposal = book.pay(
            HOLDERS[payer],
            HOLDERS[payee],
            amount,
            kind=kind,
            payee_journal=other.journal,
            request=request,
        )
        self._do(book, proposal)

    def _request(self, book: Book, payee: int, amount: int) -> Request:
        self.nonces += 1
        nonce = self.nonces.to_bytes(16, "big")
        return book.request(HOLDERS[payee], amount, nonce=nonce)

    @rule(at=PLACES, which=SOME, amount=AMOUNTS)
    def refund(self, at: int, which: int, amount: int) -> None:
        """A payee gives back, perhaps too much."""
        book = self.books[at]
        found = leaves(book.context.read)
        if not found:
            return
        leaf = found[which % len(found)]
        payment = book.context.payments[leaf]
        by_id = {holder.public.id: holder for holder in HOLDERS}
        payer, payee = by_id[payment.payee], by_id[payment.payer]
        if payer is payee:
            return
        book.now_ms = self.now_ms
        order = book.pay(payer, payee, amount, kind=OrderKind.REFUND, refunded=leaf)
        self._do(book, order)

    @rule(at=PLACES, which=SOME)
    def redeem(self, at: int, which: int) -> None:
        """A note is brought to a journal, the right one or not, for the first time or again."""
        if self.notes:
            self._do(self.books[at], self.notes[which % len(self.notes)])

    @rule(which=st.integers(1, 4))
    def deliver(self, which: int) -> None:
        """A late note is brought to its journal."""
        for note in self.notes[-which:]:
            for book in self.books:
                if book.journal == note.order.payee_journal:
                    self._do(book, note)

    @rule(at=PLACES, payee=PLACES, which=SOME)
    def void(self, at: int, payee: int, which: int) -> None:
        """A payee takes back a request, one that nobody saw or one that was used."""
        book = self.books[at]
        book.now_ms = self.now_ms
        asked = [self._request(book, payee, 7)]
        for proposal in self.sent:
            if isinstance(proposal, Payment | Note) and proposal.request is not None:
                asked.append(proposal.request)
        self._do(book, Void(request=asked[which % len(asked)]))

    @rule(at=PLACES, which=SOME)
    def replay(self, at: int, which: int) -> None:
        """Anything that was ever sent is sent again, anywhere."""
        if self.sent:
            self._do(self.books[at], self.sent[which % len(self.sent)])

    @rule(at=PLACES, part=st.integers(1, 4), named=st.sets(st.integers(0, 30), max_size=4))
    def settle(self, at: int, part: int, named: set[int]) -> None:
        """The issuer settles all or a part, and names some entries: held, pending, rejected."""
        book = self.books[at]
        book.now_ms = self.now_ms
        size = len(book.context.entries) * part // 4
        verdicts = [(index, 1 + index % 3, "sanctioned") for index in sorted(named)]
        self._do(book, book.settlement(size, verdicts=[v for v in verdicts if v[0] < size]))

    @rule(at=PLACES, orders=ORDERS, notes=st.lists(SOME, max_size=2), end=ENDS)
    def batch(self, at: int, orders: Orders, notes: list[int], end: str) -> None:
        """What arrives together shares a commit, and the power may fail before it."""
        book = self.books[at]
        book.now_ms = self.now_ms
        before, mark = picture(book.state), book.state.mark()
        made: list[Callable[[], Proposal]] = [
            functools.partial(book.pay, HOLDERS[payer], HOLDERS[payee], amount)
            for payer, payee, amount in orders
            if payer != payee
        ]
        made[1:1] = [
            functools.partial(self.notes.__getitem__, n % len(self.notes))
            for n in notes
            if self.notes
        ]
        made[2:2] = [book.settlement]
        written = [entry for make in made if isinstance(entry := book.write(make()), Entry)]
        if end == "crash":
            book.state.rollback(mark)
            assert picture(book.state) == before
            return
        book.state.release()
        for entry in written:
            book.replicate(entry)

    @rule(at=PLACES, again=st.permutations(HOLDERS))
    def migrate(self, at: int, again: list[Key]) -> None:
        """An epoch ends in order; its statement opens the next one, holders enrol anew."""
        old = self.books[at]
        old.now_ms = self.now_ms
        old.accept(Close(reason=3))
        carried = [(wallet.wallet, wallet.balance) for wallet in old.state.wallets.values()]
        statement = old.statement(carried, sorted(old.state.redeemed))
        book = Book(old.name, epoch=old.epoch + 1, now_ms=self.now_ms)
        book.accept(book.opening(POLICY, statement))
        for holder in again:
            book.accept(book.enrolment(holder))
        self.books[at] = book
        self.closed.append(old)

    def longest(self) -> int:
        """Size of the longest journal."""
        return max(book.state.size for book in self.books)

    def check(self) -> None:
        """All of what always holds."""
        self.gateway_and_issuer_agree()
        self.states_are_what_their_entries_add_up_to()
        self.nothing_is_made_and_nothing_lost()
        for book in self.books:
            state, _ = read_snapshot(write_snapshot(book.state, book.context.frontier))
            assert picture(state) == picture(book.state)

    @rule(at=PLACES, grace_h=GRACES)
    def rule_anew(self, at: int, grace_h: int | None) -> None:
        """A newer policy remembers for longer or shorter."""
        book = self.books[at]
        book.now_ms = self.now_ms
        wide = {JournalLimit.EXPOSURE_HARD: 1_500}
        if grace_h is not None:
            wide[JournalLimit.NOTE_GRACE_S] = grace_h * 3_600
        self._do(book, policy_of({0: TIER}, wide, sequence=book.state.policy_held().sequence + 1))

    # ---- what always holds ----------------------------------------------------------------------
    @invariant()
    def gateway_and_issuer_agree(self) -> None:
        """The replica has taken every entry, and is equal."""
        for book in self.books:
            book.agree()

    @invariant()
    def states_are_what_their_entries_add_up_to(self) -> None:
        """Balances, counters, days, pairs, requests, refunds and notes."""
        for book in self.books:
            check(book, Sheet(book.context.read))

    @invariant()
    def nothing_is_made_and_nothing_lost(self) -> None:
        """Issued = in the journals + under way + taken out."""
        every = [(book, Sheet(book.context.read)) for book in self.closed + self.books]
        sheets = [sheet for _, sheet in every]
        now = [sheet for book, sheet in every if book in self.books]
        sent: dict[NoteKey, int] = {}
        for book, sheet in every:
            sent |= {(book.journal, book.epoch, i): amount for i, amount in sheet.sent.items()}
        redeemed = {key for sheet in sheets for key in sheet.redeemed}
        assert redeemed <= sent.keys()
        under_way = sum(amount for key, amount in sent.items() if key not in redeemed)
        granted = sum(sheet.granted for sheet in sheets)
        defunded = sum(sheet.defunded for sheet in sheets)
        assert granted == sum(sheet.supply for sheet in now) + under_way + defunded


def check(book: Book, sheet: Sheet) -> None:
    """A state against the recomputation."""
    state, hour = book.state, book.state.time_ms // HOUR_MS
    assert state.balance_total() == sheet.supply
    assert state.unsettled_total == sheet.unsettled_total
    assert state.movements.indexes.tolist() == sheet.open_rows()
    assert state.settled_size == sheet.settled_size
    assert set(state.wallets) == set(sheet.purses)
    for identifier, purse in sheet.purses.items():
        wallet = state.wallets[WalletId(identifier)]
        found = (wallet.settled, wallet.unsettled, wallet.hop, wallet.next_sequence)
        assert found == (purse.settled, purse.unsettled, purse.hop, purse.orders)
        assert state.numbers[wallet.number] == identifier
        counted = (wallet.out_amount_since, wallet.out_count_since, wallet.in_amount_since)
        assert counted == sheet.since(identifier)
        assert day_totals(wallet.hours, hour) == sheet.day(identifier, hour)
        assert len(wallet.hours) <= 24
    paid = {pair: day_totals(hours, hour)[0] for pair, hours in state.pairs.items()}
    assert {pair: amount for pair, amount in paid.items() if amount} == sheet.pairs(hour)
    assert state.refunds == dict(sheet.refunds)
    check_memory(book, sheet)


def check_memory(book: Book, sheet: Sheet) -> None:
    """Requests and notes are remembered, but for those too old to come again."""
    state = book.state
    for identity, fact in sheet.requests.items():
        forgotten = fact[1] < state.requests_from_ms
        assert state.requests.get(identity, fact if forgotten else None) == fact
    assert state.requests.keys() <= sheet.requests.keys()
    assert state.redeemed.keys() <= sheet.redeemed
    orders: dict[NoteKey, int] = {
        (body.order.payer_journal, body.order.payer_epoch, body.index): body.order.expires_ms
        for entry in book.context.read
        if isinstance(body := entry.body, Note)
    }
    for key in sheet.redeemed - state.redeemed.keys():
        assert orders[key] < state.time_ms


TestEconomy = Economy.TestCase
TestEconomy.settings = hypothesis.settings(stateful_step_count=30)


@pytest.mark.one_seed_of(20)
def test_a_long_life_of_three_journals(seed: int) -> None:
    """The same steps by a plain generator: many more of them, each more likely to be of use."""
    chance, economy = random.Random(seed), Economy()
    economy.open()

    def place() -> int:
        return chance.randrange(3)

    def amount() -> int:
        return chance.randint(1, 90)

    steps: list[tuple[int, Callable[[], None]]] = [
        (3, lambda: economy.wait(hours=chance.choice([0, 1, 5, 24]))),
        (3, lambda: economy.fund(at=place(), holder=place(), amount=amount())),
        (
            20,
            lambda: economy.pay(
                at=place(),
                to=place(),
                payer=place(),
                payee=place(),
                amount=amount(),
                asked=chance.random() < 0.3,
            ),
        ),
        (2, lambda: economy.refund(at=place(), which=chance.getrandbits(16), amount=amount())),
        (2, lambda: economy.redeem(at=place(), which=chance.getrandbits(16))),
        (9, lambda: economy.deliver(which=chance.randint(1, 4))),
        (1, lambda: economy.void(at=place(), payee=place(), which=chance.getrandbits(16))),
        (1, lambda: economy.rule_anew(at=place(), grace_h=chance.choice([0, 1, 30, None]))),
        (2, lambda: economy.replay(at=place(), which=chance.getrandbits(16))),
        (
            4,
            lambda: economy.settle(
                at=place(),
                part=chance.randint(1, 4),
                named={chance.randrange(1 + economy.longest()) for _ in range(chance.randrange(6))},
            ),
        ),
        (
            2,
            lambda: economy.batch(
                at=place(),
                orders=[(place(), place(), amount()) for _ in range(chance.randrange(6))],
                notes=[chance.getrandbits(16) for _ in range(chance.randrange(3))],
                end=chance.choice(["crash", "commit"]),
            ),
        ),
        (
            0 if seed % 2 else 1,
            lambda: economy.migrate(at=place(), again=chance.sample(HOLDERS, 3)),
        ),
    ]
    weights = [weight for weight, _ in steps]
    for turn in range(500):
        chance.choices([step for _, step in steps], weights)[0]()
        if turn % 5 == 0:
            economy.check()
    economy.check()
