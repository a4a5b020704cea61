"""Moving between journals: notes, what they bring, and every reason not to redeem one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tests.support.books import Book, opened
from tests.support.issuer import DAY_S, START_S, Key
from tests.support.world import DAY_MS, NOW_MS, list_of, policy_of
from wallet.protocol.entry import Note, Void
from wallet.protocol.ids import JournalId, WalletId, wallet_text
from wallet.protocol.lists import ListId
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit, Limit
from wallet.protocol.refusals import Code, Refusal
from wallet.protocol.shapes import COUNT_MAX

ANNA, BERT, CARA = Key("anna"), Key("bert", -7), Key("cara")
ELSEWHERE = JournalId(bytes(range(20)))


def source() -> Book:
    """Anna's journal."""
    return opened("from", holders={ANNA: 1_000})


def target(
    limits: Mapping[Any, int] | None = None, journal: Mapping[Any, int] | None = None
) -> Book:
    """Bert's and Cara's journal."""
    return opened("to", tiers={0: limits or {}}, journal=journal, holders={BERT: 0, CARA: 0})


def sent(book: Book, to: Book, amount: int = 100, **claims: Any) -> Note:
    """The note of a payment of Anna's to Bert."""
    claims = {"payee_journal": to.journal, **claims}
    return book.note(book.accept(book.pay(ANNA, BERT, amount, **claims)).index)


def note_of(to: Book, amount: int = 100, **claims: Any) -> Note:
    """Likewise from a journal of its own."""
    return sent(source(), to, amount, **claims)


def test_a_note_brings_unsettled_value_one_hop_further() -> None:
    a, b = source(), target()
    b.accept(sent(a, b, 100))
    assert (a.supply(), b.supply()) == (900, 100)
    assert b.balance(BERT) == (0, 100, 1)
    assert b.state.unsettled_total == 100
    a.agree()
    b.agree()


def test_the_hop_grows_with_each_journal_and_settled_value_resets_it() -> None:
    a, b = source(), target()
    b.accept(sent(a, b, 100))
    a.accept(a.grant(ANNA, 100))
    back = b.pay(BERT, ANNA, 100, payee_journal=a.journal)
    entry = b.accept(back)
    assert entry.hop == 1
    a.accept(b.note(entry.index))
    assert a.balance(ANNA) == (1_000, 100, 2)
    small = a.accept(a.pay(ANNA, BERT, 1_000, payee_journal=b.journal))
    assert (small.hop, a.balance(ANNA)) == (0, (0, 100, 2))
    rest = a.accept(a.pay(ANNA, BERT, 100, payee_journal=b.journal))
    assert (rest.hop, a.balance(ANNA)) == (2, (0, 0, 0))
    a.agree()
    b.agree()


def test_inside_a_journal_the_parts_and_the_hop_move_as_they_are() -> None:
    b = target()
    b.accept(note_of(b, 100))
    b.accept(b.grant(BERT, 10))
    b.accept(b.pay(BERT, CARA, 30))
    assert (b.balance(BERT), b.balance(CARA)) == ((0, 80, 1), (10, 20, 1))
    b.accept(b.pay(CARA, BERT, 30))
    assert (b.balance(BERT), b.balance(CARA)) == ((10, 100, 1), (0, 0, 0))
    assert b.state.unsettled_total == 100
    b.agree()


def test_the_highest_hop_of_what_came_in_stays() -> None:
    a, b = source(), target()
    b.accept(sent(a, b, 100))
    entry = b.accept(b.pay(BERT, ANNA, 50, payee_journal=a.journal))
    a.accept(b.note(entry.index))
    a.accept(a.pay(ANNA, ANNA, 1_000 - 100, kind=OrderKind.REDEEM))
    b.accept(a.note(a.accept(a.pay(ANNA, CARA, 50, payee_journal=b.journal)).index))
    assert b.balance(CARA) == (0, 50, 3)
    b.accept(b.pay(CARA, BERT, 20))
    assert b.balance(BERT) == (0, 70, 3)
    b.accept(b.pay(BERT, CARA, 70))
    assert b.balance(CARA) == (0, 100, 3)
    b.agree()


def test_a_rehome_brings_value_to_ones_own_wallet() -> None:
    a = source()
    b = opened("to", holders={ANNA: 0})
    order = a.pay(ANNA, ANNA, 400, kind=OrderKind.REHOME, payee_journal=b.journal)
    note = a.note(a.accept(order).index)
    b.accept(note)
    assert b.balance(ANNA) == (0, 400, 1)
    b.agree()


def test_what_a_note_brought_can_be_refunded() -> None:
    a, b = source(), target()
    leaf = leaf_hash(b.accept(sent(a, b, 100)).raw)
    refund: dict[str, Any] = {"kind": OrderKind.REFUND, "refunded": leaf}
    refund["payee_journal"] = a.journal
    assert b.refused(b.pay(BERT, CARA, 1, **refund)).code == Code.REFUND_UNKNOWN
    entry = b.accept(b.pay(BERT, ANNA, 100, **refund))
    a.accept(b.note(entry.index))
    assert (a.supply(), b.supply()) == (1_000, 0)
    a.agree()
    b.agree()


# ---- refusals -------------------------------------------------------------------------------


def test_a_note_is_redeemed_once() -> None:
    a, b = source(), target()
    note = sent(a, b)
    b.accept(note)
    later = a.note(note.index)
    assert b.refused(note).code == Code.NOTE_REDEEMED
    a.accept(a.pay(ANNA, BERT, 1, payee_journal=b.journal))
    assert b.refused(a.note(later.index)).code == Code.NOTE_REDEEMED


def test_a_note_is_for_the_journal_that_it_names() -> None:
    b = target()
    assert b.refused(note_of(b, payee_journal=ELSEWHERE)).code == Code.NOTE_NOT_FOR_US


def test_a_note_of_this_very_journal_is_none() -> None:
    b = target()
    b.accept(b.grant(BERT, 10))
    note = b.note(b.accept(b.pay(BERT, CARA, 10, payee_journal=ELSEWHERE)).index)
    assert b.refused(note).code == Code.NOTE_NOT_FOR_US


@pytest.mark.parametrize("claim", ["payer_journal", "payer_epoch"])
def test_a_note_of_an_order_to_another_journal_or_epoch_is_none(claim: str) -> None:
    # A dishonest journal: it wrote an order that was never its own.
    a, b = source(), target()
    note = sent(a, b)
    changed = {claim: ELSEWHERE if claim == "payer_journal" else 7}
    note = msgspec.structs.replace(note, order=msgspec.structs.replace(note.order, **changed))
    assert b.refused(note).code == Code.NOTE_NOT_FOR_US


def test_a_note_in_another_currency_is_none() -> None:
    b = target()
    note = note_of(b)
    order = msgspec.structs.replace(note.order, currency="USD")
    assert b.refused(msgspec.structs.replace(note, order=order)).code == Code.WRONG_CURRENCY


def test_the_payee_of_a_note_is_enrolled_and_not_frozen() -> None:
    b = opened("to", holders={CARA: 0})
    note = note_of(b)
    assert b.refused(note).code == Code.UNKNOWN_WALLET
    b.accept(b.enrolment(BERT))
    b.accept(list_of(ListId.FROZEN, [BERT.public.id]))
    assert b.refused(note).code == Code.WALLET_FROZEN
    b.accept(list_of(ListId.FROZEN, [], sequence=1))
    b.accept(note)


def test_a_note_comes_before_its_order_expires() -> None:
    b = target()
    note = note_of(b, expires_ms=NOW_MS + 60_000)
    b.now_ms += 60_001
    assert b.refused(note).code == Code.NOTE_EXPIRED
    b.now_ms -= 1
    b.accept(note)


def test_an_expired_certificate_of_the_other_journal_has_a_grace() -> None:
    end_ms = (START_S + 14 * DAY_S) * 1000
    b = target(journal={JournalLimit.CERTIFICATE_GRACE_S: 3_600})
    note = note_of(b, expires_ms=end_ms + DAY_MS)
    b.now_ms = end_ms + 3_600_001
    assert b.refused(note).code == Code.CERTIFICATE_INVALID
    b.now_ms -= 1
    b.accept(note)
    unlimited = target()
    unlimited.now_ms = end_ms + 3_600_001
    unlimited.accept(note)


def test_a_note_of_a_revoked_epoch_or_certificate_is_refused() -> None:
    a, b = source(), target()
    note = sent(a, b)
    b.accept(list_of(ListId.JOURNALS, [[a.journal, a.epoch + 1]]))
    b.accept(list_of(ListId.JOURNALS, [[a.journal, a.epoch]], sequence=1))
    assert b.refused(note).code == Code.JOURNAL_REVOKED


def test_a_receipt_that_does_not_hold_is_refused() -> None:
    a, b = source(), target()
    note = sent(a, b)
    other = sent(a, b)
    assert b.refused(msgspec.structs.replace(note, entry=other.entry)).code == Code.PROOF_INVALID


def test_a_note_comes_over_a_limited_number_of_hops() -> None:
    b = target({Limit.HOPS_MAX: 3})
    note = note_of(b)
    assert not isinstance(b.decide(msgspec.structs.replace(note, hop=2)), Refusal)
    refusal = b.refused(msgspec.structs.replace(note, hop=3))
    assert (refusal.code, refusal.limit) == (Code.HOPS_ABOVE_LIMIT, 3)


def test_a_hop_stays_within_what_an_entry_can_carry() -> None:
    b = target()
    note = msgspec.structs.replace(note_of(b), hop=COUNT_MAX)
    assert b.refused(note).code == Code.HOPS_ABOVE_LIMIT


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        (Limit.BALANCE_MAX, Code.BALANCE_ABOVE_LIMIT),
        (Limit.IN_AMOUNT_SINCE, Code.RECEIVED_ABOVE_LIMIT),
    ],
)
def test_limits_of_receiving_hold_for_notes(limit: Limit, code: Code) -> None:
    b = target({limit: 150})
    b.accept(note_of(b, 100))
    refusal = b.refused(sent(opened("third", holders={ANNA: 100}), b, 51))
    assert (refusal.code, refusal.limit, refusal.left) == (code, 150, 50)


def test_a_gateway_takes_unsettled_value_up_to_its_exposure() -> None:
    b = target(journal={JournalLimit.EXPOSURE_HARD: 150, JournalLimit.EXPOSURE_SOFT: 99})
    a = source()
    first, second = sent(a, b, 100), sent(a, b, 51)
    outcome = b.decide(first)
    assert getattr(outcome, "soft", None) == ("exposure",)
    b.accept(first)
    refusal = b.refused(second)
    assert (refusal.code, refusal.limit, refusal.left) == (Code.GATEWAY_EXPOSURE, 150, 50)
    b.accept(b.pay(BERT, ANNA, 1, payee_journal=a.journal))
    b.accept(second)
    b.accept(b.settlement())
    assert b.state.unsettled_total == 0
    b.agree()


def test_stale_lists_stop_notes() -> None:
    b = target(journal={JournalLimit.SANCTIONS_AGE_HARD_S: 60})
    note = note_of(b)
    b.now_ms += 60_001
    assert b.refused(note).code == Code.LISTS_STALE


def test_a_revoked_or_sanctioned_payer_is_not_taken_from() -> None:
    b = target()
    note = note_of(b)
    b.accept(list_of(ListId.SANCTIONED, [[wallet_text(ANNA.public.id), []]]))
    assert b.refused(note).code == Code.SANCTIONED
    b.accept(list_of(ListId.WALLETS, [ANNA.public.id]))
    assert b.refused(note).code == Code.WALLET_REVOKED


# ---- notes that pay requests ------------------------------------------------------------------


def test_a_request_paid_by_a_note_is_paid() -> None:
    a, b = source(), target()
    request = b.request(BERT, 100)
    note = sent(a, b, request=request)
    second = sent(a, b, request=request)
    b.accept(note)
    assert b.state.requests[request.identity][0] == "paid"
    assert b.refused(second).code == Code.REQUEST_PAID
    b.accept(b.grant(CARA, 100))
    assert b.refused(b.pay(CARA, BERT, 100, request=request)).code == Code.REQUEST_PAID
    b.agree()


def test_a_note_for_a_void_request_goes_back() -> None:
    a, b = source(), target()
    request = b.request(BERT, 100)
    note = sent(a, b, request=request)
    b.accept(Void(request=request))
    assert b.refused(note).code == Code.REQUEST_VOID


def test_the_payees_journal_checks_the_requests_signature() -> None:
    a, b = source(), target()
    note = sent(a, b, request=b.request(BERT, 100, signer=CARA))
    assert b.refused(note).code == Code.BAD_SIGNATURE


def test_a_note_carries_the_request_that_its_order_names() -> None:
    a, b = source(), target()
    request = b.request(BERT, 100)
    note = sent(a, b, request=request)
    plain = sent(a, b)
    bare = msgspec.structs.replace(note, request=None)
    assert b.refused(bare).code == Code.UNKNOWN_REQUEST
    added = msgspec.structs.replace(plain, request=request)
    assert b.refused(added).code == Code.REQUEST_MISMATCH


def test_a_request_for_another_journal_is_not_paid_here_as_well() -> None:
    # Bert was at home elsewhere when he asked, and may have been paid there.
    a, b = source(), target()
    request = b.request(BERT, 100, payee_journal=ELSEWHERE)
    note = sent(a, b, request=b.request(BERT, 100))
    order = msgspec.structs.replace(note.order, request=request.identity)
    note = msgspec.structs.replace(note, order=order, request=request)
    assert b.refused(note).code == Code.REQUEST_MISMATCH


def test_a_note_may_come_after_its_request_expired_but_not_once_requests_are_forgotten() -> None:
    b = target(journal={JournalLimit.NOTE_GRACE_S: 60})
    a = source()
    request = b.request(BERT, 100, expires_ms=NOW_MS + 1)
    long: dict[str, Any] = {"request": request, "expires_ms": NOW_MS + 9 * DAY_MS}
    first, second = sent(a, b, **long), sent(a, b, **long)
    b.now_ms += 60_000
    b.accept(first)
    b.now_ms += DAY_MS
    b.accept(b.grant(CARA, 1))
    assert not b.state.requests
    b.accept(policy_of(journal={JournalLimit.NOTE_GRACE_S: 9 * 86_400}, sequence=1))
    assert b.refused(second).code == Code.REQUEST_EXPIRED
    b.agree()


def test_redeemed_notes_are_remembered_for_as_long_as_they_could_come_again() -> None:
    b = target(journal={JournalLimit.NOTE_GRACE_S: 60})
    note = note_of(b, expires_ms=NOW_MS + 60_000)
    b.accept(note)
    b.now_ms += DAY_MS
    b.accept(b.grant(CARA, 1))
    assert not b.state.redeemed
    assert b.refused(note).code == Code.NOTE_EXPIRED
    b.agree()


def test_value_under_way_is_all_that_two_journals_lack() -> None:
    a, b = source(), target()
    note = sent(a, b, 300)
    assert a.supply() + b.supply() == 700
    b.accept(note)
    assert a.supply() + b.supply() == 1_000
    assert b.state.wallets[WalletId(BERT.public.id)].in_amount_since == 300
