"""Requests are paid once, and refunds stay within what was paid: steps 6 and 7 of an order."""

from __future__ import annotations

import pytest

from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.world import DAY_MS, NOW_MS, policy_of
from wallet.protocol.entry import Payment, Void
from wallet.protocol.ids import JournalId
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code

ANNA, BERT, CARA = Key("anna"), Key("bert", -7), Key("cara")
ELSEWHERE = JournalId(bytes(range(20)))


@pytest.fixture
def book() -> Book:
    """Anna has 1,000 and Bert nothing; Cara is not enrolled."""
    return opened(holders={ANNA: 1_000, BERT: 0})


# ---- requests -------------------------------------------------------------------------------


def test_a_request_is_paid_once_whoever_pays(book: Book) -> None:
    request = book.request(BERT, 10)
    book.accept(book.pay(ANNA, BERT, 10, request=request))
    assert book.refused(book.pay(ANNA, BERT, 10, request=request)).code == Code.REQUEST_PAID
    again = book.request(BERT, 10, nonce=bytes(15) + b"\1")
    book.accept(book.pay(ANNA, BERT, 10, request=again))
    book.agree()


def test_a_request_is_payable_up_to_the_millisecond_of_its_end(book: Book) -> None:
    request = book.request(BERT, 10, created_ms=1, expires_ms=NOW_MS)
    book.accept(book.pay(ANNA, BERT, 10, request=request))
    book.agree()


def test_a_void_request_is_not_paid_nor_voided_again(book: Book) -> None:
    request = book.request(BERT, 10)
    book.accept(Void(request=request))
    assert book.refused(book.pay(ANNA, BERT, 10, request=request)).code == Code.REQUEST_VOID
    assert book.refused(Void(request=request)).code == Code.REQUEST_VOID
    book.agree()


def test_a_paid_request_cannot_be_voided(book: Book) -> None:
    request = book.request(BERT, 10)
    book.accept(book.pay(ANNA, BERT, 10, request=request))
    assert book.refused(Void(request=request)).code == Code.REQUEST_PAID


def test_a_request_of_another_journal_is_for_its_payees_journal_to_check(book: Book) -> None:
    request = book.request(CARA, 10, payee_journal=ELSEWHERE, signer=BERT)
    book.accept(book.pay(ANNA, CARA, 10, payee_journal=ELSEWHERE, request=request))
    assert not book.state.requests
    book.agree()


def test_a_void_is_for_a_payee_enrolled_here_and_signed_by_it(book: Book) -> None:
    requests = {
        Code.WRONG_JOURNAL: book.request(BERT, 1, payee_journal=ELSEWHERE),
        Code.WRONG_CURRENCY: book.request(BERT, 1, currency="USD"),
        Code.UNKNOWN_WALLET: book.request(CARA, 1),
        Code.BAD_SIGNATURE: book.request(BERT, 1, signer=ANNA),
    }
    for code, request in requests.items():
        assert book.refused(Void(request=request)).code == code


def test_what_is_forgotten_of_a_request_is_not_payable_again_under_a_longer_grace() -> None:
    grace = {JournalLimit.NOTE_GRACE_S: 60}
    book = opened(journal=grace, holders={ANNA: 1_000, BERT: 0})
    request = book.request(BERT, 10, expires_ms=NOW_MS + 1)
    book.accept(book.pay(ANNA, BERT, 10, request=request))
    book.now_ms += DAY_MS
    book.accept(book.pay(ANNA, BERT, 1))
    assert not book.state.requests
    book.accept(policy_of(journal={JournalLimit.NOTE_GRACE_S: 10 * 86_400}, sequence=1))
    assert book.refused(Void(request=request)).code == Code.REQUEST_EXPIRED
    book.agree()


# ---- refunds --------------------------------------------------------------------------------


def paid(book: Book, amount: int) -> bytes:
    """The leaf hash of a payment of Anna's to Bert."""
    return leaf_hash(book.accept(book.pay(ANNA, BERT, amount)).raw)


def refund(book: Book, leaf: bytes, amount: int) -> Payment:
    """Bert pays Anna back."""
    return book.pay(BERT, ANNA, amount, kind=OrderKind.REFUND, refunded=leaf)


def test_refunds_of_a_payment_stay_within_it_together(book: Book) -> None:
    leaf = paid(book, 100)
    book.accept(book.pay(ANNA, BERT, 500))
    book.accept(refund(book, leaf, 60))
    refusal = book.refused(refund(book, leaf, 41))
    assert (refusal.code, refusal.limit, refusal.left) == (Code.REFUND_ABOVE_PAYMENT, 100, 40)
    book.accept(refund(book, leaf, 40))
    assert book.refused(refund(book, leaf, 1)).code == Code.REFUND_ABOVE_PAYMENT
    book.agree()


def test_only_the_payee_refunds_and_only_to_the_payer(book: Book) -> None:
    leaf = paid(book, 100)
    book.accept(book.enrolment(CARA))
    wrong = [
        book.pay(ANNA, BERT, 1, kind=OrderKind.REFUND, refunded=leaf),
        book.pay(BERT, CARA, 1, kind=OrderKind.REFUND, refunded=leaf),
    ]
    assert {book.refused(payment).code for payment in wrong} == {Code.REFUND_UNKNOWN}


def test_a_refund_can_be_refunded_like_any_payment(book: Book) -> None:
    leaf = leaf_hash(book.accept(refund(book, paid(book, 100), 100)).raw)
    book.accept(book.pay(ANNA, BERT, 100, kind=OrderKind.REFUND, refunded=leaf))
    assert book.balance(BERT) == (100, 0, 0)
    book.agree()


def test_what_left_the_journal_is_not_refunded_in_it(book: Book) -> None:
    leaf = leaf_hash(book.accept(book.pay(ANNA, BERT, 9, payee_journal=ELSEWHERE)).raw)
    book.accept(book.grant(BERT, 9))
    assert book.refused(refund(book, leaf, 9)).code == Code.REFUND_UNKNOWN


def test_a_refund_needs_the_balance_before_its_age_is_asked(book: Book) -> None:
    leaf = paid(book, 100)
    book.accept(book.pay(BERT, ANNA, 100))
    assert book.refused(refund(book, leaf, 100)).code == Code.INSUFFICIENT_FUNDS
