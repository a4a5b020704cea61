"""Evidence of forks, made with the very functions that a journal's watcher uses."""

import pytest

from tests.support.issuer import DAY_S, NOW_S, Issuer, Journal
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.codec import encode
from wallet.protocol.fork import (
    ForkKind,
    fork_counter,
    fork_extension,
    fork_index,
    fork_size,
    verify_fork,
)
from wallet.protocol.merkle import Batch, Frontier, cover, leaf_hash
from wallet.protocol.receipt import (
    PATH_LEAD,
    ReceiptMaker,
    assemble_checkpoint,
    checkpoint_protected,
    checkpoint_signed_bytes,
)
from wallet.protocol.refusals import Code, ProtocolError

ISSUER = Issuer()
ROOT = TrustAnchor(ISSUER.root)
JOURNAL = Journal(ISSUER, "forking", epoch=2)


class Branch:
    """One of the two histories that a forking journal tells."""

    def __init__(self, name: str, size: int, *, counter: int = 1, owner: Journal = JOURNAL):
        self.entries = [
            encode({1: 8, 2: index, 3: 0, 4: 0, 5: name if index > 4 else ""})
            for index in range(size)
        ]
        self.leaves = [leaf_hash(entry) for entry in self.entries]
        self.batch = Batch(Frontier(), self.leaves)
        self.size, self.owner = size, owner
        self.protected = checkpoint_protected(
            owner.key.public,
            journal=owner.journal,
            epoch=owner.epoch,
            size=size,
            counter=counter,
            issued_s=NOW_S,
        )
        self.signature = owner.key.sign(checkpoint_signed_bytes(self.protected, self.batch.root))

    @property
    def checkpoint(self) -> bytes:
        return assemble_checkpoint(
            self.protected, self.owner.chain, root=self.batch.root, signature=self.signature
        )

    def transfer(self, index: int) -> tuple[bytes, bytes]:
        maker = ReceiptMaker(
            self.protected, self.owner.chain, size=self.size, signature=self.signature
        )
        return self.entries[index], maker.receipt(index, self.batch.joined_paths(PATH_LEAD)[index])

    def nodes(self, start: int, end: int) -> list[bytes]:
        return [
            Batch(Frontier(), self.leaves[at << level : (at + 1) << level]).root
            for level, at in cover(start, end)
        ]


LEFT, RIGHT = Branch("left", 12), Branch("right", 12)
LARGER = Branch("right", 21, counter=9)


def verify(evidence: bytes) -> ForkKind:
    proof = verify_fork(evidence, root=ROOT, grace_s=DAY_S)
    assert (proof.journal, proof.epoch) == (JOURNAL.journal, 2)
    return proof.kind


def refusal(evidence: bytes) -> Code:
    with pytest.raises(ProtocolError) as caught:
        verify(evidence)
    return caught.value.code


def extension(smaller: Branch, larger: Branch) -> bytes:
    return fork_extension(
        smaller.checkpoint,
        larger.checkpoint,
        left=larger.nodes(0, smaller.size),
        right=larger.nodes(smaller.size, larger.size),
    )


def test_two_roots_of_one_size_prove_a_fork() -> None:
    assert verify(fork_size(LEFT.checkpoint, RIGHT.checkpoint)) is ForkKind.SIZE
    assert refusal(fork_size(LEFT.checkpoint, LEFT.checkpoint)) == Code.NOT_PROVEN
    assert refusal(fork_size(LEFT.checkpoint, LARGER.checkpoint)) == Code.NOT_PROVEN


def test_two_entries_of_one_index_prove_a_fork() -> None:
    assert verify(fork_index(LEFT.transfer(7), RIGHT.transfer(7))) is ForkKind.INDEX
    assert refusal(fork_index(LEFT.transfer(3), RIGHT.transfer(3))) == Code.NOT_PROVEN
    assert refusal(fork_index(LEFT.transfer(7), RIGHT.transfer(8))) == Code.NOT_PROVEN
    entry, receipt = LEFT.transfer(7)
    assert refusal(fork_index((entry + b"\x00", receipt), RIGHT.transfer(7))) == Code.NOT_PROVEN
    assert refusal(fork_index((entry, b""), RIGHT.transfer(7))) == Code.NOT_CANONICAL


def test_a_counter_that_falls_proves_a_fork_in_either_order() -> None:
    high = Branch("right", 12, counter=10)
    assert verify(fork_counter(high.checkpoint, LARGER.checkpoint)) is ForkKind.COUNTER
    assert verify(fork_counter(LARGER.checkpoint, high.checkpoint)) is ForkKind.COUNTER
    assert refusal(fork_counter(RIGHT.checkpoint, LARGER.checkpoint)) == Code.NOT_PROVEN
    assert refusal(fork_counter(high.checkpoint, RIGHT.checkpoint)) == Code.NOT_PROVEN


@pytest.mark.parametrize("size", [6, 7, 8, 9, 11, 12])
def test_a_larger_tree_that_does_not_extend_a_smaller_one_proves_a_fork(size: int) -> None:
    assert verify(extension(Branch("left", size), LARGER)) is ForkKind.EXTENSION
    assert refusal(extension(Branch("right", size), LARGER)) == Code.NOT_PROVEN


def test_nodes_that_are_not_the_larger_trees_prove_nothing() -> None:
    nodes = {"left": LEFT.nodes(0, 12), "right": LARGER.nodes(12, 21)}
    wrong = fork_extension(LEFT.checkpoint, LARGER.checkpoint, **nodes)
    assert refusal(wrong) == Code.NOT_PROVEN
    nodes = {"left": LARGER.nodes(0, 12), "right": [*LARGER.nodes(12, 21), bytes(32)]}
    wrong = fork_extension(LEFT.checkpoint, LARGER.checkpoint, **nodes)
    assert refusal(wrong) == Code.NOT_PROVEN
    swapped = fork_extension(LARGER.checkpoint, LEFT.checkpoint, left=[bytes(32)], right=[])
    assert refusal(swapped) == Code.NOT_PROVEN


def test_two_journals_or_epochs_are_no_fork() -> None:
    for owner in (Journal(ISSUER, "honest", epoch=2), Journal(ISSUER, "forking", epoch=3)):
        other = Branch("other", 12, owner=owner)
        for evidence in (
            fork_size(LEFT.checkpoint, other.checkpoint),
            fork_index(LEFT.transfer(7), other.transfer(7)),
        ):
            assert refusal(evidence) == Code.NOT_PROVEN


def test_a_part_that_does_not_hold_proves_nothing() -> None:
    forged = Branch("forged", 12)
    forged.signature = bytes(64)
    assert refusal(fork_size(LEFT.checkpoint, forged.checkpoint)) == Code.NOT_PROVEN
    assert refusal(fork_index(LEFT.transfer(7), forged.transfer(7))) == Code.NOT_PROVEN


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (b"", Code.NOT_CANONICAL),
        (encode([]), Code.MALFORMED),
        (encode({}), Code.MALFORMED),
        (encode([0, b"", b""]), Code.MALFORMED),
        (encode([5, b"", b""]), Code.MALFORMED),
        (encode([True, b"", b""]), Code.MALFORMED),
        (encode([1, b""]), Code.MALFORMED),
        (encode([4, b"", b"", [], []]), Code.MALFORMED),
        (fork_size(LEFT.checkpoint, b""), Code.NOT_CANONICAL),
    ],
)
def test_what_is_no_evidence_is_refused_as_such(evidence: bytes, code: Code) -> None:
    assert refusal(evidence) == code
