"""Accepting an order: protocol.md, steps 1 to 8 and 10, and what an accepted one does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.world import DAY_MS, NOW_MS, list_of
from wallet.protocol.entry import Clock, EntryKind, Payment
from wallet.protocol.ids import JournalId, WalletId, wallet_text
from wallet.protocol.lists import ListId
from wallet.protocol.messages import OrderKind
from wallet.protocol.refusals import Code, Refusal

ANNA, BERT, CARA = Key("anna"), Key("bert", -7), Key("cara")
ELSEWHERE = JournalId(bytes(range(20)))


@pytest.fixture
def book() -> Book:
    """Anna has 1,000 and Bert nothing; Cara is not enrolled."""
    return opened(holders={ANNA: 1_000, BERT: 0})


# ---- what an accepted order does ------------------------------------------------------------


def test_a_payment_moves_value_between_two_wallets_of_the_journal(book: Book) -> None:
    entry = book.accept(book.pay(ANNA, BERT, 300, reference="bread", category="5411"))
    assert entry.kind == EntryKind.PAY
    assert (book.balance(ANNA), book.balance(BERT)) == ((700, 0, 0), (300, 0, 0))
    assert book.supply() == 1_000
    book.agree()


def test_a_holder_of_a_p256_key_pays_as_well(book: Book) -> None:
    book.accept(book.pay(ANNA, BERT, 300))
    book.accept(book.pay(BERT, ANNA, 300))
    assert book.balance(ANNA) == (1_000, 0, 0)
    book.agree()


def test_a_payment_to_another_journal_leaves_at_once_and_for_good(book: Book) -> None:
    entry = book.accept(book.pay(ANNA, CARA, 300, payee_journal=ELSEWHERE))
    assert (entry.kind, entry.hop) == (EntryKind.TRANSFER_OUT, 0)
    assert book.supply() == 700
    book.agree()


def test_a_rehome_is_a_transfer_to_ones_own_wallet_elsewhere(book: Book) -> None:
    order = book.pay(ANNA, ANNA, 300, kind=OrderKind.REHOME, payee_journal=ELSEWHERE)
    assert book.accept(order).kind == EntryKind.TRANSFER_OUT
    book.agree()


def test_a_redeem_takes_value_out_of_the_journal(book: Book) -> None:
    assert book.accept(book.pay(ANNA, ANNA, 300, kind=OrderKind.REDEEM)).kind == EntryKind.DEFUND
    assert book.supply() == 700
    book.agree()


def test_the_sequence_counts_orders_of_one_payer(book: Book) -> None:
    for sequence in range(3):
        book.accept(book.pay(ANNA, BERT, 1, sequence=sequence))
    book.accept(book.pay(BERT, ANNA, 1, sequence=0))
    book.agree()


# ---- every refusal --------------------------------------------------------------------------

Case = Callable[[Book], Payment]
LATER = NOW_MS + 2 * DAY_MS
REFUSALS: dict[str, tuple[Code, Case]] = {
    "another currency": (Code.WRONG_CURRENCY, lambda b: b.pay(ANNA, BERT, 1, currency="USD")),
    "another journal of the payer": (
        Code.WRONG_JOURNAL,
        lambda b: b.pay(ANNA, BERT, 1, payer_journal=ELSEWHERE),
    ),
    "another epoch": (Code.WRONG_JOURNAL, lambda b: b.pay(ANNA, BERT, 1, payer_epoch=2)),
    "a payer who is not enrolled": (Code.UNKNOWN_WALLET, lambda b: b.pay(CARA, BERT, 1)),
    "a payee who is not enrolled": (Code.UNKNOWN_WALLET, lambda b: b.pay(ANNA, CARA, 1)),
    "the key of somebody else": (Code.BAD_SIGNATURE, lambda b: b.pay(ANNA, BERT, 1, signer=CARA)),
    "an algorithm that is not the key's": (
        Code.BAD_SIGNATURE,
        lambda b: _under_another_algorithm(b.pay(ANNA, BERT, 1)),
    ),
    "a signature over other words": (
        Code.BAD_SIGNATURE,
        lambda b: _with_signature_of(b.pay(ANNA, BERT, 1), b.pay(ANNA, BERT, 2)),
    ),
    "a sequence that is too high": (
        Code.SEQUENCE_GAP,
        lambda b: b.pay(ANNA, BERT, 1, sequence=1),
    ),
    "an order that has expired": (
        Code.ORDER_EXPIRED,
        lambda b: b.pay(ANNA, BERT, 1, created_ms=NOW_MS - 2, expires_ms=NOW_MS - 1),
    ),
    "an order from the future": (
        Code.ORDER_FROM_THE_FUTURE,
        lambda b: b.pay(ANNA, BERT, 1, created_ms=NOW_MS + 300_001, expires_ms=LATER),
    ),
    "a request that did not come": (
        Code.UNKNOWN_REQUEST,
        lambda b: Payment(order=b.order(ANNA, BERT, 1, request=bytes(32))),
    ),
    "a request that is not named": (
        Code.REQUEST_MISMATCH,
        lambda b: Payment(order=b.order(ANNA, BERT, 1), request=b.request(BERT, 1)),
    ),
    "another request than the one named": (
        Code.REQUEST_MISMATCH,
        lambda b: Payment(
            order=b.order(ANNA, BERT, 1, request=bytes(32)), request=b.request(BERT, 1)
        ),
    ),
    "a request of another payee": (
        Code.REQUEST_MISMATCH,
        lambda b: b.pay(ANNA, BERT, 1, request=b.request(CARA, 1)),
    ),
    "a request for another amount": (
        Code.REQUEST_MISMATCH,
        lambda b: b.pay(ANNA, BERT, 1, request=b.request(BERT, 2)),
    ),
    "a request in another currency": (
        Code.REQUEST_MISMATCH,
        lambda b: b.pay(ANNA, BERT, 1, request=b.request(BERT, 1, currency="USD")),
    ),
    "a request for another journal": (
        Code.REQUEST_MISMATCH,
        lambda b: b.pay(ANNA, BERT, 1, request=b.request(BERT, 1, payee_journal=ELSEWHERE)),
    ),
    "a request that has expired": (
        Code.REQUEST_EXPIRED,
        lambda b: b.pay(
            ANNA, BERT, 1, request=b.request(BERT, 1, created_ms=1, expires_ms=NOW_MS - 1)
        ),
    ),
    "a request that somebody else signed": (
        Code.BAD_SIGNATURE,
        lambda b: b.pay(ANNA, BERT, 1, request=b.request(BERT, 1, signer=CARA)),
    ),
    "a request for a redeem, whose entry has no room for it": (
        Code.UNKNOWN_REQUEST,
        lambda b: b.pay(ANNA, ANNA, 1, kind=OrderKind.REDEEM, request=b.request(ANNA, 1)),
    ),
    "a refund of nothing": (
        Code.REFUND_UNKNOWN,
        lambda b: b.pay(ANNA, BERT, 1, kind=OrderKind.REFUND, refunded=bytes(32)),
    ),
    "more than there is": (Code.INSUFFICIENT_FUNDS, lambda b: b.pay(ANNA, BERT, 1_001)),
}


def _under_another_algorithm(payment: Payment) -> Payment:
    signed = msgspec.structs.replace(payment.order.signed, algorithm=-7)
    return Payment(order=msgspec.structs.replace(payment.order, signed=signed))


def _with_signature_of(payment: Payment, other: Payment) -> Payment:
    signature = other.order.signed.signature
    signed = msgspec.structs.replace(payment.order.signed, signature=signature)
    return Payment(order=msgspec.structs.replace(payment.order, signed=signed))


@pytest.mark.parametrize("name", REFUSALS)
def test_an_order_is_refused_for(name: str, book: Book) -> None:
    code, made = REFUSALS[name]
    assert book.refused(made(book)).code == code


def test_a_used_sequence_with_other_words_is_refused(book: Book) -> None:
    book.accept(book.pay(ANNA, BERT, 1))
    assert book.refused(book.pay(ANNA, BERT, 2, sequence=0)).code == Code.SEQUENCE_USED


def test_the_refusal_of_too_much_says_what_is_left(book: Book) -> None:
    assert book.refused(book.pay(ANNA, BERT, 1_001)).left == 1_000


def test_times_hold_to_the_millisecond(book: Book) -> None:
    book.accept(book.pay(ANNA, BERT, 1, created_ms=1, expires_ms=NOW_MS))
    book.accept(book.pay(ANNA, BERT, 1, created_ms=NOW_MS + 300_000, expires_ms=LATER))


def test_an_uncertain_clock_takes_an_order_from_the_future(book: Book) -> None:
    book.clock = Clock.UNCERTAIN
    book.accept(book.pay(ANNA, BERT, 1, created_ms=LATER, expires_ms=LATER + 1))
    book.agree()


@pytest.mark.parametrize("party", [ANNA, BERT], ids=["payer", "payee"])
def test_a_frozen_wallet_neither_pays_nor_receives(party: Key, book: Book) -> None:
    book.accept(list_of(ListId.FROZEN, [party.public.id]))
    refusal = book.refused(book.pay(ANNA, BERT, 1))
    assert (refusal.code, refusal.detail) == (Code.WALLET_FROZEN, wallet_text(party.public.id))


@pytest.mark.parametrize("party", [ANNA, BERT], ids=["payer", "payee"])
def test_an_enrolment_that_expired_ends_paying_and_receiving(party: Key, book: Book) -> None:
    book.accept(book.enrolment(party, expires_ms=NOW_MS))
    book.accept(book.pay(ANNA, BERT, 1))
    book.now_ms += 1
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.ENROLMENT_EXPIRED


@pytest.mark.parametrize("party", [ANNA, BERT], ids=["payer", "payee"])
def test_a_revoked_wallet_neither_pays_nor_receives(party: Key, book: Book) -> None:
    book.accept(list_of(ListId.WALLETS, [CARA.public.id]))
    book.accept(book.pay(ANNA, BERT, 1))
    book.accept(list_of(ListId.WALLETS, [party.public.id], sequence=1))
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.WALLET_REVOKED
    book.agree()


@pytest.mark.parametrize("party", [ANNA, BERT], ids=["payer", "payee"])
def test_the_sanctioned_neither_pay_nor_receive(party: Key, book: Book) -> None:
    book.accept(list_of(ListId.SANCTIONED, [[wallet_text(CARA.public.id), ["C. Ara"]]]))
    book.accept(book.pay(ANNA, BERT, 1))
    book.accept(list_of(ListId.SANCTIONED, [[wallet_text(party.public.id), []]], sequence=1))
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.SANCTIONED
    book.agree()


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_journal_on_the_revocation_list_takes_no_order(epoch: int, book: Book) -> None:
    book.accept(list_of(ListId.JOURNALS, [[book.journal, epoch]]))
    outcome = book.decide(book.pay(ANNA, BERT, 1))
    refused = isinstance(outcome, Refusal) and outcome.code == Code.FROZEN_BY_ISSUER
    assert refused == (epoch == book.epoch)


def test_the_first_step_that_fails_decides(book: Book) -> None:
    book.accept(book.pay(ANNA, BERT, 1))
    book.accept(list_of(ListId.WALLETS, [ANNA.public.id]))
    wrong: dict[str, Any] = {
        "currency": "USD",
        "payer_epoch": 2,
        "signer": CARA,
        "sequence": 7,
        "expires_ms": NOW_MS - 1,
        "request": bytes(32),
        "amount_minor": 10**6,
    }
    codes = [
        Code.WRONG_CURRENCY,
        Code.WRONG_JOURNAL,
        Code.BAD_SIGNATURE,
        Code.SEQUENCE_GAP,
        Code.ORDER_EXPIRED,
        Code.UNKNOWN_REQUEST,
        Code.INSUFFICIENT_FUNDS,
    ]
    for name, code in zip(list(wrong), codes, strict=True):
        assert (
            book.refused(Payment(order=book.order(ANNA, BERT, 1, created_ms=1, **wrong))).code
            == code
        )
        del wrong[name]
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.WALLET_REVOKED


# ---- the state of the journal ---------------------------------------------------------------


def test_a_journal_that_is_not_open_takes_no_order() -> None:
    book = Book("shut")
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.NOT_PROVISIONED


def test_an_order_is_known_by_its_words_not_by_its_signature(book: Book) -> None:
    order = book.order(BERT, ANNA, 1)
    again = book.order(BERT, ANNA, 1)
    assert order.identity == again.identity == hashlib.sha256(order.signed.payload).digest()
    assert order.signed.signature != again.signed.signature


def test_wallets_of_the_state_are_never_altered_in_place(book: Book) -> None:
    before = book.state.wallets[WalletId(ANNA.public.id)]
    held = msgspec.structs.asdict(before)
    book.accept(book.pay(ANNA, BERT, 300))
    assert msgspec.structs.asdict(before) == held
