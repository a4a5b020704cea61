"""Evidence of one entry or two that break the rules: nothing honest proves anything."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.books import Book, opened
from tests.support.breaches import body_of, forge, place, transfer, write
from tests.support.issuer import Key
from tests.support.world import ANCHOR, DAY_MS, NOW_MS
from wallet.protocol import breach
from wallet.protocol.codec import encode
from wallet.protocol.cose import ORDER_TYPE
from wallet.protocol.entry import Close, EntryKind, decode_entry
from wallet.protocol.evidence import Proof, verify_evidence
from wallet.protocol.refusals import Code, ProtocolError

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")


def north(**limits: Any) -> Book:
    return opened("north", holders={ANNA: 1_000, BERT: 0}, **limits)


def south() -> Book:
    return opened("south", holders={CARA: 500})


def verify(evidence: bytes) -> Proof:
    return verify_evidence(evidence, root=ANCHOR)


def refusal(evidence: bytes) -> Code:
    with pytest.raises(ProtocolError) as caught:
        verify(evidence)
    return caught.value.code


def proven(evidence: bytes, book: Book, code: str) -> Proof:
    proof = verify(evidence)
    assert (proof.journal, proof.epoch, proof.code) == (book.journal, book.epoch, code)
    return proof


# ---- one entry ------------------------------------------------------------------------------


def alone(book: Book, index: int) -> bytes:
    return breach.breach_entry(transfer(book, index))


def test_no_entry_of_an_honest_journal_is_wrong_alone() -> None:
    book, other = north(), south()
    other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal))
    book.accept(other.note(len(other.context.entries) - 1))
    book.accept(book.pay(ANNA, BERT, 10))
    for index in range(len(book.context.entries)):
        assert refusal(alone(book, index)) == Code.NOT_PROVEN


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"index": 0}, Code.MALFORMED),
        ({"time_ms": NOW_MS + 2 * DAY_MS}, Code.ORDER_EXPIRED),
        ({"time_ms": NOW_MS - DAY_MS}, Code.ORDER_FROM_THE_FUTURE),
    ],
)
def test_an_entry_that_no_state_makes_right_is_evidence(
    changed: dict[str, int], code: Code
) -> None:
    book = north()
    index = forge(book, book.pay(ANNA, BERT, 10), **changed)
    assert f"entry {index}" in proven(alone(book, index), book, code).finding


def test_an_uncertain_clock_excuses_an_order_from_the_future() -> None:
    book = north()
    index = forge(book, book.pay(ANNA, BERT, 10), time_ms=NOW_MS - DAY_MS, clock=1)
    assert refusal(alone(book, index)) == Code.NOT_PROVEN


def test_an_order_of_another_epoch_a_foreign_note_and_an_old_one_are_evidence() -> None:
    book, later, other = north(), north(epoch=2), south()
    order = later.accept(later.pay(ANNA, BERT, 10))
    index = write(book, place(book, EntryKind.PAY, body_of(order)))
    proven(alone(book, index), book, Code.WRONG_JOURNAL)
    out = other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal)).index
    brought = book.accept(other.note(out))
    late = place(book, EntryKind.TRANSFER_IN, body_of(brought), time_ms=NOW_MS + 2 * DAY_MS)
    proven(alone(book, write(book, late)), book, Code.NOTE_EXPIRED)
    foreign = write(other, place(other, EntryKind.TRANSFER_IN, body_of(brought)))
    proven(alone(other, foreign), other, Code.NOTE_NOT_FOR_US)


@pytest.mark.parametrize(
    ("changed", "time_ms", "code"),
    [
        ({"epoch": 7}, NOW_MS, Code.WRONG_JOURNAL),
        ({}, NOW_MS + 2 * DAY_MS, Code.GRANT_EXPIRED),
    ],
)
def test_a_grant_for_elsewhere_or_too_late_is_evidence(
    changed: dict[str, Any], time_ms: int, code: Code
) -> None:
    book = north()
    grant = book.grant(ANNA, 5, **changed)
    raw = place(book, EntryKind.FUND, encode(grant.signed.raw), time_ms=time_ms)
    proven(alone(book, write(book, raw)), book, code)


def test_bytes_that_are_no_entry_are_evidence() -> None:
    book = north()
    index = write(book, b"nonsense")
    assert "cannot be read" in proven(alone(book, index), book, Code.NOT_CANONICAL).finding


def test_an_order_of_a_later_version_proves_nothing() -> None:
    book = north()
    known = book.pay(ANNA, BERT, 10).order.signed
    payload = b"".join((known.payload[:1], encode(1), encode(2), known.payload[3:]))
    order = ANNA.sign_object(ORDER_TYPE, payload)
    index = write(book, place(book, EntryKind.PAY, encode([order, None])))
    assert refusal(alone(book, index)) == Code.NOT_PROVEN


def test_a_receipt_that_does_not_hold_proves_nothing() -> None:
    book = north()
    index = write(book, b"nonsense")
    entry, receipt = transfer(book, index)
    assert refusal(breach.breach_entry((entry + b"\x00", receipt))) == Code.NOT_PROVEN
    assert refusal(breach.breach_entry((entry, b""))) == Code.NOT_CANONICAL
    size = len(book.context.entries)
    inner = receipt.replace(encode(size), encode(size + 1), 1)
    assert refusal(breach.breach_entry((entry, inner))) == Code.NOT_PROVEN


def test_a_proof_of_another_size_than_the_signed_one_proves_nothing() -> None:
    book = north()
    index = write(book, b"nonsense")
    entry, receipt = transfer(book, index)
    at = receipt.rindex(b"\x83" + encode(index + 1) + encode(index))
    wrong = receipt[: at + 1] + encode(index + 2) + receipt[at + 2 :]
    assert refusal(breach.breach_entry((entry, wrong))) == Code.NOT_PROVEN


# ---- two entries ----------------------------------------------------------------------------


def pair(book: Book, one: int, other: int) -> bytes:
    return breach.breach_pair(transfer(book, one), transfer(book, other))


def test_no_two_entries_of_an_honest_journal_exclude_each_other() -> None:
    book, other = north(), south()
    for amount in (5, 6):
        other.accept(other.pay(CARA, ANNA, amount, payee_journal=book.journal))
        book.accept(other.note(len(other.context.entries) - 1))
        book.accept(book.pay(ANNA, BERT, amount))
    book.accept(book.grant(ANNA, 7))
    book.accept(Close(reason=0))
    book.accept(book.settlement())
    end = len(book.context.entries)
    for one in range(end):
        for two in range(end):
            assert refusal(pair(book, one, two)) == Code.NOT_PROVEN


def test_times_that_fall_are_evidence() -> None:
    book = north()
    book.now_ms += 1_000
    first = book.accept(book.pay(ANNA, BERT, 10)).index
    index = forge(book, book.pay(ANNA, BERT, 10), time_ms=book.now_ms - 1)
    assert "falls by 1 ms" in proven(pair(book, index, first), book, Code.MALFORMED).finding


def test_one_sequence_used_twice_is_evidence() -> None:
    book = north()
    first = forge(book, book.pay(ANNA, BERT, 10))
    second = forge(book, book.pay(ANNA, BERT, 20))
    assert "sequence 0" in proven(pair(book, first, second), book, Code.SEQUENCE_USED).finding


def test_one_grant_entered_twice_is_evidence() -> None:
    book = north()
    grant = book.accept(book.grant(ANNA, 7))
    second = write(book, place(book, EntryKind.FUND, body_of(grant)))
    proven(pair(book, grant.index, second), book, Code.GRANT_REPLAYED)


def test_an_entry_after_the_end_of_the_epoch_is_evidence() -> None:
    book = north()
    late = book.pay(ANNA, BERT, 10)
    index = forge(book, late)
    raw = book.context.entries[index]
    del book.context.entries[index:], book.context.leaves[index:]
    end = book.accept(Close(reason=0)).index
    later = write(book, place(book, EntryKind.PAY, body_of(decode_entry(raw))))
    proven(pair(book, end, later), book, Code.WRONG_JOURNAL)


def test_one_note_brought_in_twice_is_evidence() -> None:
    book, other = north(), south()
    out = other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal)).index
    first = book.accept(other.note(out))
    index = write(book, place(book, EntryKind.TRANSFER_IN, body_of(first)))
    proof = proven(pair(book, index, first.index), book, Code.NOTE_REDEEMED)
    assert f"entries {first.index} and {index} both bring in a transfer-in" in proof.finding


def test_a_later_epoch_need_not_know_what_came_in_before() -> None:
    """What was lost with its gateway, and claimed by nobody, comes in again in good faith."""
    book, other, later = north(), south(), north(epoch=2)
    out = other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal)).index
    first, again = (each.accept(other.note(out)).index for each in (book, later))
    evidence = breach.breach_pair(transfer(book, first), transfer(later, again))
    assert refusal(evidence) == Code.NOT_PROVEN


def test_a_note_whose_own_receipt_does_not_hold_was_brought_in_nowhere() -> None:
    book, other = north(), south()
    out = other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal)).index
    entry, receipt = transfer(other, out)
    body = encode([entry, receipt[:-1] + bytes([receipt[-1] ^ 1])])
    places = [write(book, place(book, EntryKind.TRANSFER_IN, body)) for _ in range(2)]
    assert refusal(pair(book, *places)) == Code.NOT_PROVEN


def test_entries_of_two_journals_or_one_place_prove_nothing() -> None:
    book, other = north(), south()
    last = len(book.context.entries) - 1
    assert refusal(breach.breach_pair(transfer(book, 1), transfer(other, 1))) == Code.NOT_PROVEN
    assert refusal(pair(book, last, last)) == Code.NOT_PROVEN
    later = north(epoch=2)
    assert refusal(breach.breach_pair(transfer(book, 3), transfer(later, 3))) == Code.NOT_PROVEN
    entry, receipt = transfer(book, last)
    unsigned = (entry, receipt[:-1] + bytes([receipt[-1] ^ 1]))
    assert refusal(breach.breach_pair(unsigned, transfer(book, 1))) == Code.NOT_PROVEN
