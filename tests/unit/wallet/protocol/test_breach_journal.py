"""Evidence by a journal run again, or by a report that contradicts itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.books import Book, opened
from tests.support.breaches import checkpoint, forge, nodes, place, transfer, write
from tests.support.issuer import Journal, Key
from tests.support.world import ANCHOR, ISSUER, list_of
from wallet.protocol import breach
from wallet.protocol.codec import decode, encode
from wallet.protocol.cose import ORDER_TYPE
from wallet.protocol.entry import EntryKind
from wallet.protocol.envelope import UP_TYPE, Up, up_payload
from wallet.protocol.evidence import Proof, verify_evidence
from wallet.protocol.fork import fork_index
from wallet.protocol.lists import ListId
from wallet.protocol.merkle import EMPTY_ROOT, leaf_hash
from wallet.protocol.messages import OrderKind
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


# ---- a journal run again --------------------------------------------------------------------


def replay(book: Book, end: int, *, lists: tuple[bytes, ...] = (), **changed: Any) -> bytes:
    given = {
        "entries": book.context.entries[:end],
        "rest": nodes(book, end, len(book.context.entries)),
        **changed,
    }
    return breach.breach_replay(checkpoint(book), lists=lists, **given)


def eventful() -> tuple[Book, tuple[bytes, ...]]:
    """A journal with entries of every kind, and the signed lists that they name."""
    book, other = north(), south()
    listed = list_of(ListId.WALLETS, [])
    book.accept(listed)
    paid = book.accept(book.pay(ANNA, BERT, 100, request=None))
    book.accept(book.pay(BERT, ANNA, 40, kind=OrderKind.REFUND, refunded=leaf_hash(paid.raw)))
    other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal))
    book.accept(other.note(len(other.context.entries) - 1))
    book.accept(book.settlement())
    return book, (listed.signed.raw,)


def test_an_honest_journal_that_is_run_again_proves_nothing() -> None:
    book, lists = eventful()
    for end in (1, 4, len(book.context.entries)):
        assert refusal(replay(book, end, lists=lists)) == Code.NOT_PROVEN


def test_the_first_entry_that_the_rules_refuse_is_evidence() -> None:
    book, lists = eventful()
    index = forge(book, book.pay(ANNA, BERT, 50_000))
    forge(book, book.pay(ANNA, BERT, 1))
    proof = proven(replay(book, index + 1, lists=lists), book, Code.INSUFFICIENT_FUNDS)
    assert f"entry {index} is a pay of 500.00 EUR from wal1" in proof.finding
    # More entries than need be prove the same.
    proven(replay(book, index + 2, lists=lists), book, Code.INSUFFICIENT_FUNDS)
    assert refusal(replay(book, index, lists=lists)) == Code.NOT_PROVEN


def test_an_entry_that_cannot_be_read_is_refused_where_it_stands() -> None:
    book, lists = eventful()
    index = write(book, b"nonsense")
    proof = proven(replay(book, index + 1, lists=lists), book, Code.NOT_CANONICAL)
    assert "is an entry, which" in proof.finding


def test_a_list_that_is_left_out_convicts_nobody() -> None:
    book, _ = eventful()
    assert refusal(replay(book, len(book.context.entries))) == Code.NOT_PROVEN


def test_an_entry_of_a_later_version_convicts_nobody() -> None:
    book = north()
    known = book.pay(ANNA, BERT, 10).order.signed
    payload = b"".join((known.payload[:1], encode(1), encode(2), known.payload[3:]))
    order = ANNA.sign_object(ORDER_TYPE, payload)
    index = write(book, place(book, EntryKind.PAY, encode([order, None])))
    assert refusal(replay(book, index + 1)) == Code.NOT_PROVEN


def test_an_object_whose_certificate_is_left_out_convicts_nobody() -> None:
    """The journal may have held the chain, which an object to it may leave out."""
    book, other = north(), south()
    grant = book.grant(ANNA, 5).signed
    bare = encode([grant.protected, {}, grant.payload, grant.signature])
    index = write(book, place(book, EntryKind.FUND, encode(bare)))
    assert refusal(replay(book, index + 1)) == Code.NOT_PROVEN
    book = north()
    out = other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal)).index
    parts = decode(other.receipt(out), bytes_max=1 << 14)
    lone = encode([parts[0], {396: parts[1][396]}, *parts[2:]])
    body = encode([other.context.entries[out], lone])
    index = write(book, place(book, EntryKind.TRANSFER_IN, body))
    assert refusal(replay(book, index + 1)) == Code.NOT_PROVEN


def test_a_note_with_a_receipt_that_is_none_is_refused_for_that() -> None:
    book, other = north(), south()
    out = other.accept(other.pay(CARA, ANNA, 10, payee_journal=book.journal)).index
    body = encode([other.context.entries[out], b"\x80"])
    index = write(book, place(book, EntryKind.TRANSFER_IN, body))
    proven(replay(book, index + 1), book, Code.MALFORMED)


def test_a_kind_that_moves_no_value_is_named_alone() -> None:
    book = north()
    index = forge(book, book.enrolment(CARA))
    second = write(book, place(book, EntryKind.CLOSE, encode(0), index=index + 2))
    finding = proven(replay(book, second + 1), book, Code.MALFORMED).finding
    assert f"entry {second} is a close" in finding


@pytest.mark.parametrize(
    "changed",
    [
        {"rest": [bytes(32)]},
        {"entries": [b"other"]},
        {"rest": []},
    ],
)
def test_entries_that_are_not_the_signed_ones_prove_nothing(changed: dict[str, Any]) -> None:
    book = north()
    forge(book, book.pay(ANNA, BERT, 50_000))
    if "entries" in changed:
        changed = {**changed, "rest": nodes(book, 1, len(book.context.entries))}
    assert refusal(replay(book, 1, **changed)) == Code.NOT_PROVEN


def test_more_entries_than_were_signed_prove_nothing() -> None:
    book = north()
    entries = [*book.context.entries, b"nonsense"]
    assert refusal(replay(book, 1, entries=entries, rest=[])) == Code.NOT_PROVEN


# ---- a report that contradicts itself -------------------------------------------------------


def report(book: Book, first: int, *, root: bytes | None = None, **changed: Any) -> bytes:
    claims: dict[str, Any] = {
        "journal": book.journal,
        "epoch": book.epoch,
        "exchange": bytes(16),
        "acknowledged_size": first,
        "entries": tuple(book.context.entries[first:]),
        "checkpoint": checkpoint(book, root=root),
        "newest": {},
        **changed,
    }
    owner = book.identity
    return owner.key.sign_object(UP_TYPE, up_payload(Up(**claims)), owner.chain)


WRONG = bytes(32)


@pytest.mark.parametrize(("first", "known"), [(0, None), (3, 3), (2, 4)])
def test_a_report_whose_entries_do_not_give_its_root_is_evidence(
    first: int, known: int | None
) -> None:
    book = north()
    before = None if known is None else checkpoint(book, known)
    given: dict[str, Any] = {"before": before, "left": nodes(book, 0, first)}
    evidence = breach.breach_report(report(book, first, root=WRONG), **given)
    assert f"from entry {first} up" in proven(evidence, book, Code.PROOF_INVALID).finding
    assert refusal(breach.breach_report(report(book, first), **given)) == Code.NOT_PROVEN


def test_a_report_is_held_against_what_the_journal_itself_signed_before() -> None:
    book, other = north(), south()
    wrong = report(book, 3, root=WRONG)
    given = [
        (checkpoint(book, 3), nodes(other, 0, 3)),
        (checkpoint(other, 3), nodes(book, 0, 3)),
        (checkpoint(book, 2), nodes(book, 0, 3)),
        (checkpoint(book, 3), nodes(book, 0, 4)),
        (None, nodes(book, 0, 3)),
    ]
    for before, left in given:
        assert refusal(breach.breach_report(wrong, before, left=left)) == Code.NOT_PROVEN


def test_a_report_with_another_checkpoint_is_a_bad_upload_and_no_evidence() -> None:
    book, other = north(), south()
    later = Book("north", epoch=2)
    later.accept(later.opening(_policy(book)))
    for given in (checkpoint(book, 2), checkpoint(other), checkpoint(later)):
        evidence = breach.breach_report(report(book, 0, checkpoint=given), None, left=[])
        assert refusal(evidence) == Code.NOT_PROVEN
    unsigned = checkpoint(book, root=WRONG)
    unsigned = unsigned[:-1] + bytes([unsigned[-1] ^ 1])
    evidence = breach.breach_report(report(book, 0, checkpoint=unsigned), None, left=[])
    assert refusal(evidence) == Code.NOT_PROVEN


def _policy(book: Book) -> Any:
    return book.state.policy_held()


def test_a_report_that_the_journal_did_not_sign_is_no_evidence() -> None:
    book = north()
    stranger = Journal(ISSUER, "south", epoch=1)
    claims = report(book, 0, root=WRONG)
    broken = claims[:-1] + bytes([claims[-1] ^ 1])
    assert refusal(breach.breach_report(broken, None, left=[])) == Code.NOT_PROVEN
    assert refusal(breach.breach_report(b"\x80", None, left=[])) == Code.MALFORMED
    book.identity = stranger
    assert refusal(breach.breach_report(report(book, 0), None, left=[])) == Code.NOT_PROVEN


# ---- what is no evidence --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (b"", Code.NOT_CANONICAL),
        (encode([]), Code.MALFORMED),
        (encode({}), Code.MALFORMED),
        (encode(["other"]), Code.MALFORMED),
        (encode(["entry"]), Code.MALFORMED),
        (encode(["pair", [b"", b""]]), Code.MALFORMED),
        (encode(["pair", [b"", b""], [b"", b""]]), Code.NOT_CANONICAL),
        (encode(["replay", b"", [], [], []]), Code.MALFORMED),
        (encode(["replay", b"", [b""], [], []]), Code.NOT_CANONICAL),
        (encode(["replay", EMPTY_ROOT, [b""], [], []]), Code.NOT_CANONICAL),
        (encode(["report", b"", 1, []]), Code.MALFORMED),
    ],
)
def test_what_is_no_evidence_is_refused_as_such(evidence: bytes, code: Code) -> None:
    assert refusal(evidence) == code


def test_a_fork_is_evidence_as_well() -> None:
    book = north()
    other = copy.deepcopy(book)
    one = forge(book, book.pay(ANNA, BERT, 1))
    two = forge(other, other.pay(ANNA, BERT, 2))
    evidence = fork_index(transfer(book, one), transfer(other, two))
    proof = proven(evidence, book, Code.PROOF_INVALID)
    assert (proof.kind, f"index {one}" in proof.finding) == ("fork-index", True)


def test_decoded_evidence_of_an_unknown_kind_is_malformed() -> None:
    for value in (None, [], [1], ["none"]):
        with pytest.raises(ProtocolError) as caught:
            breach.verify_breach(value, root=ANCHOR, grace_s=0)
        assert caught.value.code == Code.MALFORMED
