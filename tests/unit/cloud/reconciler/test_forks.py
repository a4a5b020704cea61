"""Evidence of forks of every pair of sizes; what does not fork is left as it came."""

from __future__ import annotations

import copy

import pytest

from cloud.reconciler import forks
from tests.support.books import Book, opened
from tests.support.breaches import checkpoint, transfer, write
from tests.support.world import ANCHOR
from wallet.protocol.checkpoint import decode_checkpoint
from wallet.protocol.evidence import verify_evidence
from wallet.protocol.merkle import Batch, Frontier

SIZE = 13


def branches(parting: int) -> tuple[Book, Book]:
    """Two histories of one journal, the same below `parting`."""
    one = opened("north")
    for index in range(1, parting):
        write(one, b"common %d" % index)
    other = copy.deepcopy(one)
    for index in range(parting, SIZE):
        write(one, b"one %d" % index)
        write(other, b"other %d" % index)
    return one, other


def kinds(book: Book, other: Book, size: int) -> str | None:
    """What proves that the other's checkpoint of a size is not in this book's tree."""
    given = checkpoint(other, size)
    parts = forks.of_roots(ANCHOR, given, checkpoint(book), book.context.leaves)
    if len(parts) != 1:
        assert parts == (given, checkpoint(book))
        return None
    proof = verify_evidence(parts[0], root=ANCHOR)
    assert (proof.journal, proof.epoch) == (book.journal, book.epoch)
    return proof.kind


@pytest.mark.parametrize("parting", range(1, SIZE))
def test_two_trees_that_part_are_proven_at_every_size_behind(parting: int) -> None:
    one, other = branches(parting)
    for size in range(1, SIZE):
        expected = "fork-extension" if size > parting else None
        assert kinds(one, other, size) == expected
    assert kinds(one, other, SIZE) == "fork-size"


def test_a_tree_proves_nothing_against_itself() -> None:
    one, _ = branches(5)
    for size in range(1, SIZE + 1):
        assert kinds(one, copy.deepcopy(one), size) is None


def test_a_receipt_gives_the_checkpoint_that_it_is_under() -> None:
    one, _ = branches(5)
    _, receipt = transfer(one, 3)
    root = Batch(Frontier(), one.context.leaves).root
    made = decode_checkpoint(forks.checkpoint_of(receipt, root))
    known = decode_checkpoint(checkpoint(one))
    assert (made.root, made.head.size, made.chain) == (known.root, SIZE, known.chain)


def test_two_receipts_of_one_entry_stay_what_they_are() -> None:
    one, _ = branches(5)
    shown = transfer(one, 3)
    assert forks.of_index(ANCHOR, shown, shown) == (*shown, *shown)
