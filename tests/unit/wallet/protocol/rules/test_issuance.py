"""What the issuer's objects do: opening, funding, enrolling, policies, lists, statements."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.world import DAY_MS, NOW_MS, list_of, policy_of
from wallet.protocol.entry import Close, ListUpdate, Void
from wallet.protocol.ids import JournalId, WalletId, wallet_text
from wallet.protocol.lists import ListId
from wallet.protocol.policy import Limit
from wallet.protocol.refusals import Code, InvariantBroken, Refusal
from wallet.protocol.rules import Proposal

ANNA, BERT, CARA = Key("anna"), Key("bert", -7), Key("cara")
ELSEWHERE = JournalId(bytes(range(20)))


@pytest.fixture
def book() -> Book:
    """Anna has 1,000; Bert and Cara are not enrolled."""
    return opened(holders={ANNA: 1_000})


# ---- opening --------------------------------------------------------------------------------


def test_nothing_comes_before_the_opening() -> None:
    book = Book("new")
    assert book.refused(book.grant(ANNA, 1)).code == Code.NOT_PROVISIONED
    assert book.state.journal_limit(102) is None  # type: ignore[arg-type]  # any number will do
    with pytest.raises(InvariantBroken):
        book.state.policy_held()


def test_an_epoch_is_opened_once(book: Book) -> None:
    assert book.refused(book.opening(policy_of())).code == Code.WRONG_JOURNAL


@pytest.mark.parametrize("changed", [{"journal": ELSEWHERE}, {"epoch": 2}])
def test_an_opening_is_of_this_journal_and_epoch(changed: dict[str, Any]) -> None:
    book = Book("new")
    opening = msgspec.structs.replace(book.opening(policy_of()), **changed)
    assert book.refused(opening).code == Code.WRONG_JOURNAL


def test_an_opening_has_the_currency_of_its_policy_and_the_issuers_signatures() -> None:
    book, old = Book("new", epoch=2), opened("new")
    opening = msgspec.structs.replace(book.opening(policy_of()), currency="USD")
    assert book.refused(opening).code == Code.WRONG_CURRENCY
    assert book.refused(book.opening(policy_of(role="lists"))).code == Code.WRONG_ROLE
    statement = old.statement([], role="grants")
    assert book.refused(book.opening(policy_of(), statement)).code == Code.WRONG_ROLE


def test_a_statement_carries_settled_value_and_redeemed_notes_into_the_next_epoch() -> None:
    old, book = opened("new"), Book("new", epoch=2)
    notes = [(ELSEWHERE, 3, 5)]
    carried = [(ANNA.public.id, 700), (BERT.public.id, 30)]
    book.accept(book.opening(policy_of(), old.statement(carried, notes)))
    assert book.supply() == 730
    assert (ELSEWHERE, 3, 5) in book.state.redeemed
    book.accept(book.enrolment(CARA))
    book.accept(book.enrolment(ANNA))
    numbers = {wallet.number for wallet in book.state.wallets.values()}
    assert numbers == set(book.state.numbers) == {0, 1, 2}
    book.accept(book.pay(ANNA, CARA, 700))
    book.agree()


def test_a_carried_balance_is_its_holders_only_after_enrolling_anew() -> None:
    old, book = opened("new"), Book("new", epoch=2)
    carried = [(ANNA.public.id, 700), (BERT.public.id, 0)]
    book.accept(book.opening(policy_of(), old.statement(carried)))
    book.accept(book.enrolment(BERT))
    refused: list[Proposal] = [
        book.pay(ANNA, BERT, 1),
        book.pay(BERT, ANNA, 1),
        book.grant(ANNA, 1),
        Void(request=book.request(ANNA, 1)),
    ]
    assert {book.refused(proposal).code for proposal in refused} == {Code.UNKNOWN_WALLET}
    a = opened("third", holders={CARA: 10})
    note = a.note(a.accept(a.pay(CARA, ANNA, 10, payee_journal=book.journal)).index)
    assert book.refused(note).code == Code.UNKNOWN_WALLET
    book.accept(book.enrolment(ANNA))
    book.accept(note)
    assert book.balance(ANNA) == (700, 10, 1)


def test_a_statement_closes_an_epoch_before_this_one() -> None:
    book = Book("new", epoch=2)
    same = book.statement([], epoch=2)
    assert book.refused(book.opening(policy_of(), same)).code == Code.WRONG_JOURNAL
    lost = book.statement([(ANNA.public.id, 5)], journal=ELSEWHERE, epoch=9)
    book.accept(book.opening(policy_of(), lost))
    assert book.supply() == 5


def test_a_statement_that_carries_a_wallet_twice_is_malformed() -> None:
    old, book = opened("new"), Book("new", epoch=2)
    statement = old.statement([(ANNA.public.id, 1), (ANNA.public.id, 2)])
    assert book.refused(book.opening(policy_of(), statement)).code == Code.MALFORMED


# ---- grants ---------------------------------------------------------------------------------


def test_a_grant_adds_settled_value_beyond_any_limit() -> None:
    book = opened(tiers={0: {Limit.BALANCE_MAX: 1}}, holders={ANNA: 1_000})
    assert book.balance(ANNA) == (1_000, 0, 0)
    book.agree()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"journal": ELSEWHERE}, Code.WRONG_JOURNAL),
        ({"epoch": 2}, Code.WRONG_JOURNAL),
        ({"currency": "USD"}, Code.WRONG_CURRENCY),
        ({"sequence": 0}, Code.GRANT_REPLAYED),
        ({"sequence": 2}, Code.GRANT_GAP),
        ({"expires_ms": NOW_MS - 1}, Code.GRANT_EXPIRED),
        ({"role": "settlement"}, Code.WRONG_ROLE),
    ],
)
def test_a_grant_is_refused(changed: dict[str, Any], code: Code, book: Book) -> None:
    assert book.refused(book.grant(ANNA, 1, **changed)).code == code


def test_a_grant_is_for_a_wallet_enrolled_here(book: Book) -> None:
    assert book.refused(book.grant(CARA, 1)).code == Code.UNKNOWN_WALLET


def test_a_grant_holds_to_the_millisecond_of_its_end(book: Book) -> None:
    book.accept(book.grant(ANNA, 1, expires_ms=NOW_MS))


# ---- enrolments -----------------------------------------------------------------------------


def test_an_enrolment_is_renewed_without_touching_value_or_sequence(book: Book) -> None:
    book.accept(book.enrolment(BERT))
    book.accept(book.pay(ANNA, BERT, 400))
    before = book.state.wallets[WalletId(ANNA.public.id)]
    book.accept(book.enrolment(ANNA, tier=3, expires_ms=NOW_MS + DAY_MS))
    after = book.state.wallets[WalletId(ANNA.public.id)]
    assert (after.tier, after.enrolment_expires_ms) == (3, NOW_MS + DAY_MS)
    assert (after.number, after.next_sequence, after.balance) == (before.number, 1, 600)
    book.agree()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"journal": ELSEWHERE}, Code.WRONG_JOURNAL),
        ({"expires_ms": NOW_MS - 1}, Code.ENROLMENT_EXPIRED),
        ({"role": "grants"}, Code.WRONG_ROLE),
    ],
)
def test_an_enrolment_is_refused(changed: dict[str, Any], code: Code, book: Book) -> None:
    assert book.refused(book.enrolment(CARA, **changed)).code == code


# ---- policies and lists ---------------------------------------------------------------------


def test_a_policy_replaces_an_older_one_only(book: Book) -> None:
    book.accept(policy_of(sequence=4))
    assert book.refused(policy_of(sequence=4)).code == Code.SEQUENCE_USED
    assert book.refused(policy_of(sequence=5, currency="USD")).code == Code.WRONG_CURRENCY
    assert book.refused(policy_of(sequence=5, role="lists")).code == Code.WRONG_ROLE
    book.agree()


def test_a_list_replaces_an_older_one_only(book: Book) -> None:
    book.accept(list_of(ListId.FROZEN, [ANNA.public.id], sequence=3))
    assert book.refused(list_of(ListId.FROZEN, [], sequence=3)).code == Code.SEQUENCE_USED
    assert book.refused(list_of(ListId.FROZEN, [], sequence=4, role="policy")).code == (
        Code.WRONG_ROLE
    )
    book.agree()


DELTAS: list[tuple[ListId, Any, Any, Any, set[Any]]] = [
    (ListId.FROZEN, [b"a" * 20, b"b" * 20], [b"c" * 20], [b"a" * 20], {b"b" * 20, b"c" * 20}),
    (ListId.WALLETS, [b"a" * 20], [], [b"a" * 20, b"z" * 20], set()),
    (
        ListId.JOURNALS,
        [[b"a" * 20, 1]],
        [[b"a" * 20, 2]],
        [],
        {(b"a" * 20, 1), (b"a" * 20, 2)},
    ),
    (ListId.CERTIFICATES, [b"\1", b"\2"], [b"\3"], [b"\1"], {b"\2", b"\3"}),
    (
        ListId.CATEGORIES,
        {1: ["5411", "5812"], 2: ["5411"]},
        {2: ["5912"]},
        {1: ["5812"]},
        {(1, "5411"), (2, "5411"), (2, "5912")},
    ),
    (ListId.SANCTIONED, [["x", ["X"]], ["y", []]], [["z", ["Z"]]], [["y", []]], {"x", "z"}),
]


@pytest.mark.parametrize(("list_id", "full", "added", "removed", "expected"), DELTAS)
def test_a_delta_adds_and_removes_on_the_list_held(
    list_id: ListId, full: Any, added: Any, removed: Any, expected: set[Any], book: Book
) -> None:
    base = list_of(list_id, full)
    book.accept(base)
    book.accept(list_of(list_id, [added, removed], sequence=1, base=base.hash))
    held = book.state.lists[list_id]
    assert held.items == expected
    assert held.names == ({"x": ("X",), "z": ("Z",)} if list_id == ListId.SANCTIONED else {})
    book.agree()


def test_a_delta_needs_just_its_base(book: Book) -> None:
    delta = list_of(ListId.FROZEN, [[], []], sequence=1, base=bytes(32))
    assert book.refused(delta).code == Code.PARENT_MISSING
    book.accept(list_of(ListId.FROZEN, []))
    assert book.refused(delta).code == Code.PARENT_MISSING


def test_a_list_that_an_entry_names_must_be_known_by_its_hash(book: Book) -> None:
    given = list_of(ListId.FROZEN, [])
    update = ListUpdate(list_id=ListId.FROZEN, sequence=0, hash=given.hash)
    assert book.refused(update).code == Code.PARENT_MISSING
    book.context.lists[given.hash] = list_of(ListId.FROZEN, [], sequence=1)
    assert book.refused(update).code == Code.PARENT_MISSING
    book.context.lists[given.hash] = given
    assert not isinstance(book.decide(update), Refusal)


def test_a_wallet_that_is_thawed_pays_again(book: Book) -> None:
    book.accept(book.enrolment(BERT))
    frozen = list_of(ListId.FROZEN, [ANNA.public.id])
    book.accept(frozen)
    assert book.refused(book.pay(ANNA, BERT, 1)).code == Code.WALLET_FROZEN
    thawed = list_of(ListId.FROZEN, [[], [ANNA.public.id]], sequence=1, base=frozen.hash)
    book.accept(thawed)
    book.accept(book.pay(ANNA, BERT, 1))
    book.agree()


# ---- closing --------------------------------------------------------------------------------


def test_a_closed_epoch_is_not_opened_again(book: Book) -> None:
    book.accept(Close(reason=2))
    assert book.refused(book.opening(policy_of())).code == Code.WRONG_JOURNAL
    assert book.refused(Close(reason=2)).code == Code.WRONG_JOURNAL
    book.agree()


def test_what_is_no_proposal_is_a_fault_of_the_program(book: Book) -> None:
    with pytest.raises(InvariantBroken):
        book.decide(cast(Any, wallet_text(ANNA.public.id)))
