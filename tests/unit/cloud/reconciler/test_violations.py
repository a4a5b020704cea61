"""Who is paid although the entry is refused: a payee who kept to the policy, and nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.reconciler.values import Violation
from cloud.reconciler.violations import owed
from tests.support.books import Book, opened
from tests.support.breaches import place
from tests.support.issuer import Key
from tests.support.world import list_of
from wallet.protocol.entry import EntryKind, Payment, decode_entry, encode_payment_body
from wallet.protocol.ids import wallet_text
from wallet.protocol.lists import ListId
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import Limit

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")
LIMITS = {0: {Limit.PAYMENT_MAX: 500, Limit.BALANCE_MAX: 2_000}}


def book(**changed: Any) -> Book:
    return opened("north", holders={ANNA: 1_000, BERT: 0}, **changed)


def violation(made: Book, payment: Payment) -> Violation:
    """A pay that is taken to be refused, for whatever reason."""
    raw = place(made, EntryKind.PAY, encode_payment_body(payment, hop=None))
    entry = decode_entry(raw)
    return Violation(index=entry.index, code="malformed", detail="", entry=entry)


def is_owed(made: Book, payment: Payment) -> bool:
    return owed(made.state, violation(made, payment)) is not None


def test_a_payee_in_good_faith_is_owed() -> None:
    made = book()
    assert is_owed(made, made.pay(ANNA, BERT, 50_000))
    limited = book(tiers=LIMITS)
    assert is_owed(limited, limited.pay(ANNA, BERT, 400))


def test_nobody_is_owed_what_the_own_wallet_may_not_hold() -> None:
    made = book(tiers={0: {Limit.BALANCE_MAX: 2_000}})
    assert is_owed(made, made.pay(ANNA, BERT, 2_000))
    assert not is_owed(made, made.pay(ANNA, BERT, 2_001))


@pytest.mark.parametrize(("amount", "expected"), [(9_000, True), (9_001, False)])
def test_what_no_tier_may_pay_is_owed_to_nobody(amount: int, expected: bool) -> None:
    tiers = {tier: {Limit.PAYMENT_MAX: most} for tier, most in ((0, 500), (1, 9_000))}
    made = book(tiers=tiers)
    assert is_owed(made, made.pay(ANNA, BERT, amount)) is expected


@pytest.mark.parametrize("listed", [ListId.WALLETS, ListId.FROZEN, ListId.SANCTIONED])
def test_a_payee_on_a_list_is_owed_nothing(listed: ListId) -> None:
    made = book()
    item: Any = BERT.public.id
    if listed is ListId.SANCTIONED:
        item = [wallet_text(BERT.public.id), []]
    made.accept(list_of(listed, [item]))
    assert not is_owed(made, made.pay(ANNA, BERT, 10))
    # A list that names the payer alone is no reason.
    other = book()
    other.accept(list_of(ListId.WALLETS, [ANNA.public.id]))
    assert is_owed(other, other.pay(ANNA, BERT, 10))


def test_a_request_is_paid_once() -> None:
    made = book()
    request = made.request(BERT, 10)
    first = made.pay(ANNA, BERT, 10, request=request)
    assert is_owed(made, first)
    made.accept(first)
    assert not is_owed(made, first)


def test_strangers_payers_and_orders_of_elsewhere_are_owed_nothing() -> None:
    made, other = book(), opened("south", holders={CARA: 0})
    assert owed(made.state, Violation(index=3, code="malformed", detail="", entry=None)) is None
    for payment in (
        made.pay(ANNA, CARA, 10),
        made.pay(ANNA, ANNA, 10, kind=OrderKind.REDEEM),
        made.pay(ANNA, BERT, 10, payer_epoch=9),
        made.pay(ANNA, BERT, 10, payer_journal=other.journal),
        made.pay(ANNA, BERT, 10, payee_journal=other.journal),
        made.pay(ANNA, BERT, 10, currency="USD"),
    ):
        assert not is_owed(made, payment)


def test_a_payee_whose_enrolment_is_over_is_owed_nothing() -> None:
    made = book()
    made.accept(made.enrolment(BERT, expires_ms=made.now_ms))
    made.now_ms += 1
    assert not is_owed(made, made.pay(ANNA, BERT, 10))


def test_a_note_is_owed_where_it_comes_in() -> None:
    made, other = book(), opened("south", holders={CARA: 0})
    payment = made.pay(ANNA, CARA, 10, payee_journal=other.journal)
    raw = place(made, EntryKind.TRANSFER_OUT, encode_payment_body(payment, hop=0))
    found = Violation(index=4, code="malformed", detail="", entry=decode_entry(raw))
    assert owed(made.state, found) is None
