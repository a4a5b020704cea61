"""Entries, orders and the issuer's objects as bytes: round trips, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.books import Book, opened
from tests.support.issuer import Key
from tests.support.world import NOW_MS, issue, list_of, policy_of
from wallet.protocol import entry as entries
from wallet.protocol import issued, messages
from wallet.protocol.codec import decode, encode
from wallet.protocol.cose import ORDER_TYPE, REQUEST_TYPE
from wallet.protocol.entry import Close, EntryKind, Void
from wallet.protocol.ids import JournalId
from wallet.protocol.lists import ListId, SignedList
from wallet.protocol.messages import OrderKind
from wallet.protocol.patterns import read_order
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import Code, ProtocolError

ANNA, BERT = Key("anna"), Key("bert", -7)
ELSEWHERE = JournalId(bytes(range(20)))


@pytest.fixture(scope="module")
def book() -> Book:
    """A journal with an entry of every kind."""
    old = opened("all")
    made = Book("all", epoch=2)
    made.accept(made.opening(policy_of(), old.statement([(ANNA.public.id, 500)])))
    made.accept(made.enrolment(ANNA))
    made.accept(made.enrolment(BERT))
    made.accept(made.grant(BERT, 500))
    made.accept(made.pay(ANNA, BERT, 1))
    made.accept(made.pay(ANNA, BERT, 1, request=made.request(BERT, 1, reference="tea")))
    made.accept(made.pay(ANNA, BERT, 1, payee_journal=ELSEWHERE))
    asked = made.request(BERT, 1, payee_journal=ELSEWHERE)
    made.accept(made.pay(ANNA, BERT, 1, payee_journal=ELSEWHERE, request=asked))
    other = opened("from", holders={BERT: 9})
    paid = other.accept(other.pay(BERT, ANNA, 9, payee_journal=made.journal))
    made.accept(other.note(paid.index))
    made.accept(made.pay(ANNA, ANNA, 1, kind=OrderKind.REDEEM))
    made.accept(policy_of(sequence=1))
    made.accept(list_of(ListId.FROZEN, []))
    made.accept(Void(request=made.request(BERT, 2)))
    made.accept(made.settlement(verdicts=[(8, 1, "sanctioned")]))
    made.accept(Close(reason=3))
    return made


def refused(code: Code, decoder: Any, *arguments: Any, **named: Any) -> None:
    """The decoder refuses with this code."""
    with pytest.raises(ProtocolError) as caught:
        decoder(*arguments, **named)
    assert caught.value.code == code


# ---- entries --------------------------------------------------------------------------------


def test_every_kind_of_entry_reads_as_it_was_written(book: Book) -> None:
    kinds = set()
    for index, raw in enumerate(book.context.entries):
        entry = entries.decode_entry(raw)
        assert (entry.raw, entry.index, entry.clock) == (raw, index, 0)
        assert encode(decode(raw, bytes_max=2**20)) == raw
        kinds.add(entry.kind)
    assert kinds == set(EntryKind)
    book.agree()


def test_an_entry_is_cut_off_nowhere(book: Book) -> None:
    for raw in book.context.entries:
        refused(Code.NOT_CANONICAL, entries.decode_entry, raw[:-1])
        refused(Code.NOT_CANONICAL, entries.decode_entry, raw + b"\0")
        refused(Code.TOO_LARGE, entries.decode_entry, raw, bytes_max=len(raw) - 1)


@pytest.mark.parametrize("kind", list(EntryKind))
def test_a_body_of_another_shape_is_malformed(kind: EntryKind) -> None:
    for body in (True, [], {}, "text", [1, 2, 3], 9, {1: 1}):
        raw = entries.encode_entry(kind=kind, index=0, time_ms=0, clock=0, body=encode(body))
        refused(Code.MALFORMED, entries.decode_entry, raw)


@pytest.mark.parametrize("changed", [{"kind": 12}, {"clock": 2}])
def test_an_entry_of_unknown_kind_or_clock_is_malformed(changed: dict[str, int]) -> None:
    fields: dict[str, Any] = {"kind": 11, "index": 0, "time_ms": 0, "clock": 0, **changed}
    refused(Code.MALFORMED, entries.decode_entry, entries.encode_entry(**fields, body=b"\0"))


def test_a_note_is_the_entry_of_a_transfer_out_and_of_nothing_else(book: Book) -> None:
    for raw in book.context.entries:
        if entries.decode_entry(raw).kind == EntryKind.TRANSFER_OUT:
            assert entries.decode_note(raw, b"").entry == raw
        else:
            refused(Code.MALFORMED, entries.decode_note, raw, b"")


def test_notes_inside_notes_do_not_nest(book: Book) -> None:
    raw = book.context.entries[0]
    for _ in range(40):
        body = encode([raw, b""])
        raw = entries.encode_entry(kind=4, index=0, time_ms=0, clock=0, body=body)
    refused(Code.MALFORMED, entries.decode_entry, raw)


def test_a_large_note_is_not_looked_at() -> None:
    refused(Code.TOO_LARGE, entries.decode_note, bytes(16_385), b"")


# ---- orders and requests --------------------------------------------------------------------


def order_bytes(*, type_: str = ORDER_TYPE, **changed: Any) -> bytes:
    """An order of Anna's; `changed` may make it a wrong one."""
    claims: dict[str, Any] = {
        "payer": ANNA.public.id,
        "sequence": 0,
        "payee": BERT.public.id,
        "payee_journal": ELSEWHERE,
        "amount_minor": 1,
        "currency": "EUR",
        "created_ms": NOW_MS,
        "expires_ms": NOW_MS + 1,
        "kind": 0,
        "authorisation": 0,
        "payer_journal": ELSEWHERE,
        "payer_epoch": 0,
    }
    return ANNA.sign_object(type_, messages.order_payload(**claims | changed))


OWN = {"payee": ANNA.public.id}
AWAY = {"payee_journal": JournalId(bytes(20))}
PARTIES: list[tuple[int, dict[str, Any], bool]] = [
    (OrderKind.PAY, {}, True),
    (OrderKind.PAY, AWAY, True),
    (OrderKind.PAY, OWN, False),
    (OrderKind.REFUND, {"refunded": bytes(32)}, True),
    (OrderKind.REFUND, {"refunded": bytes(32), **OWN}, False),
    (OrderKind.REFUND, {}, False),
    (OrderKind.PAY, {"refunded": bytes(32)}, False),
    (OrderKind.REHOME, {**OWN, **AWAY}, True),
    (OrderKind.REHOME, OWN, False),
    (OrderKind.REHOME, AWAY, False),
    (OrderKind.REDEEM, OWN, True),
    (OrderKind.REDEEM, {**OWN, **AWAY}, False),
    (OrderKind.REDEEM, {}, False),
]


@pytest.mark.parametrize(("kind", "changed", "accepted"), PARTIES)
def test_each_kind_of_order_has_its_own_parties(
    kind: int, changed: dict[str, Any], accepted: bool
) -> None:
    raw = order_bytes(kind=kind, **changed)
    if accepted:
        assert messages.decode_order(raw).kind == kind
        assert messages.decode_order_strictly(raw).kind == kind
    else:
        refused(Code.MALFORMED, messages.decode_order, raw)


def test_an_order_expires_later_than_it_was_created() -> None:
    refused(Code.MALFORMED, messages.decode_order, order_bytes(expires_ms=NOW_MS))


def test_an_order_of_another_type_or_version_is_none() -> None:
    refused(Code.UNKNOWN_TYPE, messages.decode_order, order_bytes(type_=REQUEST_TYPE))
    claims = decode(messages.decode_order(order_bytes()).signed.payload, bytes_max=1024)
    raw = ANNA.sign_object(ORDER_TYPE, encode({**claims, 1: 2}))
    refused(Code.UNKNOWN_VERSION, messages.decode_order, raw)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=70)


@given(
    numbers=st.lists(st.integers(0, 2**53 - 1), min_size=4, max_size=4),
    amount=st.integers(0, 10**12 + 1),
    reference=st.none() | TEXTS | st.text("ab~ ", max_size=70),
    digests=st.tuples(*[st.none() | st.binary(min_size=32, max_size=32)] * 2),
    category=st.none() | st.text("059", min_size=3, max_size=5),
    edit=st.none() | st.tuples(st.integers(0, 600), st.integers(0, 255)),
)
def test_the_short_way_to_read_an_order_reads_what_the_strict_one_reads(
    numbers: list[int],
    amount: int,
    reference: str | None,
    digests: tuple[bytes | None, bytes | None],
    category: str | None,
    edit: tuple[int, int] | None,
) -> None:
    names = ("sequence", "created_ms", "expires_ms", "payer_epoch")
    named: dict[str, Any] = dict(zip(names, numbers, strict=True))
    raw = bytearray(
        order_bytes(
            **named,
            amount_minor=amount,
            reference=reference,
            request=digests[0],
            refunded=digests[1],
            category=category,
        )
    )
    if edit is not None:
        raw[edit[0] % len(raw)] = edit[1]
    order = read_order(bytes(raw), messages.Order)
    if order is not None:
        assert order == messages.decode_order_strictly(bytes(raw))


@pytest.mark.parametrize(
    "changed",
    [
        {"amount_minor": 0},
        {"reference": "a" * 65},
        {"reference": "é"},
        {"category": "54a1"},
        {"reference": "a" * 600},
    ],
)
def test_the_short_way_leaves_to_the_strict_one_what_it_does_not_know(
    changed: dict[str, Any],
) -> None:
    assert read_order(order_bytes(**changed), dict) is None


def test_the_short_way_knows_all_that_is_common() -> None:
    assert read_order(order_bytes(), dict) is not None
    full: dict[str, Any] = {"reference": "r" * 64, "request": bytes(32), "category": "5411"}
    assert read_order(order_bytes(**full), dict) is not None
    assert read_order(order_bytes() + b"\0", dict) is None
    raw = order_bytes(reference="abc")
    assert read_order(raw.replace(b"\x63abc", b"\x62abc"), dict) is None


def test_a_claim_that_does_not_exist_is_not_signed() -> None:
    with pytest.raises(TypeError, match="tip"):
        messages.order_payload(tip=1)


def test_a_request_expires_later_than_it_was_created(book: Book) -> None:
    refused(Code.MALFORMED, book.request, BERT, 1, expires_ms=book.now_ms)


# ---- what the issuer signs ------------------------------------------------------------------


def keys(count: int = 1) -> bytes:
    """The issuer's keys for synchronisation."""
    rows = [[bytes([n]) * 8, bytes([n]) * 32, NOW_MS] for n in range(count)]
    return issue(issued.KEYS_TYPE, {2: 1, 3: rows}, role="settlement")


def question(registers: list[int]) -> bytes:
    """What the issuer asks a gateway's hardware."""
    claims = {2: ELSEWHERE, 3: b"n" * 32, 4: registers, 5: NOW_MS}
    return issue(issued.QUESTION_TYPE, claims, role="settlement")


def test_what_the_issuer_signs_is_told_apart_by_its_type(book: Book) -> None:
    objects: dict[bytes, type[Any]] = {
        book.enrolment(ANNA).signed.raw: issued.Enrolment,
        book.enrolment(BERT).signed.raw: issued.Enrolment,
        book.grant(ANNA, 1).signed.raw: issued.Grant,
        policy_of().signed.raw: Policy,
        list_of(ListId.FROZEN, []).signed.raw: SignedList,
        book.settlement().signed.raw: issued.Settlement,
        book.statement([]).signed.raw: issued.Statement,
        keys(): issued.Keys,
        question([0]): issued.Question,
    }
    for raw, kind in objects.items():
        made = issued.decode_issued(raw)
        assert type(made) is kind
        assert made.signed.raw == raw


def test_a_type_inside_the_words_of_an_object_does_not_count() -> None:
    names = [[issued.ENROLMENT_TYPE, []]]
    key = ANNA
    claims = {2: ListId.SANCTIONED, 3: 0, 4: 0, 5: 0, 6: None, 7: encode(names)}
    raw = key.sign_object(issued.LIST_TYPE, issued.payload(claims))
    assert isinstance(issued.decode_issued(raw), SignedList)


def test_what_the_issuer_never_signs_is_of_unknown_type(book: Book) -> None:
    refused(Code.UNKNOWN_TYPE, issued.decode_issued, order_bytes())
    refused(Code.UNKNOWN_TYPE, issued.decode_issued, b"")
    refused(Code.UNKNOWN_TYPE, issued.decode_grant, policy_of().signed.raw)


def test_the_keys_for_synchronisation_are_one_or_more() -> None:
    made = issued.decode_keys(keys(2))
    assert [key.kid for key in made.keys] == [bytes(8), b"\1" * 8]
    refused(Code.MALFORMED, issued.decode_keys, keys(0))


def test_a_question_names_registers_that_a_tpm_has() -> None:
    made = issued.decode_question(question([0, 23]))
    assert (made.nonce, made.registers, made.time_ms) == (b"n" * 32, (0, 23), NOW_MS)
    for wrong in ([], [24], [-1]):
        refused(Code.MALFORMED, issued.decode_question, question(wrong))


def test_a_wallet_is_the_thumbprint_of_its_key(book: Book) -> None:
    claims = {2: BERT.public.id, 3: ELSEWHERE, 4: {1: 1, -1: 6, -2: ANNA.public.raw}, 5: 0, 6: 0}
    refused(Code.MALFORMED, issued.decode_enrolment, issue(issued.ENROLMENT_TYPE, claims))


def test_an_enrolment_may_have_a_label() -> None:
    claims: dict[int, Any] = {2: ANNA.public.id, 3: ELSEWHERE, 5: 0, 6: 0, 7: "till 4"}
    claims[4] = {1: 1, -1: 6, -2: ANNA.public.raw}
    assert issued.decode_enrolment(issue(issued.ENROLMENT_TYPE, claims)).label == "till 4"


@pytest.mark.parametrize("list_id", list(ListId))
def test_the_content_of_a_list_has_the_form_of_its_list(list_id: ListId) -> None:
    wrong = [7] if list_id == ListId.CATEGORIES else {1: 1}
    refused(Code.MALFORMED, list_of, list_id, wrong)
    refused(Code.MALFORMED, list_of, list_id, [[]], base=bytes(32))
    claims = {2: list_id, 3: 0, 4: 0, 5: 0, 6: None, 7: b"\x80\x00"}
    refused(Code.NOT_CANONICAL, issued.decode_list, issue(issued.LIST_TYPE, claims))
