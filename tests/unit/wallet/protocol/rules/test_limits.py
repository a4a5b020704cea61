"""The limits of limits.md: each where it begins to refuse, what it says, and what shrinks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.world import DAY_MS, NOW_MS, list_of, policy_of
from wallet.protocol.entry import Clock, Payment
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.lists import ListId
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind
from wallet.protocol.policy import JournalLimit, Limit
from wallet.protocol.refusals import Code, Refusal
from wallet.protocol.shapes import COUNT_MAX
from wallet.protocol.state import HOUR_MS

ANNA, BERT, CARA = Key("anna"), Key("bert"), Key("cara")
ELSEWHERE = JournalId(bytes(range(20)))
HOUR = NOW_MS // HOUR_MS * HOUR_MS


def limited(limits: Mapping[Any, int], journal: Mapping[Any, int] | None = None) -> Book:
    """Anna has 1,000, Bert 100, Cara nothing; all of one tier."""
    return opened(tiers={0: limits}, journal=journal, holders={ANNA: 1_000, BERT: 100, CARA: 0})


def spend(book: Book, *amounts: int) -> None:
    """Anna pays Bert."""
    for amount in amounts:
        book.accept(book.pay(ANNA, BERT, amount))


# By limit: value, what is accepted before, the largest accepted, the refusal of one more.
Row = tuple[Limit, int, tuple[int, ...], int, Code, int | None]
AMOUNTS: list[Row] = [
    (Limit.PAYMENT_MAX, 100, (), 100, Code.PAYMENT_ABOVE_LIMIT, 100),
    (Limit.BALANCE_MAX, 200, (), 100, Code.BALANCE_ABOVE_LIMIT, 100),
    (Limit.OUT_AMOUNT_SINCE_HARD, 200, (120,), 80, Code.SPENT_ABOVE_LIMIT, 80),
    (Limit.IN_AMOUNT_SINCE, 200, (120,), 80, Code.RECEIVED_ABOVE_LIMIT, 80),
    (Limit.OUT_AMOUNT_DAY, 200, (120,), 80, Code.DAY_AMOUNT_ABOVE_LIMIT, 80),
    (Limit.PAIR_AMOUNT_DAY, 200, (120,), 80, Code.PAIR_ABOVE_LIMIT, 80),
]


@pytest.mark.parametrize(("limit", "value", "before", "most", "code", "left"), AMOUNTS)
def test_an_amount_limit_refuses_one_unit_more(
    limit: Limit, value: int, before: tuple[int, ...], most: int, code: Code, left: int
) -> None:
    book = limited({limit: value})
    spend(book, *before)
    refusal = book.refused(book.pay(ANNA, BERT, most + 1))
    assert (refusal.code, refusal.limit, refusal.left) == (code, value, left)
    spend(book, most)
    book.agree()


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        (Limit.OUT_COUNT_SINCE_HARD, Code.COUNT_ABOVE_LIMIT),
        (Limit.OUT_COUNT_DAY, Code.DAY_COUNT_ABOVE_LIMIT),
    ],
)
def test_a_count_limit_refuses_one_payment_more(limit: Limit, code: Code) -> None:
    book = limited({limit: 2})
    spend(book, 1, 1)
    refusal = book.refused(book.pay(ANNA, BERT, 1))
    assert (refusal.code, refusal.limit, refusal.left) == (code, 2, 0)


def test_a_payment_has_a_least_amount() -> None:
    book = limited({Limit.PAYMENT_MIN: 10})
    assert book.refused(book.pay(ANNA, BERT, 9)).code == Code.PAYMENT_BELOW_LIMIT
    spend(book, 10)


def test_more_than_the_pinless_amount_asks_for_authorisation() -> None:
    book = limited({Limit.PINLESS_MAX: 50})
    refusal = book.refused(book.pay(ANNA, BERT, 51, authorisation=0))
    assert (refusal.code, refusal.limit) == (Code.AUTHORISATION_REQUIRED, 50)
    book.accept(book.pay(ANNA, BERT, 50, authorisation=0))
    book.accept(book.pay(ANNA, BERT, 51, authorisation=1))


def test_a_journal_that_has_not_settled_for_long_stops_its_payers() -> None:
    book = limited({Limit.OFFLINE_AGE_HARD_S: 60})
    book.now_ms += 60_000
    spend(book, 1)
    book.now_ms += 1
    refusal = book.refused(book.pay(ANNA, BERT, 1))
    assert (refusal.code, refusal.limit) == (Code.OFFLINE_TOO_LONG, 60)
    book.accept(book.settlement(time_ms=book.now_ms))
    spend(book, 1)


def test_a_settlement_counts_from_when_it_was_made_however_late_it_came() -> None:
    book = limited({Limit.OFFLINE_AGE_HARD_S: 3_600})
    book.now_ms += DAY_MS
    book.accept(book.settlement(time_ms=NOW_MS + 1))
    assert book.state.settled_ms == NOW_MS + 1
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.OFFLINE_TOO_LONG


def test_a_refund_comes_in_time() -> None:
    book = limited({Limit.REFUND_AGE_S: 60})
    leaf = leaf_hash(book.accept(book.pay(ANNA, BERT, 10)).raw)
    refund: dict[str, Any] = {"kind": OrderKind.REFUND, "refunded": leaf}
    book.now_ms += 60_000
    book.accept(book.pay(BERT, ANNA, 1, **refund))
    book.now_ms += 1
    refusal = book.refused(book.pay(BERT, ANNA, 1, **refund))
    assert (refusal.code, refusal.limit) == (Code.REFUND_TOO_LATE, 60)
    book.agree()


def test_a_wallet_pays_only_the_categories_of_its_set() -> None:
    book = limited({Limit.CATEGORY_SET: 7})
    bread = book.pay(ANNA, BERT, 1, category="5411")
    assert book.refused(bread).code == Code.CATEGORY_NOT_ALLOWED
    book.accept(list_of(ListId.CATEGORIES, {7: ["5411"], 8: ["5812"]}))
    book.accept(bread)
    for other in ("5812", None):
        payment = book.pay(ANNA, BERT, 1, category=other)
        assert book.refused(payment).code == Code.CATEGORY_NOT_ALLOWED
    book.accept(book.pay(ANNA, ANNA, 1, kind=OrderKind.REDEEM))
    book.agree()


def test_limits_are_those_of_the_wallets_own_tier() -> None:
    book = limited({Limit.PAYMENT_MAX: 10})
    book.accept(book.enrolment(ANNA, tier=1))
    spend(book, 500)
    assert book.refused(book.pay(BERT, ANNA, 11)).code == Code.PAYMENT_ABOVE_LIMIT


def test_what_comes_in_from_oneself_breaks_no_limit_of_receiving() -> None:
    book = limited({Limit.BALANCE_MAX: 1, Limit.PAIR_AMOUNT_DAY: 1})
    book.accept(book.pay(ANNA, ANNA, 500, kind=OrderKind.REDEEM))
    assert not book.state.pairs


def test_a_balance_stays_within_what_a_statement_can_carry() -> None:
    book = limited({})
    wallet = book.state.wallets[WalletId(BERT.public.id)]
    for state in (book.state, book.replica):
        mine = state.wallets[wallet.wallet]
        mine.settled = COUNT_MAX - 10
    refusal = book.refused(book.pay(ANNA, BERT, 11))
    assert (refusal.code, refusal.left) == (Code.BALANCE_ABOVE_LIMIT, 10)
    assert book.refused(book.grant(BERT, 11)).code == Code.BALANCE_ABOVE_LIMIT
    book.accept(book.grant(BERT, 10))
    book.agree()


# ---- the rolling day ------------------------------------------------------------------------


def test_a_day_is_24_buckets_of_one_hour() -> None:
    book = limited({Limit.OUT_AMOUNT_DAY: 100, Limit.PAIR_AMOUNT_DAY: 100})
    book.now_ms = HOUR + HOUR_MS - 1
    spend(book, 60)
    book.now_ms = HOUR + 23 * HOUR_MS
    spend(book, 40)
    book.now_ms = HOUR + 24 * HOUR_MS - 1
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.DAY_AMOUNT_ABOVE_LIMIT
    book.now_ms += 1
    assert book.refused(book.pay(ANNA, BERT, 61)).code == Code.DAY_AMOUNT_ABOVE_LIMIT
    spend(book, 60)
    wallet = book.state.wallets[WalletId(ANNA.public.id)]
    hour = HOUR // HOUR_MS
    assert wallet.hours == ((hour + 23, 40, 1), (hour + 24, 60, 1))
    book.agree()


def test_pairs_of_a_day_ago_are_forgotten() -> None:
    book = limited({Limit.PAIR_AMOUNT_DAY: 100})
    spend(book, 100)
    book.accept(book.pay(ANNA, CARA, 100))
    book.now_ms = HOUR + 24 * HOUR_MS - 1
    book.accept(book.pay(BERT, CARA, 1))
    assert len(book.state.pairs) == 3
    book.now_ms += 1
    book.accept(book.pay(BERT, CARA, 1))
    assert set(book.state.pairs) == {(BERT.public.id, CARA.public.id)}
    book.agree()


# ---- journal-wide ---------------------------------------------------------------------------


def test_a_journal_that_is_full_of_unsettled_entries_takes_no_more_payments() -> None:
    book = limited({}, {JournalLimit.ENTRIES_UNSYNCED_HARD: 8})
    spend(book, 1, 1)
    refusal = book.refused(book.pay(ANNA, BERT, 1))
    assert (refusal.code, refusal.limit, refusal.left) == (Code.JOURNAL_FULL, 8, 0)
    book.accept(book.settlement())
    spend(book, 1)
    book.agree()


def test_a_policy_past_its_end_or_age_stops_payments() -> None:
    for made, told in (
        (policy_of(journal={JournalLimit.POLICY_AGE_HARD_S: 60}, sequence=1), (60, 0)),
        (policy_of(valid_until_ms=NOW_MS + 60_000, sequence=1), (None, None)),
    ):
        book = limited({})
        book.accept(made)
        book.now_ms += 60_000
        spend(book, 1)
        book.now_ms += 1
        refusal = book.refused(book.pay(ANNA, BERT, 1))
        assert (refusal.code, refusal.limit, refusal.left) == (Code.POLICY_EXPIRED, *told)
        book.accept(policy_of(sequence=2))
        spend(book, 1)


@pytest.mark.parametrize("list_id", [ListId.JOURNALS, ListId.WALLETS, ListId.CERTIFICATES])
def test_stale_revocations_stop_payments_to_other_journals(list_id: ListId) -> None:
    limits = {JournalLimit.REVOCATION_AGE_HARD_S: 60, JournalLimit.STALE_PERCENT: 10}
    book = limited({Limit.PAYMENT_MAX: 100}, limits)
    for other in {ListId.JOURNALS, ListId.WALLETS, ListId.CERTIFICATES} - {list_id}:
        book.accept(list_of(other, [], issued_ms=NOW_MS + DAY_MS))
    _stale(book, list_of(list_id, [], issued_ms=NOW_MS + DAY_MS))


def test_stale_sanctions_stop_payments_to_other_journals() -> None:
    limits = {JournalLimit.SANCTIONS_AGE_HARD_S: 60, JournalLimit.STALE_PERCENT: 10}
    book = limited({Limit.PAYMENT_MAX: 100}, limits)
    _stale(book, list_of(ListId.SANCTIONED, [], issued_ms=NOW_MS + DAY_MS))


def _stale(book: Book, fresh: Any) -> None:
    """Past a hard age of 60 s nothing leaves, inside the branch 10 per cent, until a fresh list."""
    book.now_ms += 60_000
    book.accept(book.pay(ANNA, CARA, 100, payee_journal=ELSEWHERE))
    book.now_ms += 1
    refusal = book.refused(book.pay(ANNA, CARA, 1, payee_journal=ELSEWHERE))
    assert (refusal.code, refusal.limit, refusal.left) == (Code.LISTS_STALE, 60, 0)
    assert book.refused(book.pay(ANNA, BERT, 11)).code == Code.PAYMENT_ABOVE_LIMIT
    spend(book, 10)
    book.accept(fresh)
    book.accept(book.pay(ANNA, CARA, 100, payee_journal=ELSEWHERE))
    book.agree()


# ---- what shrinks ---------------------------------------------------------------------------


def largest(book: Book) -> int:
    """The largest amount that Anna may pay Bert now."""
    low, high = 0, 1_000
    while low < high:
        middle = (low + high + 1) // 2
        if isinstance(book.decide(book.pay(ANNA, BERT, middle)), Refusal):
            high = middle - 1
        else:
            low = middle
    return low


Change = Callable[[Book], None]


def _uncertain(book: Book) -> None:
    book.clock = Clock.UNCERTAIN


def _stale_lists(book: Book) -> None:
    book.now_ms += 60_001


def _both(book: Book) -> None:
    _uncertain(book)
    _stale_lists(book)


@pytest.mark.parametrize(
    ("change", "expected"), [(_uncertain, 33), (_stale_lists, 51), (_both, 33)]
)
@pytest.mark.parametrize(
    "age",
    [
        JournalLimit.REVOCATION_AGE_SOFT_S,
        JournalLimit.SANCTIONS_AGE_SOFT_S,
        JournalLimit.POLICY_AGE_SOFT_S,
    ],
)
def test_amount_limits_shrink_rounded_down(
    age: JournalLimit, change: Change, expected: int
) -> None:
    # 33 per cent of 101 is 33.33, 51 per cent of it 51.51.
    tier = {Limit.PAYMENT_MAX: 101, Limit.UNCERTAIN_CLOCK_PERCENT: 33, Limit.PAYMENT_MIN: 1}
    book = limited(tier, {age: 60, JournalLimit.STALE_PERCENT: 51})
    book.now_ms += 60_000
    assert largest(book) == 101
    change(book)
    assert largest(book) == expected


def test_without_percentages_nothing_shrinks() -> None:
    book = limited({Limit.PAYMENT_MAX: 101}, {JournalLimit.POLICY_AGE_SOFT_S: 60})
    _both(book)
    assert largest(book) == 101


@pytest.mark.parametrize(
    "limit",
    [
        Limit.PAYMENT_MAX,
        Limit.OUT_AMOUNT_SINCE_HARD,
        Limit.IN_AMOUNT_SINCE,
        Limit.OUT_AMOUNT_DAY,
        Limit.PAIR_AMOUNT_DAY,
    ],
)
def test_every_amount_limit_shrinks(limit: Limit) -> None:
    book = limited({limit: 100, Limit.UNCERTAIN_CLOCK_PERCENT: 20})
    book.clock = Clock.UNCERTAIN
    assert largest(book) == 20


def test_the_pinless_and_the_balance_limit_shrink_too() -> None:
    shrunk = {Limit.UNCERTAIN_CLOCK_PERCENT: 50}
    book = limited({Limit.PINLESS_MAX: 100, **shrunk})
    book.clock = Clock.UNCERTAIN
    payment = book.pay(ANNA, BERT, 51, authorisation=0)
    assert book.refused(payment).code == Code.AUTHORISATION_REQUIRED
    book = limited({Limit.BALANCE_MAX: 1_000, **shrunk})
    book.clock = Clock.UNCERTAIN
    assert largest(book) == 400


def test_counts_ages_and_the_least_amount_do_not_shrink() -> None:
    book = limited(
        {
            Limit.PAYMENT_MIN: 10,
            Limit.OUT_COUNT_SINCE_HARD: 2,
            Limit.OUT_COUNT_DAY: 2,
            Limit.UNCERTAIN_CLOCK_PERCENT: 10,
        }
    )
    book.clock = Clock.UNCERTAIN
    assert book.refused(book.pay(ANNA, BERT, 9)).code == Code.PAYMENT_BELOW_LIMIT
    spend(book, 10, 10)
    assert book.refused(book.pay(ANNA, BERT, 10)).code == Code.COUNT_ABOVE_LIMIT


# ---- soft limits ----------------------------------------------------------------------------


def soft(book: Book, payment: Payment) -> tuple[str, ...]:
    """What the holder is told of an accepted payment."""
    outcome = book.decide(payment)
    assert not isinstance(outcome, Refusal)
    return outcome.soft


def test_soft_limits_accept_and_tell() -> None:
    book = limited({Limit.OUT_AMOUNT_SINCE_SOFT: 100, Limit.OUT_COUNT_SINCE_SOFT: 2})
    assert soft(book, book.pay(ANNA, BERT, 100)) == ()
    assert soft(book, book.pay(ANNA, BERT, 101)) == ("out_amount_since",)
    spend(book, 50, 50)
    assert soft(book, book.pay(ANNA, BERT, 1)) == ("out_amount_since", "out_count_since")


def test_soft_amounts_shrink_as_hard_ones_do() -> None:
    book = limited({Limit.OUT_AMOUNT_SINCE_SOFT: 100, Limit.UNCERTAIN_CLOCK_PERCENT: 50})
    book.clock = Clock.UNCERTAIN
    assert soft(book, book.pay(ANNA, BERT, 50)) == ()
    assert soft(book, book.pay(ANNA, BERT, 51)) == ("out_amount_since",)


def test_soft_ages_and_a_filling_journal_are_told() -> None:
    book = limited(
        {Limit.OFFLINE_AGE_SOFT_S: 60},
        {JournalLimit.ENTRIES_UNSYNCED_SOFT: 7, JournalLimit.SANCTIONS_AGE_SOFT_S: 120},
    )
    assert soft(book, book.pay(ANNA, BERT, 1)) == ()
    book.now_ms += 60_001
    assert soft(book, book.pay(ANNA, BERT, 1)) == ("offline_age",)
    spend(book, 1)
    book.now_ms += 60_000
    told = ("offline_age", "entries_unsynced", "lists_age")
    assert soft(book, book.pay(ANNA, BERT, 1)) == told
