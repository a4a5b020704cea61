"""Merkle trees: every proof against a recursive model straight from RFC 9162 section 2.1."""

import hashlib

import pytest

from wallet.protocol.merkle import (
    EMPTY_ROOT,
    SIZE_MAX,
    Batch,
    Frontier,
    Node,
    consistency_path,
    cover,
    import_frontier,
    inclusion_path,
    join,
    leaf_hash,
    node_hash,
    stored_nodes,
    verify_consistency,
    verify_inclusion,
)
from wallet.protocol.refusals import Code, ProtocolError

LEAVES = [leaf_hash(b"entry %d" % number) for number in range(600)]
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 255, 256, 257, 300, 511, 512, 513, 600]


def model_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(model_root(leaves[:half]), model_root(leaves[half:]))


def model_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    half = 1 << (len(leaves) - 1).bit_length() - 1
    if index < half:
        return [*model_path(index, leaves[:half]), model_root(leaves[half:])]
    return [*model_path(index - half, leaves[half:]), model_root(leaves[:half])]


def model_proof(first: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 9162 section 2.1.4.1."""
    if first == len(leaves):
        return [] if whole else [model_root(leaves)]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    if first <= half:
        return [*model_proof(first, leaves[:half], whole=whole), model_root(leaves[half:])]
    rest = model_proof(first - half, leaves[half:], whole=False)
    return [*rest, model_root(leaves[:half])]


def grown(size: int) -> Frontier:
    frontier = Frontier()
    for leaf in LEAVES[:size]:
        frontier, _ = frontier.append(leaf)
    return frontier


def node_of(level: int, index: int) -> bytes:
    return model_root(LEAVES[index << level : (index + 1) << level])


def block_of(level: int, number: int) -> list[bytes]:
    """Levels 0 and 8, as a database keeps them."""
    count = len(LEAVES) >> level
    return [node_of(level, at) for at in range(256 * number, min(256 * (number + 1), count))]


def test_a_leaf_and_a_node_never_hash_alike() -> None:
    assert leaf_hash(b"ab") == hashlib.sha256(b"\x00ab").digest()
    assert node_hash(b"a", b"b") == hashlib.sha256(b"\x01ab").digest()


def test_roots_are_those_of_the_rfc() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT == model_root([])
    for size in range(1, 301):
        frontier, _ = frontier.append(LEAVES[size - 1])
        assert frontier.root() == model_root(LEAVES[:size])


def test_appending_tells_each_subtree_that_it_completes() -> None:
    frontier = Frontier()
    for index, leaf in enumerate(LEAVES[:64]):
        frontier, completed = frontier.append(leaf)
        assert completed[0] == Node(0, index, leaf)
        assert len(completed) == 1 + (~index & (index + 1)).bit_length() - 1
        for node in completed:
            assert node.hash == node_of(node.level, node.index)


def test_a_frontier_survives_its_bytes() -> None:
    for size in SIZES:
        frontier = grown(size)
        assert import_frontier(frontier.export()) == frontier
        assert len(frontier.peaks) == size.bit_count()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(9),
        (1).to_bytes(8, "big"),
        (1).to_bytes(8, "big") + bytes(31),
        (2**53).to_bytes(8, "big") + bytes(32),
    ],
)
def test_bytes_that_are_no_frontier_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        import_frontier(data)
    assert caught.value.code == Code.PROOF_INVALID


@pytest.mark.parametrize("before", [0, 1, 2, 3, 7, 8, 100, 255, 256])
@pytest.mark.parametrize("more", [0, 1, 2, 3, 5, 8, 13, 64])
def test_a_batch_gives_what_appending_one_by_one_gives(before: int, more: int) -> None:
    leaves = LEAVES[before : before + more]
    batch = Batch(grown(before), leaves)
    after = LEAVES[: before + more]
    assert batch.frontier == grown(before + more)
    assert batch.root == model_root(after)
    paths = [list(path) for path in batch.paths()]
    assert paths == [model_path(before + at, after) for at in range(more)]
    lead = b"\x58\x20"
    joined = [b"".join(lead + node for node in path) for path in paths]
    assert batch.joined_paths(lead) == joined


def test_a_batch_tells_the_subtrees_of_the_levels_that_are_stored() -> None:
    batch = Batch(grown(200), LEAVES[200:600])
    assert batch.completed() == [Node(8, index, node_of(8, index)) for index in (0, 1)]
    levels = batch.completed((1, 4))
    assert levels == [Node(1, at, node_of(1, at)) for at in range(100, 300)] + [
        Node(4, at, node_of(4, at)) for at in range(12, 37)
    ]
    assert Batch(grown(3), LEAVES[3:5]).completed() == []


@pytest.mark.parametrize("size", SIZES)
def test_paths_come_from_stored_levels_alone(size: int) -> None:
    node = stored_nodes(block_of)
    for index in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
        path = inclusion_path(index, size, node)
        assert list(path) == model_path(index, LEAVES[:size])
        root = verify_inclusion(LEAVES[index], index=index, size=size, path=path)
        assert root == model_root(LEAVES[:size])


@pytest.mark.parametrize(("index", "size"), [(-1, 4), (4, 4), (0, 0)])
def test_there_is_no_path_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ProtocolError):
        inclusion_path(index, size, node_of)


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (-1, 2, [bytes(32)]),
        (2, 2, [bytes(32)]),
        (0, 0, []),
        (0, SIZE_MAX + 1, [bytes(32)] * 53),
        (0, 1, [bytes(32)]),
        (0, 2, []),
        (0, 2, [bytes(32)] * 2),
        (4, 5, []),
        (4, 5, [bytes(32)] * 2),
        (5, 6, [bytes(32)]),
    ],
)
def test_a_path_has_the_length_that_its_tree_gives_it(
    index: int, size: int, path: list[bytes]
) -> None:
    with pytest.raises(ProtocolError) as caught:
        verify_inclusion(LEAVES[0], index=index, size=size, path=path)
    assert caught.value.code == Code.PROOF_INVALID


def test_a_leaf_hash_has_32_bytes() -> None:
    with pytest.raises(ProtocolError):
        verify_inclusion(b"", index=0, size=1, path=[])


@pytest.mark.parametrize("second", SIZES)
def test_consistency_proofs_are_those_of_the_rfc_and_hold(second: int) -> None:
    leaves = LEAVES[:second]
    for first in {1, 2, 3, 6, 8, second // 2, second - 1, second} & set(range(1, second + 1)):
        path = consistency_path(first, second, node_of)
        assert list(path) == model_proof(first, leaves)
        verify_consistency(
            first=first,
            second=second,
            first_root=model_root(leaves[:first]),
            second_root=model_root(leaves),
            path=path,
        )


@pytest.mark.parametrize(("first", "second"), [(0, 4), (5, 4), (-1, 4)])
def test_there_is_no_consistency_of_such_sizes(first: int, second: int) -> None:
    with pytest.raises(ProtocolError):
        consistency_path(first, second, node_of)
    with pytest.raises(ProtocolError):
        verify_consistency(
            first=first, second=second, first_root=b"", second_root=b"", path=[bytes(32)]
        )


@pytest.mark.parametrize(("first", "second"), [(1, 1), (3, 3), (2, 5), (3, 7), (6, 8), (4, 8)])
def test_every_altered_consistency_proof_fails(first: int, second: int) -> None:
    path = list(consistency_path(first, second, node_of))
    roots = {
        "first_root": model_root(LEAVES[:first]),
        "second_root": model_root(LEAVES[:second]),
    }
    altered = [[*path, bytes(32)], path[:-1], [bytes(32), *path], path[1:], []]
    altered += [[*path[:at], bytes(32), *path[at + 1 :]] for at in range(len(path))]
    for wrong in [given for given in altered if given != path]:
        with pytest.raises(ProtocolError) as caught:
            verify_consistency(first=first, second=second, path=wrong, **roots)
        assert caught.value.code == Code.PROOF_INVALID
    for name in roots:
        with pytest.raises(ProtocolError):
            verify_consistency(first=first, second=second, path=path, **{**roots, name: bytes(32)})


def test_a_cover_is_the_largest_aligned_subtrees_in_order() -> None:
    assert cover(0, 7) == [(2, 0), (1, 2), (0, 6)]
    assert cover(3, 8) == [(0, 3), (2, 1)]
    assert cover(5, 5) == []
    for start in range(20):
        for end in range(start + 1, 40):
            covered = [
                leaf
                for level, at in cover(start, end)
                for leaf in range(at << level, (at + 1) << level)
            ]
            assert covered == list(range(start, end))


def test_subtrees_without_a_gap_join_to_the_root() -> None:
    for size in SIZES:
        for middle in {0, 1, size // 3, size - 1}:
            names = cover(0, middle) + cover(middle, size)
            nodes = [Node(level, at, node_of(level, at)) for level, at in names]
            assert join(nodes) == model_root(LEAVES[:size])
