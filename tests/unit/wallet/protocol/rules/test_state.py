"""The state: taking back what was not committed, forgetting, deadlines, and whole entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.world import DAY_MS, NOW_MS, list_of, picture, policy_of
from wallet.protocol import rules
from wallet.protocol.entry import Close, EntryKind, Void, decode_entry, encode_entry
from wallet.protocol.lists import ListId
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit, Limit
from wallet.protocol.refusals import Code, InvariantBroken, Refusal
from wallet.protocol.state import NEVER, State

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")
DAYS = {Limit.PAIR_AMOUNT_DAY: 10**6}
GRACE = {JournalLimit.NOTE_GRACE_S: 60}


@pytest.fixture
def book() -> Book:
    return opened(tiers={0: DAYS}, journal=GRACE, holders={ANNA: 1_000, BERT: 100})


# ---- taking back ----------------------------------------------------------------------------


def everything(book: Book) -> list[Callable[[], rules.Proposal]]:
    """One proposal of nearly every kind, each made when its turn comes."""
    other = opened("other", holders={CARA: 500})
    order = other.pay(CARA, ANNA, 50, payee_journal=book.journal)
    note = other.note(other.accept(order).index)
    request, unpaid = book.request(BERT, 7), book.request(BERT, 8)
    return [
        lambda: book.pay(ANNA, BERT, 7, request=request),
        lambda: Void(request=unpaid),
        lambda: note,
        lambda: book.enrolment(CARA, tier=2),
        lambda: book.grant(CARA, 9),
        lambda: book.pay(ANNA, CARA, 3, payee_journal=other.journal),
        lambda: book.settlement(),
        lambda: list_of(ListId.FROZEN, [CARA.public.id]),
        lambda: policy_of({0: DAYS}, GRACE, sequence=1),
        lambda: book.pay(BERT, BERT, 1, kind=OrderKind.REDEEM),
        lambda: Close(reason=0),
    ]


def test_a_batch_that_was_not_committed_is_taken_back_whole(book: Book) -> None:
    steps = everything(book)
    before = picture(book.state)
    for taken in range(len(steps) + 1):
        mark = book.state.mark()
        for step in steps[:taken]:
            assert not isinstance(book.write(step()), Refusal)
        book.state.rollback(mark)
        assert picture(book.state) == before


def test_the_same_batch_gives_the_same_state_after_being_taken_back(book: Book) -> None:
    steps = everything(book)
    mark = book.state.mark()
    for step in steps:
        book.write(step())
    first = picture(book.state)
    book.state.rollback(mark)
    for step in steps:
        book.write(step())
    assert picture(book.state) == first


def test_what_an_hour_forgot_comes_back_when_it_is_taken_back(book: Book) -> None:
    request = book.request(BERT, 7, expires_ms=NOW_MS + 1)
    book.accept(book.pay(ANNA, BERT, 7, request=request))
    before = picture(book.state)
    mark = book.state.mark()
    book.now_ms += 2 * DAY_MS
    book.write(book.enrolment(CARA))
    assert (book.state.requests, book.state.pairs) == ({}, {})
    book.state.rollback(mark)
    assert picture(book.state) == before


def test_a_committed_batch_cannot_be_taken_back(book: Book) -> None:
    mark = book.state.mark()
    book.accept(book.pay(ANNA, BERT, 1))
    book.state.release()
    with pytest.raises(InvariantBroken):
        book.state.rollback(mark)
    book.agree()


def test_without_a_grace_requests_and_notes_are_kept_for_ever() -> None:
    book = opened(holders={ANNA: 10, BERT: 0})
    request = book.request(BERT, 7, expires_ms=NOW_MS + 1)
    book.accept(book.pay(ANNA, BERT, 7, request=request))
    book.now_ms += 400 * DAY_MS
    book.accept(policy_of(sequence=1))
    assert request.identity in book.state.requests
    assert book.state.requests_from_ms == 0


# ---- deadlines ------------------------------------------------------------------------------


def test_a_state_without_a_policy_has_no_deadlines() -> None:
    state = State(Book("new").journal, 1)
    state.refresh_deadlines()
    assert (state.soft_from_ms, state.lists_hard_from_ms, state.policy_hard_from_ms) == (
        NEVER,
        NEVER,
        NEVER,
    )


def test_the_oldest_list_decides_and_one_never_held_counts_from_the_opening(book: Book) -> None:
    limits = {JournalLimit.REVOCATION_AGE_SOFT_S: 60, JournalLimit.REVOCATION_AGE_HARD_S: 120}
    book.accept(policy_of(journal=limits, sequence=1))
    assert book.state.soft_from_ms == NOW_MS + 60_000
    for at, list_id in enumerate((ListId.JOURNALS, ListId.WALLETS, ListId.CERTIFICATES)):
        assert book.state.lists_hard_from_ms == NOW_MS + 120_000
        book.accept(list_of(list_id, [], issued_ms=NOW_MS + 5_000 + at))
    assert book.state.lists_hard_from_ms == NOW_MS + 125_000
    assert book.state.soft_from_ms == NOW_MS + 65_000
    book.agree()


# ---- whole entries --------------------------------------------------------------------------


def foreign(book: Book, proposal: rules.Proposal, **changed: Any) -> Refusal | rules.Accepted:
    """What the issuer says to an entry that a dishonest gateway wrote otherwise."""
    outcome = book.decide(proposal)
    assert not isinstance(outcome, Refusal)
    fields = {
        "kind": outcome.kind,
        "index": book.state.size,
        "time_ms": book.now_ms,
        "clock": 0,
        "body": outcome.body,
        **changed,
    }
    before = picture(book.replica)
    applied = rules.apply(book.replica, decode_entry(encode_entry(**fields)), book.at_issuer)
    if isinstance(applied, Refusal):
        assert picture(book.replica) == before
    return applied


def test_an_entry_is_the_next_one_and_its_time_does_not_fall(book: Book) -> None:
    payment = book.pay(ANNA, BERT, 1)
    for changed in ({"index": 7}, {"time_ms": NOW_MS - 1}):
        refusal = foreign(book, payment, **changed)
        assert isinstance(refusal, Refusal)
        assert refusal.code == Code.MALFORMED


def test_an_entry_of_another_kind_than_its_order_asks_for_is_malformed(book: Book) -> None:
    redeem = book.pay(ANNA, ANNA, 1, kind=OrderKind.REDEEM)
    raw = book.pay(ANNA, BERT, 1).order.signed.raw
    wrong = [
        foreign(book, redeem, body=b"\x59" + len(raw).to_bytes(2, "big") + raw),
        foreign(book, book.pay(ANNA, BERT, 1), kind=EntryKind.TRANSFER_OUT, body=_out(raw, 0)),
    ]
    assert [getattr(made, "code", None) for made in wrong] == [Code.MALFORMED, Code.MALFORMED]


def test_a_transfer_out_with_another_hop_than_the_payers_is_malformed(book: Book) -> None:
    payment = book.pay(ANNA, BERT, 1, payee_journal=Book("other").journal)
    raw = payment.order.signed.raw
    refusal = foreign(book, payment, body=_out(raw, 1))
    assert isinstance(refusal, Refusal)
    assert refusal.code == Code.MALFORMED
    assert isinstance(foreign(book, payment, body=_out(raw, 0)), rules.Accepted)


def _out(raw: bytes, hop: int) -> bytes:
    return b"\x83\x59" + len(raw).to_bytes(2, "big") + raw + b"\xf6" + bytes((hop,))


def test_an_entry_that_names_a_list_by_a_wrong_sequence_is_malformed(book: Book) -> None:
    given = list_of(ListId.FROZEN, [], sequence=3)
    book.at_issuer.lists[given.hash] = given
    body = b"\x83\x05\x04\x58\x20" + given.hash
    refusal = foreign(book, given, body=body)
    assert isinstance(refusal, Refusal)
    assert refusal.code == Code.MALFORMED


def test_an_entry_that_breaks_a_rule_is_refused_with_the_code_of_the_rule(book: Book) -> None:
    payment = book.pay(ANNA, BERT, 1)
    book.replica.closed = True
    refusal = foreign(book, payment)
    assert isinstance(refusal, Refusal)
    assert refusal.code == Code.WRONG_JOURNAL
