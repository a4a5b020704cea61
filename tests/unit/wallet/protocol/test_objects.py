"""Orders, requests, entries and what the issuer signs: their shapes, and what tells them apart."""

from typing import Any

import pytest

from tests.support.issuer import ES256, NOW_S, Issuer, Key
from wallet.protocol.codec import encode
from wallet.protocol.cose import ORDER_TYPE, REQUEST_TYPE, Sign1, decode_sign1, open_sign1
from wallet.protocol.entry import (
    Clock,
    EntryKind,
    Payment,
    decode_entry,
    decode_note,
    encode_entry,
    encode_payment_body,
)
from wallet.protocol.issued import GRANT_TYPE, LIST_TYPE, decode_issued, decode_list, payload
from wallet.protocol.keys import EDDSA, from_cose_map, low_s
from wallet.protocol.lists import ListId, content, hold
from wallet.protocol.messages import (
    decode_order,
    decode_order_strictly,
    decode_request,
    order_payload,
    request_payload,
)
from wallet.protocol.patterns import read_order
from wallet.protocol.refusals import Code, ProtocolError

PAYER, PAYEE = Key("payer"), Key("payee", ES256)
CLAIMS: dict[str, Any] = {
    "payer": PAYER.public.id,
    "sequence": 300,
    "payee": PAYEE.public.id,
    "payee_journal": b"j" * 20,
    "amount_minor": 1250,
    "currency": "EUR",
    "created_ms": NOW_S * 1000,
    "expires_ms": NOW_S * 1000 + 60_000,
    "kind": 0,
    "authorisation": 1,
    "payer_journal": b"j" * 20,
    "payer_epoch": 3,
}


def order(**change: Any) -> bytes:
    return PAYER.sign_object(ORDER_TYPE, order_payload(**{**CLAIMS, **change}))


def refusal(decoder: Any, raw: bytes, **given: Any) -> Code:
    with pytest.raises(ProtocolError) as caught:
        decoder(raw, **given)
    code: Code = caught.value.code
    return code


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sequence": 0},
        {"sequence": 2**53 - 1},
        {"amount_minor": 10**12},
        {"reference": "x"},
        {"reference": "x" * 24},
        {"reference": "x" * 64},
        {"request": bytes(32), "category": "5812"},
        {"kind": 1, "refunded": bytes(32), "reference": "Back", "request": b"r" * 32},
        {"kind": 3, "payee": PAYER.public.id},
    ],
)
def test_the_pattern_reads_an_order_as_the_strict_decoder_does(change: dict[str, Any]) -> None:
    raw = order(**change)
    assert read_order(raw, dict) is not None
    assert decode_order(raw) == decode_order_strictly(raw)
    for name, value in {**CLAIMS, **change}.items():
        assert getattr(decode_order(raw), name) == value


@pytest.mark.parametrize(
    "change",
    [
        {"amount_minor": 0},
        {"amount_minor": 10**12 + 1},
        {"sequence": 2**53},
        {"reference": "D\u00e9p\u00f4t"},
        {"reference": "x" * 65},
        {"currency": "EURO"},
        {"payer": bytes(19)},
        {"kind": 4},
    ],
)
def test_the_pattern_leaves_what_it_does_not_know_to_the_strict_decoder(
    change: dict[str, Any],
) -> None:
    assert read_order(order(**change), dict) is None


def test_the_pattern_wants_the_sizes_that_the_heads_tell() -> None:
    raw = order(reference="x" * 30)
    assert read_order(raw + b"\x00", dict) is None
    assert read_order(raw[:-1], dict) is None
    assert read_order(raw.replace(b"\x78\x1e", b"\x78\x1d", 1), dict) is None
    assert read_order(raw + bytes(1024), dict) is None
    assert read_order(raw[:-66] + b"\x58\x41" + bytes(64), dict) is None


def test_claims_are_named_as_the_code_names_them() -> None:
    for make in (order_payload, request_payload):
        with pytest.raises(TypeError, match="amount"):
            make(amount=5)


def test_a_request_is_read_as_it_was_written() -> None:
    claims = {
        "nonce": b"n" * 16,
        "payee": PAYEE.public.id,
        "payee_journal": b"j" * 20,
        "amount_minor": 5,
        "currency": "EUR",
        "created_ms": 1,
        "expires_ms": 2,
        "reference": "Table 12",
    }
    raw = PAYEE.sign_object(REQUEST_TYPE, request_payload(**claims))
    read = decode_request(raw)
    assert {name: getattr(read, name) for name in claims} == claims
    late = PAYEE.sign_object(REQUEST_TYPE, request_payload(**{**claims, "expires_ms": 1}))
    assert refusal(decode_request, late) == Code.MALFORMED


def test_a_signature_names_its_key_and_its_algorithm() -> None:
    signed = decode_order(order()).signed
    signed.verify(PAYER.public)
    for key in (Key("other").public, PAYEE.public):
        with pytest.raises(ProtocolError) as caught:
            signed.verify(key)
        assert caught.value.code == Code.BAD_SIGNATURE
    with pytest.raises(ProtocolError):
        PAYER.public.verify(bytes(63), b"")
    with pytest.raises(ProtocolError):
        PAYEE.public.verify(bytes(63), b"")


def test_a_high_s_has_a_low_form() -> None:
    made = PAYEE.sign(b"message")
    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    high = made[:32] + (n - int.from_bytes(made[32:])).to_bytes(32)
    assert low_s(high) == low_s(made) == made
    with pytest.raises(ProtocolError):
        PAYEE.public.verify(high, b"message")


@pytest.mark.parametrize("fields", [None, [], {}, {1: 1, -1: 6, -2: "x"}, {1: 3, -1: 6, -2: b""}])
def test_what_is_no_cose_key_is_malformed(fields: Any) -> None:
    assert refusal(from_cose_map, fields) == Code.MALFORMED


@pytest.mark.parametrize("algorithm", [EDDSA, ES256])
def test_a_large_object_opens_as_a_small_one_does(algorithm: int) -> None:
    key = Key("large", algorithm)
    chain = (b"leaf", b"sub")
    raw = key.sign_object("application/x", encode({1: 1}), chain)
    small, claims = decode_sign1(raw, type_="application/x", with_chain=True)
    assert open_sign1(raw, type_="application/x", bytes_max=9999) == small
    assert (small.chain, claims) == (chain, {1: 1})
    assert refusal(open_sign1, raw, type_="application/y", bytes_max=9999) == Code.UNKNOWN_TYPE


@pytest.mark.parametrize(
    "unprotected",
    [{33: b"x" * 4097}, {33: [b"x"]}, {33: [b"x"] * 5}, {33: "x"}, {34: b""}, []],
)
def test_a_chain_has_bounds(unprotected: Any) -> None:
    signed = decode_order(order()).signed
    raw = encode([signed.protected, unprotected, signed.payload, signed.signature])
    code = refusal(decode_sign1, raw, type_=ORDER_TYPE, with_chain=True, bytes_max=99_999)
    assert code == Code.MALFORMED


def test_the_issuers_objects_are_told_apart_by_their_type() -> None:
    key, chain = Issuer().role("grants")
    claims = {2: bytes(20), 3: 1, 4: 0, 5: bytes(20), 6: 5, 7: "EUR", 8: 1}
    raw = key.sign_object(GRANT_TYPE, payload(claims), chain)
    assert decode_issued(raw).signed.type == GRANT_TYPE
    assert refusal(decode_issued, order()) == Code.UNKNOWN_TYPE
    assert refusal(decode_issued, raw[:-1]) == Code.NOT_CANONICAL


def signed_list(list_id: ListId, sequence: int, value: Any, base: bytes | None = None) -> Any:
    key, chain = Issuer().role("lists")
    claims = {2: int(list_id), 3: sequence, 4: 0, 5: 1, 6: base, 7: content(value)}
    return decode_list(key.sign_object(LIST_TYPE, payload(claims), chain))


FIRST, SECOND, THIRD = b"1" * 20, b"2" * 20, b"3" * 20


@pytest.mark.parametrize(
    ("list_id", "full", "delta", "items"),
    [
        (ListId.WALLETS, [FIRST, SECOND], [[THIRD], [FIRST]], {SECOND, THIRD}),
        (ListId.JOURNALS, [[FIRST, 1]], [[[FIRST, 2]], []], {(FIRST, 1), (FIRST, 2)}),
        (ListId.CERTIFICATES, [b"s"], [[], [b"s"]], set()),
        (ListId.CATEGORIES, {1: ["5812"]}, [{1: ["5999"]}, {1: ["5812"]}], {(1, "5999")}),
        (ListId.SANCTIONED, [["a", ["Ann"]]], [[["b", []]], [["a", []]]], {"b"}),
    ],
)
def test_a_delta_adds_and_removes(list_id: ListId, full: Any, delta: Any, items: Any) -> None:
    first = hold(signed_list(list_id, 3, full), None)
    second = hold(signed_list(list_id, 4, delta, first.hash), first)
    assert (second.items, second.sequence) == (frozenset(items), 4)
    assert (second.names == {"b": ()}) is (list_id is ListId.SANCTIONED)


def test_a_list_follows_the_one_that_is_held() -> None:
    full = signed_list(ListId.WALLETS, 3, [FIRST])
    held = hold(full, None)
    delta = signed_list(ListId.WALLETS, 4, [[], []], bytes(32))
    for given, base, code in (
        (full, held, Code.SEQUENCE_USED),
        (delta, held, Code.PARENT_MISSING),
        (delta, None, Code.PARENT_MISSING),
    ):
        with pytest.raises(ProtocolError) as caught:
            hold(given, base)
        assert caught.value.code == code


def transfer_out(raw: bytes, hop: int | None = 2) -> bytes:
    body = encode_payment_body(Payment(order=decode_order(raw)), hop=hop)
    kind = EntryKind.PAY if hop is None else EntryKind.TRANSFER_OUT
    return encode_entry(kind=kind, index=70_000, time_ms=5, clock=Clock.UNCERTAIN, body=body)


def test_an_entry_is_read_as_it_was_written() -> None:
    read = decode_entry(transfer_out(order()))
    assert (read.kind, read.index, read.time_ms, read.hop) == (EntryKind.TRANSFER_OUT, 70_000, 5, 2)
    assert read.clock == Clock.UNCERTAIN
    assert isinstance(read.body, Payment)
    assert read.body.order == decode_order(order())


def test_a_note_is_a_transfer_out_and_nothing_else() -> None:
    note = decode_note(transfer_out(order()), b"receipt")
    assert (note.hop, note.index, note.receipt) == (2, 70_000, b"receipt")
    assert refusal(decode_note, transfer_out(order(), hop=None), receipt=b"") == Code.MALFORMED
    nested = encode_entry(
        kind=EntryKind.TRANSFER_IN,
        index=0,
        time_ms=0,
        clock=0,
        body=encode([transfer_out(order(), hop=None), b""]),
    )
    assert refusal(decode_entry, nested) == Code.MALFORMED


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {1: 12, 2: 0, 3: 0, 4: 0, 5: None},
        {1: 11, 2: 0, 3: 0, 4: 2, 5: 0},
        {1: 11, 2: 0, 3: 0, 4: 0, 5: 4},
        {1: 8, 2: 0, 3: 0, 4: 0, 5: [7, 0, bytes(32)]},
        {1: 9, 2: 0, 3: 0, 4: 0, 5: 0},
        {1: 0, 2: 0, 3: 0, 4: 0, 5: {}},
    ],
)
def test_an_entry_of_a_wrong_shape_is_malformed(fields: dict[int, Any]) -> None:
    assert refusal(decode_entry, encode(fields)) == Code.MALFORMED


def test_nothing_about_a_decoded_object_has_been_checked_but_its_shape() -> None:
    assert isinstance(decode_order(order()[:-64] + bytes(64)).signed, Sign1)
