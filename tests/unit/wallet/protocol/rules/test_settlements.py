"""Settlement: what becomes final, what stays, and that nothing is settled twice."""

from __future__ import annotations

import pytest

from tests.support.books import Book, opened
from tests.support.issuer import Key
from wallet.protocol.entry import Close
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.issued import VerdictState
from wallet.protocol.messages import OrderKind
from wallet.protocol.refusals import Code

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")
HELD, PENDING, REJECTED = VerdictState.HELD, VerdictState.PENDING, VerdictState.REJECTED


class Pair:
    """Anna's journal pays into Bert's and Cara's."""

    def __init__(self) -> None:
        self.a = opened("from", holders={ANNA: 10_000})
        self.b = opened("to", holders={BERT: 0, CARA: 0})

    def arrive(self, amount: int, payee: Key = BERT) -> int:
        """A note comes in; its index there."""
        order = self.a.pay(ANNA, payee, amount, payee_journal=self.b.journal)
        return self.b.accept(self.a.note(self.a.accept(order).index)).index


@pytest.fixture
def pair() -> Pair:
    return Pair()


def counters(book: Book, key: Key) -> tuple[int, int, int]:
    """(spent, payments, received) since the last settlement."""
    wallet = book.state.wallets[WalletId(key.public.id)]
    return wallet.out_amount_since, wallet.out_count_since, wallet.in_amount_since


def test_a_settlement_makes_final_what_came_in_below_its_size(pair: Pair) -> None:
    pair.arrive(100)
    size = len(pair.b.context.entries)
    pair.arrive(50)
    pair.b.accept(pair.b.settlement(size))
    assert pair.b.balance(BERT) == (100, 50, 1)
    assert (pair.b.state.unsettled_total, pair.b.state.settled_size) == (50, size)
    pair.b.accept(pair.b.settlement())
    assert pair.b.balance(BERT) == (150, 0, 0)
    pair.b.agree()


def test_a_settlement_takes_what_it_covers_out_of_the_counters(pair: Pair) -> None:
    b = pair.b
    pair.arrive(100)
    b.accept(b.pay(BERT, CARA, 30))
    size = len(b.context.entries)
    b.accept(b.pay(BERT, CARA, 20))
    assert (counters(b, BERT), counters(b, CARA)) == ((50, 2, 100), (0, 0, 50))
    b.accept(b.settlement(size))
    assert (counters(b, BERT), counters(b, CARA)) == ((20, 1, 0), (0, 0, 20))
    b.accept(b.settlement())
    assert (counters(b, BERT), counters(b, CARA)) == ((0, 0, 0), (0, 0, 0))
    assert len(b.state.movements) == 0
    b.agree()


@pytest.mark.parametrize("state", [HELD, PENDING, REJECTED])
def test_what_a_settlement_names_stays_unsettled_until_one_names_it_no_more(
    state: VerdictState, pair: Pair
) -> None:
    b = pair.b
    held = pair.arrive(100)
    pair.arrive(50)
    b.accept(b.settlement(verdicts=[(held, state, "sanctioned")]))
    assert b.balance(BERT) == (50, 100, 1)
    b.accept(b.settlement(verdicts=[(held, state, "sanctioned")]))
    assert b.balance(BERT) == (50, 100, 1)
    b.accept(b.settlement())
    assert b.balance(BERT) == (150, 0, 0)
    assert not b.state.held
    b.agree()


def test_an_arrival_is_settled_once(pair: Pair) -> None:
    b = pair.b
    pair.arrive(100)
    b.accept(b.settlement())
    pair.arrive(70)
    size = len(b.context.entries) - 1
    b.accept(b.settlement(size, time_ms=b.now_ms + 1))
    assert b.balance(BERT) == (100, 70, 1)
    b.agree()


def test_no_more_is_settled_than_is_still_there(pair: Pair) -> None:
    b = pair.b
    pair.arrive(100)
    size = len(b.context.entries)
    b.accept(b.pay(BERT, CARA, 80))
    b.accept(b.settlement(size))
    assert (b.balance(BERT), b.balance(CARA)) == ((20, 0, 0), (0, 80, 1))
    b.accept(b.settlement())
    assert b.balance(CARA) == (80, 0, 0)
    b.agree()


def test_held_value_may_be_spent_before_other_value(pair: Pair) -> None:
    b = pair.b
    held = pair.arrive(100)
    pair.arrive(50)
    b.accept(b.pay(BERT, BERT, 100, kind=OrderKind.REDEEM))
    b.accept(b.settlement(verdicts=[(held, HELD, "sanctioned")]))
    assert b.balance(BERT) == (50, 0, 0)
    b.accept(b.settlement())
    assert b.balance(BERT) == (50, 0, 0)
    b.agree()


def test_the_hop_stays_until_nothing_is_unsettled(pair: Pair) -> None:
    a, b = pair.a, pair.b
    pair.arrive(100)
    a.accept(b.note(b.accept(b.pay(BERT, ANNA, 60, payee_journal=a.journal)).index))
    a.accept(a.pay(ANNA, ANNA, 9_900, kind=OrderKind.REDEEM))
    deep = pair.arrive(60)
    pair_hop = b.balance(BERT)
    assert pair_hop == (0, 100, 3)
    b.accept(b.settlement(deep))
    assert b.balance(BERT) == (100, 0, 0)
    b.agree()


def test_a_named_payment_of_settled_value_leaves_nothing_held(pair: Pair) -> None:
    a = pair.a
    a.accept(a.enrolment(CARA))
    index = a.accept(a.pay(ANNA, CARA, 10)).index
    a.accept(a.settlement(verdicts=[(index, HELD, "sanctioned")]))
    assert not a.state.held
    assert counters(a, ANNA) == (0, 0, 0)
    a.agree()


def test_a_settlement_of_the_same_size_is_taken_if_it_is_newer(pair: Pair) -> None:
    b = pair.b
    held = pair.arrive(100)
    size = len(b.context.entries)
    first = b.settlement(size, verdicts=[(held, HELD, "sanctioned")], time_ms=b.now_ms + 1)
    b.accept(first)
    assert b.refused(first).code == Code.SEQUENCE_USED
    b.accept(b.settlement(size, time_ms=b.now_ms + 2))
    assert b.balance(BERT) == (100, 0, 0)
    assert b.refused(first).code == Code.SEQUENCE_USED
    b.agree()


def test_a_settlement_that_is_replayed_makes_no_journal_look_younger(pair: Pair) -> None:
    b = pair.b
    settlement = b.settlement(time_ms=b.now_ms + 5)
    b.accept(settlement)
    b.now_ms += 10**6
    assert b.refused(settlement).code == Code.SEQUENCE_USED
    b.accept(b.settlement(time_ms=b.now_ms - 10**6))
    assert b.state.settled_ms == b.now_ms - 10**6 + 5


def test_a_settlement_is_of_this_journal_epoch_and_tree(pair: Pair) -> None:
    b = pair.b
    size = len(b.context.entries)
    wrong = {
        Code.WRONG_JOURNAL: b.settlement(journal=JournalId(bytes(20))),
        Code.PROOF_INVALID: b.settlement(root=bytes(32)),
        Code.WRONG_ROLE: b.settlement(role="grants"),
    }
    for code, settlement in wrong.items():
        assert b.refused(settlement).code == code
    assert b.refused(b.settlement(epoch=9)).code == Code.WRONG_JOURNAL
    later = b.settlement(size + 1, root=bytes(32))
    assert b.refused(later).code == Code.PROOF_INVALID


def test_a_smaller_settlement_is_of_no_use_after_a_larger_one(pair: Pair) -> None:
    b = pair.b
    b.accept(b.settlement())
    assert b.refused(b.settlement(1, time_ms=b.now_ms + 9)).code == Code.SEQUENCE_USED


def test_a_closed_epoch_takes_settlements_and_nothing_else(pair: Pair) -> None:
    b = pair.b
    pair.arrive(100)
    b.accept(Close(reason=0))
    assert b.refused(b.pay(BERT, CARA, 1)).code == Code.WRONG_JOURNAL
    assert b.refused(b.grant(BERT, 1)).code == Code.WRONG_JOURNAL
    b.accept(b.settlement())
    assert b.balance(BERT) == (100, 0, 0)
    b.agree()
