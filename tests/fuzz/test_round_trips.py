"""What is encoded comes back as it was, and other people's CBOR agrees with ours."""

from typing import Any

import cbor2
from hypothesis import given
from hypothesis import strategies as st

from wallet.protocol.codec import decode, encode
from wallet.protocol.cose import ORDER_TYPE, assemble, decode_sign1, protected_header
from wallet.protocol.ids import journal_text, parse_journal, parse_wallet, wallet_text
from wallet.protocol.merkle import (
    Batch,
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    stored_nodes,
    verify_consistency,
    verify_inclusion,
)
from wallet.protocol.messages import decode_order, order_payload

COUNTS = st.integers(0, 2**53 - 1)
IDS = st.binary(min_size=20, max_size=20)
HASHES = st.binary(min_size=32, max_size=32)
KEYS = st.integers(-(2**64), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
# What is only of these has one form in every library: cbor2 shortens reals too, NaN apart.
ATOMS = (
    KEYS
    | st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300)
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)


@given(value=VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    encoded = encode(value)
    assert decode(encoded, bytes_max=1 << 20) == value
    assert encode(decode(encoded, bytes_max=1 << 20)) == encoded


@given(value=VALUES)
def test_cbor2_reads_what_we_write(value: Any) -> None:
    assert cbor2.loads(encode(value)) == value


def bytewise(value: Any) -> Any:
    """The same with map keys in the order of RFC 8949; cbor2 writes them as it finds them."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: cbor2.dumps(key, canonical=True))
        return {key: bytewise(value[key]) for key in keys}
    return [bytewise(item) for item in value] if isinstance(value, list) else value


INTEGERS_AND_STRINGS = st.recursive(
    KEYS | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=20,
)


@given(value=INTEGERS_AND_STRINGS)
def test_cbor2_writes_what_we_write_once_keys_are_in_order(value: Any) -> None:
    assert cbor2.dumps(bytewise(value)) == encode(value)


@given(value=st.floats(allow_nan=False))
def test_cbor2_shortens_reals_as_we_do(value: float) -> None:
    assert cbor2.dumps(value, canonical=True) == encode(value)


TEXTS = st.text(
    st.characters(blacklist_categories=["Cc", "Cs", "Cf"]), min_size=1, max_size=16
).filter(lambda text: 1 <= len(text.encode()) <= 64)
CLAIMS = st.fixed_dictionaries(
    {
        "payer": IDS,
        "sequence": COUNTS,
        "payee": IDS,
        "payee_journal": IDS,
        "amount_minor": st.integers(1, 10**12),
        "currency": st.from_regex(r"[A-Z]{3}", fullmatch=True),
        "created_ms": st.integers(0, 2**52),
        "expires_ms": st.integers(2**52 + 1, 2**53 - 1),
        "authorisation": st.integers(0, 2),
        "payer_journal": IDS,
        "payer_epoch": COUNTS,
    },
    optional={
        "reference": TEXTS,
        "request": HASHES,
        "category": st.from_regex(r"[0-9]{4}", fullmatch=True),
    },
).filter(lambda claims: claims["payer"] != claims["payee"])


@given(claims=CLAIMS, key_id=HASHES, refunded=st.none() | HASHES)
def test_an_order_comes_back_as_it_was(
    claims: dict[str, Any], key_id: bytes, refunded: bytes | None
) -> None:
    named = {**claims, "kind": 0 if refunded is None else 1, "refunded": refunded}
    payload = order_payload(**named)
    raw = assemble(protected_header(-8, key_id, ORDER_TYPE), payload, bytes(64))
    order = decode_order(raw)
    assert {name: getattr(order, name) for name in named} == named
    signed, _ = decode_sign1(raw, type_=ORDER_TYPE, with_chain=False)
    assert order.signed == signed


@given(identifier=IDS)
def test_a_text_leads_back_to_its_identifier(identifier: bytes) -> None:
    for text in (wallet_text(identifier), wallet_text(identifier).upper()):
        assert parse_wallet(text) == identifier
    assert parse_journal(journal_text(identifier)) == identifier


@given(before=st.integers(0, 600), more=st.integers(1, 80), data=st.data())
def test_every_proof_of_a_batch_holds(before: int, more: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(before + more)]
    old = Batch(Frontier(), leaves[:before]).frontier
    batch = Batch(old, leaves[before:])
    size = before + more
    whole = Batch(Frontier(), leaves)
    assert batch.root == whole.root == batch.frontier.root()
    at = data.draw(st.integers(0, more - 1))
    path = batch.paths()[at]
    root = verify_inclusion(leaves[before + at], index=before + at, size=size, path=path)
    assert root == batch.root

    def block(level: int, number: int) -> list[bytes]:
        first = number << 8
        if level == 0:
            return leaves[first : first + 256]
        return [node.hash for node in whole.completed((level,))][first : first + 256]

    node = stored_nodes(block)
    assert inclusion_path(before + at, size, node) == path
    first = data.draw(st.integers(1, size))
    verify_consistency(
        first=first,
        second=size,
        first_root=Batch(Frontier(), leaves[:first]).root,
        second_root=batch.root,
        path=consistency_path(first, size, node),
    )
