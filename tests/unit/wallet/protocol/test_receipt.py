"""Checkpoints and receipts: what holds, and in which step what does not hold fails."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.issuer import DAY_S, ES256, NOW_S, START_S, Issuer, Journal, Key
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.codec import decode, encode
from wallet.protocol.keys import EDDSA
from wallet.protocol.merkle import Batch, Frontier, leaf_hash
from wallet.protocol.receipt import (
    NOTHING_REVOKED,
    PATH_LEAD,
    ReceiptError,
    ReceiptMaker,
    Revocations,
    VerifiedReceipt,
    assemble_checkpoint,
    assemble_receipt,
    checkpoint_protected,
    checkpoint_signed_bytes,
    decode_checkpoint,
    decode_receipt,
    verify_checkpoint,
    verify_receipt,
)
from wallet.protocol.refusals import Code

ISSUER = Issuer()
ROOT = TrustAnchor(ISSUER.root)
ENTRIES = [encode({1: 8, 2: index, 3: 0, 4: 0, 5: None}) for index in range(13)]
BATCH = Batch(Frontier(), [leaf_hash(entry) for entry in ENTRIES])


class Book:
    """A journal with a signed tree of 13 entries."""

    def __init__(self, algorithm: int = EDDSA, **claims: int) -> None:
        self.owner = Journal(ISSUER, "book", epoch=2, algorithm=algorithm)
        given = {"epoch": 2, "size": 13, "counter": 5, "issued_s": NOW_S, **claims}
        self.protected = checkpoint_protected(
            self.owner.key.public, journal=self.owner.journal, **given
        )
        self.signature = self.owner.key.sign(checkpoint_signed_bytes(self.protected, BATCH.root))

    def receipt(self, index: int = 4, *, with_chain: bool = True) -> bytes:
        chain = self.owner.chain if with_chain else ()
        maker = ReceiptMaker(self.protected, chain, size=13, signature=self.signature)
        return maker.receipt(index, BATCH.joined_paths(PATH_LEAD)[index])

    def checkpoint(self, *, with_chain: bool = True) -> bytes:
        chain = self.owner.chain if with_chain else ()
        return assemble_checkpoint(self.protected, chain, root=BATCH.root, signature=self.signature)


BOOK = Book()


def verify(receipt: bytes, entry: bytes = ENTRIES[4], **given: Any) -> VerifiedReceipt:
    fields: dict[str, Any] = {
        "root": ROOT,
        "grace_s": DAY_S,
        "revoked": NOTHING_REVOKED,
        **given,
    }
    return verify_receipt(receipt, entry, **fields)


def refusal(call: Callable[[], object]) -> tuple[int, Code]:
    with pytest.raises(ReceiptError) as caught:
        call()
    return caught.value.step, caught.value.code


@pytest.mark.parametrize("algorithm", [EDDSA, ES256])
def test_the_receipt_of_every_entry_holds(algorithm: int) -> None:
    book = Book(algorithm)
    for index, entry in enumerate(ENTRIES):
        read = verify(book.receipt(index), entry)
        assert (read.journal, read.epoch, read.index) == (book.owner.journal, 2, index)
        assert (read.leaf, read.root) == (leaf_hash(entry), BATCH.root)
        assert (read.size, read.counter, read.issued_s) == (13, 5, NOW_S)
        assert read.certificate.key == book.owner.key.public


def test_one_receipt_and_many_are_the_same_bytes() -> None:
    for chain in (BOOK.owner.chain, BOOK.owner.chain[:1], ()):
        maker = ReceiptMaker(BOOK.protected, chain, size=13, signature=BOOK.signature)
        for index in range(13):
            one = assemble_receipt(
                BOOK.protected,
                chain,
                size=13,
                index=index,
                path=BATCH.paths()[index],
                signature=BOOK.signature,
            )
            assert maker.receipt(index, BATCH.joined_paths(PATH_LEAD)[index]) == one
            assert encode(decode(one, bytes_max=9999)) == one


def test_a_receipt_may_be_given_decoded() -> None:
    assert verify_receipt(
        decode_receipt(BOOK.receipt()),
        ENTRIES[4],
        root=ROOT,
        grace_s=0,
        revoked=NOTHING_REVOKED,
    ) == verify(BOOK.receipt())


def test_who_holds_the_chain_may_be_sent_a_receipt_without_it() -> None:
    held = {BOOK.owner.key.public.key_id: BOOK.owner.chain}
    assert verify(BOOK.receipt(with_chain=False), held_chains=held).index == 4
    assert verify_checkpoint(
        BOOK.checkpoint(with_chain=False), root=ROOT, grace_s=0, held_chains=held
    ).root == (BATCH.root)
    failed = refusal(lambda: verify(BOOK.receipt(with_chain=False)))
    assert failed == (3, Code.CERTIFICATE_INVALID)


def test_a_checkpoint_holds_with_its_root() -> None:
    read = verify_checkpoint(BOOK.checkpoint(), root=ROOT, grace_s=0)
    assert (read.journal, read.epoch, read.size) == (BOOK.owner.journal, 2, 13)
    assert (read.root, read.counter, read.issued_s) == (BATCH.root, 5, NOW_S)
    decoded = decode_checkpoint(BOOK.checkpoint())
    assert verify_checkpoint(decoded, root=ROOT, grace_s=0) == read


def altered(receipt: bytes, **parts: Any) -> bytes:
    """A receipt or checkpoint with other parts; `claims` and `headers` change the protected one."""
    protected, unprotected, root, signature = decode(receipt, bytes_max=99_999)
    header = decode(protected, bytes_max=99_999)
    header.update(parts.get("headers", {}))
    header[15].update(parts.get("claims", {}))
    for gone in parts.get("without", ()):
        del header[gone]
    unprotected.update(parts.get("unprotected", {}))
    return encode(
        [
            parts.get("protected", encode(header)),
            parts.get("map", unprotected),
            parts.get("root", root),
            parts.get("signature", signature),
        ]
    )


def proof(*parts: Any) -> dict[int, Any]:
    return {396: {-1: [encode(list(parts))]}}


NODE = bytes(32)
SHAPES: list[tuple[int, Code, dict[str, Any]]] = [
    (1, Code.MALFORMED, {"root": BATCH.root}),
    (1, Code.MALFORMED, {"protected": {}}),
    (1, Code.MALFORMED, {"protected": encode([])}),
    (1, Code.NOT_CANONICAL, {"protected": b""}),
    (1, Code.MALFORMED, {"headers": {1: -35}}),
    (1, Code.MALFORMED, {"headers": {4: b"short"}}),
    (1, Code.MALFORMED, {"headers": {15: {}}}),
    (1, Code.MALFORMED, {"headers": {99: 0}}),
    (1, Code.MALFORMED, {"without": [4]}),
    (1, Code.MALFORMED, {"claims": {1: b"x"}}),
    (1, Code.MALFORMED, {"claims": {6: -1}}),
    (1, Code.MALFORMED, {"claims": {2: "subject"}}),
    (1, Code.MALFORMED, {"map": {}}),
    (1, Code.MALFORMED, {"unprotected": {99: 0}}),
    (1, Code.MALFORMED, {"unprotected": {33: [b"one"]}}),
    (1, Code.MALFORMED, {"unprotected": {33: [b"x"] * 5}}),
    (1, Code.MALFORMED, {"unprotected": {33: b"x" * 5000}}),
    (1, Code.MALFORMED, {"unprotected": {33: "x"}}),
    (1, Code.MALFORMED, {"unprotected": {396: {}}}),
    (1, Code.MALFORMED, {"unprotected": {396: {-1: []}}}),
    (1, Code.MALFORMED, {"unprotected": {396: {-1: [b"", b""]}}}),
    (1, Code.NOT_CANONICAL, {"unprotected": {396: {-1: [b""]}}}),
    (1, Code.MALFORMED, {"unprotected": proof(13, 4)}),
    (1, Code.MALFORMED, {"unprotected": proof(13, 4, [b"short"])}),
    (1, Code.MALFORMED, {"signature": b"short"}),
    (2, Code.UNKNOWN_TYPE, {"headers": {16: "application/x"}}),
    (2, Code.UNKNOWN_TYPE, {"without": [395]}),
    (2, Code.UNKNOWN_TYPE, {"headers": {395: 2}}),
    (2, Code.UNKNOWN_TYPE, {"headers": {395: True}}),
    (3, Code.CERTIFICATE_INVALID, {"claims": {1: "jnl1nobody"}}),
    (3, Code.CERTIFICATE_INVALID, {"claims": {-70002: 3}}),
    (3, Code.CERTIFICATE_INVALID, {"claims": {6: START_S - 1}}),
    (3, Code.CERTIFICATE_INVALID, {"claims": {6: START_S + 15 * DAY_S + 1}}),
    (3, Code.CERTIFICATE_INVALID, {"headers": {4: NODE}}),
    (5, Code.PROOF_INVALID, {"claims": {-70001: 14}}),
    (5, Code.PROOF_INVALID, {"unprotected": proof(14, 4, [NODE] * 4)}),
    (5, Code.PROOF_INVALID, {"unprotected": proof(13, 5, [NODE] * 4)}),
    (6, Code.PROOF_INVALID, {"unprotected": proof(13, 4, [NODE] * 4)}),
    (6, Code.PROOF_INVALID, {"unprotected": proof(13, 4, [NODE] * 5)}),
    (6, Code.PROOF_INVALID, {"unprotected": proof(13, 4, [])}),
    (6, Code.PROOF_INVALID, {"claims": {-70003: 6}}),
    (6, Code.PROOF_INVALID, {"headers": {1: ES256}}),
    (6, Code.PROOF_INVALID, {"signature": bytes(64)}),
]


@pytest.mark.parametrize(("step", "code", "parts"), SHAPES)
def test_the_first_step_that_fails_decides(step: int, code: Code, parts: dict[str, Any]) -> None:
    assert refusal(lambda: verify(altered(BOOK.receipt(), **parts))) == (step, code)


@pytest.mark.parametrize(
    ("receipt", "code"),
    [
        (b"", Code.NOT_CANONICAL),
        (BOOK.receipt() + b"\x00", Code.NOT_CANONICAL),
        (b"\xd2" + BOOK.receipt(), Code.MALFORMED),
        (encode([b"", {}, None]), Code.MALFORMED),
        (bytes(16 * 1024 + 1), Code.TOO_LARGE),
    ],
)
def test_bytes_that_are_no_receipt_fail_in_the_first_step(receipt: bytes, code: Code) -> None:
    assert refusal(lambda: verify(receipt)) == (1, code)


@pytest.mark.parametrize(
    ("entry", "index"),
    [
        (ENTRIES[3], 4),
        (ENTRIES[4] + b"\x00", 4),
        (b"", 4),
        (encode([4]), 4),
        (encode({1: 4}), 4),
        (encode({2: "4"}), 4),
        (encode({2: True}), 1),
    ],
)
def test_an_entry_without_the_index_of_the_proof_fails_in_step_5(entry: bytes, index: int) -> None:
    failed = refusal(lambda: verify(BOOK.receipt(index), entry))
    assert failed == (5, Code.PROOF_INVALID)


def test_an_index_that_is_not_below_the_size_fails_in_step_5() -> None:
    wrong = altered(BOOK.receipt(), unprotected=proof(13, 13, [NODE] * 4))
    failed = refusal(lambda: verify(wrong, encode({2: 13})))
    assert failed == (5, Code.PROOF_INVALID)


def test_another_entry_of_that_index_fails_in_step_6() -> None:
    failed = refusal(lambda: verify(BOOK.receipt(), encode({2: 4})))
    assert failed == (6, Code.PROOF_INVALID)


def test_a_revoked_certificate_or_epoch_fails_in_step_4() -> None:
    leaf, sub = verify(BOOK.receipt()).certificate.serials
    owner = BOOK.owner.journal
    for revoked in (
        Revocations(serials=frozenset({leaf})),
        Revocations(serials=frozenset({b"other", sub})),
        Revocations(serials=frozenset({b"\x00" + leaf, b"other"})),
        Revocations(epochs=frozenset({(owner, 2)})),
    ):
        failed = refusal(functools.partial(verify, BOOK.receipt(), revoked=revoked))
        assert failed == (4, Code.JOURNAL_REVOKED)
    harmless = Revocations(serials=frozenset({b"other"}), epochs=frozenset({(owner, 1)}))
    assert verify(BOOK.receipt(), revoked=harmless).index == 4


@pytest.mark.parametrize(
    ("step", "code", "parts"),
    [
        (1, Code.MALFORMED, {"root": None}),
        (1, Code.MALFORMED, {"root": b"short"}),
        (1, Code.MALFORMED, {"unprotected": {396: {}}}),
        (2, Code.UNKNOWN_TYPE, {"headers": {16: "x"}}),
        (3, Code.CERTIFICATE_INVALID, {"claims": {-70002: 3}}),
        (6, Code.PROOF_INVALID, {"root": NODE}),
        (6, Code.PROOF_INVALID, {"headers": {1: ES256}}),
    ],
)
def test_a_checkpoint_fails_in_the_same_steps(step: int, code: Code, parts: dict[str, Any]) -> None:
    wrong = altered(BOOK.checkpoint(), **parts)
    assert refusal(lambda: verify_checkpoint(wrong, root=ROOT, grace_s=DAY_S)) == (step, code)


def test_another_journals_key_signs_nothing_here() -> None:
    foreign = Key("foreign").sign(checkpoint_signed_bytes(BOOK.protected, BATCH.root))
    failed = refusal(lambda: verify(altered(BOOK.receipt(), signature=foreign)))
    assert failed == (6, Code.PROOF_INVALID)
