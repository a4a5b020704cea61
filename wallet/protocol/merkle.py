"""Merkle trees of RFC 9162 (SHA-256): frontiers, batches, inclusion and consistency proofs.

A node is named by its level (0 for leaves) and its index at that level; only perfect subtrees have
a name, and they never change once they are complete.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence

import msgspec

from wallet.protocol.refusals import Code, ProtocolError

HASH_BYTES = 32
BLOCK_LEVELS = 8
BLOCK_SIZE = 1 << BLOCK_LEVELS
SIZE_MAX = 2**53 - 1
EMPTY_ROOT = hashlib.sha256(b"").digest()
_SIZE_BYTES = 8

Provider = Callable[[int, int], bytes]
"""(level, index) -> hash of that perfect subtree."""


class Node(msgspec.Struct, frozen=True):
    """A perfect subtree: it covers the leaves from index << level on, 1 << level of them."""

    level: int
    index: int
    hash: bytes


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry), which is a payment's identifier."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier(msgspec.Struct, frozen=True):
    """All that appending needs. `peaks`: the perfect subtrees from left to right, larger first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def root(self) -> bytes:
        """Root of the tree (RFC 9162 section 2.1.1)."""
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT

    def append(self, leaf: bytes) -> tuple[Frontier, list[Node]]:
        """The frontier after one more leaf hash, and the subtrees that it completes, leaf first."""
        peaks, index, level = list(self.peaks), self.size, 0
        completed = [Node(0, index, leaf)]
        while index & 1:
            leaf = node_hash(peaks.pop(), leaf)
            index, level = index >> 1, level + 1
            completed.append(Node(level, index, leaf))
        return Frontier(self.size + 1, (*peaks, leaf)), completed

    def export(self) -> bytes:
        """Size in 8 bytes, then the peaks."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.peaks)


def import_frontier(data: bytes) -> Frontier:
    """What `export` gave. Raises: ProtocolError `proof-invalid`."""
    size, rest = int.from_bytes(data[:_SIZE_BYTES], "big"), data[_SIZE_BYTES:]
    fits = len(rest) == size.bit_count() * HASH_BYTES
    if len(data) < _SIZE_BYTES or size > SIZE_MAX or not fits:
        raise _invalid("no frontier")
    starts = range(0, len(rest), HASH_BYTES)
    return Frontier(size, tuple([rest[at : at + HASH_BYTES] for at in starts]))


class Batch:
    """Leaves appended together: the frontier after them, and each leaf's path in that tree.

    Building costs one hash a leaf and one a level, a path one concatenation and a shared tail.
    `root` is the root after the batch: the one to sign.
    """

    __slots__ = ("_before", "_edges", "_rows", "frontier", "root")

    def __init__(self, before: Frontier, leaves: Sequence[bytes]) -> None:
        self._before = before.size
        size = before.size + len(leaves)
        peaks = list(before.peaks)
        kept: list[bytes] = []
        row = list(leaves)
        self._rows: list[list[bytes]] = []
        level = 0
        while size >> level:
            # A row begins at an even index: where the old tree had a peak, it goes in front.
            if before.size >> level & 1:
                row.insert(0, peaks.pop())
            self._rows.append(row)
            # The last node of an odd row is a peak; the ragged nodes above it are made for paths.
            if size >> level & 1:
                kept.append(row[-1])
            pairs = iter(row)
            row = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=False)]
            level += 1
        self.frontier = Frontier(size, tuple(kept[::-1]))
        self._edges: list[bytes | None] = []
        self.root = self._build_edges(size) if size else EMPTY_ROOT

    def completed(self, levels: Iterable[int] = (8, 16, 24, 32, 40, 48)) -> list[Node]:
        """The subtrees of these levels that the batch completed: what proofs need later."""
        nodes = []
        for level in levels:
            if self.frontier.size >> level == self._before >> level:
                break
            start = self._start(level)
            first = (self._before >> level) - start
            row = self._rows[level]
            nodes += [Node(level, start + at, row[at]) for at in range(first, len(row))]
        return nodes

    def joined_paths(self, lead: bytes = b"") -> list[bytes]:
        """Path of each leaf as bytes: `lead` and the node, from the leaf upwards.

        With the head of a byte string of 32 as `lead` it is the inside of the path in a receipt.
        """
        before = self._before
        paths = [b""]
        for level in reversed(range(len(self._edges))):
            row, start, edge = self._rows[level], self._start(level), self._edges[level]
            width = len(row) + (edge is not None)
            above, first = paths, max(before >> level, start) - start
            # The row above lists the parents of the new nodes only, from this one on.
            parent = (start + first) >> 1
            paths = []
            for at in range(first, width):
                beside = at ^ 1
                tail = above[((start + at) >> 1) - parent]
                if beside < len(row):
                    tail = lead + row[beside] + tail
                elif beside < width and edge is not None:
                    tail = lead + edge + tail
                paths.append(tail)
        return paths if self.frontier.size > before else []

    def paths(self) -> list[tuple[bytes, ...]]:
        """Path of each leaf as nodes, from the leaf upwards."""
        return [
            tuple([path[at : at + HASH_BYTES] for at in range(0, len(path), HASH_BYTES)])
            for path in self.joined_paths()
        ]

    def _start(self, level: int) -> int:
        return self._before >> level & ~1

    def _build_edges(self, size: int) -> bytes:
        """The node at the right edge of each level that is no perfect subtree, up to the root."""
        edge: bytes | None = None
        level = 0
        while (size + (1 << level) - 1) >> level > 1:
            self._edges.append(edge)
            if size >> level & 1:
                peak = self._rows[level][-1]
                edge = peak if edge is None else node_hash(peak, edge)
            level += 1
        return self._rows[level][-1] if edge is None else edge


def cover(start: int, end: int) -> list[tuple[int, int]]:
    """The largest aligned perfect subtrees of the leaves start..end, as (level, index)."""
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def join(nodes: Iterable[Node]) -> bytes:
    """Root of the tree whose leaves these subtrees cover, from leaf 0 on without a gap."""
    stack: list[Node] = []
    for node in nodes:
        while node.index & 1:
            left = stack.pop()
            node = Node(node.level + 1, node.index >> 1, node_hash(left.hash, node.hash))
        stack.append(node)
    return _fold([node.hash for node in stack])


def inclusion_path(index: int, size: int, node: Provider) -> tuple[bytes, ...]:
    """Path of a leaf from the leaf upwards (RFC 9162 section 2.1.3.1), with O(log n) nodes asked.

    Raises: ProtocolError `proof-invalid` when there is no such leaf.
    """
    if not 0 <= index < size:
        raise _invalid("no such leaf")
    path = []
    level = 0
    while (width := (size + (1 << level) - 1) >> level) > 1:
        beside = (index >> level) ^ 1
        if beside < width:
            path.append(_range_hash(beside << level, min((beside + 1) << level, size), node))
        level += 1
    return tuple(path)


def verify_inclusion(leaf: bytes, *, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that the path leads to (RFC 9162 section 2.1.3.2): compare it with a signed one.

    Raises: ProtocolError `proof-invalid` when the leaf is not in a tree of that size, or the path
    has another length than that tree gives it.
    """
    if not 0 <= index < size <= SIZE_MAX or len(leaf) != HASH_BYTES:
        raise _invalid("no such leaf")
    at, last = index, size - 1
    root = leaf
    for beside in path:
        if last == 0:
            raise _invalid("the path is too long")
        if at & 1 or at == last:
            root = node_hash(beside, root)
            # The node alone at the right edge went up until it was somebody's right child.
            while not at & 1:
                at, last = at >> 1, last >> 1
        else:
            root = node_hash(root, beside)
        at, last = at >> 1, last >> 1
    if last:
        raise _invalid("the path is too short")
    return root


def consistency_path(first: int, second: int, node: Provider) -> tuple[bytes, ...]:
    """Proof that a tree extends a smaller one (RFC 9162 section 2.1.4.1).

    Raises: ProtocolError `proof-invalid` unless 0 < first <= second.
    """
    if not 0 < first <= second:
        raise _invalid("no such pair of trees")
    path: list[bytes] = []
    start, end, known = 0, second, True
    while first - start < end - start:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(_range_hash(middle, end, node))
            end = middle
        else:
            path.append(_range_hash(start, middle, node))
            start, known = middle, False
    if not known:
        path.append(_range_hash(start, end, node))
    return tuple(path[::-1])


def verify_consistency(
    *, first: int, second: int, first_root: bytes, second_root: bytes, path: Sequence[bytes]
) -> None:
    """RFC 9162 section 2.1.4.2. Raises: ProtocolError `proof-invalid`."""
    if not 0 < first <= second <= SIZE_MAX:
        raise _invalid("no such pair of trees")
    if first == second:
        made_first, made_second = first_root, first_root
        if path:
            raise _invalid("a path between equal trees")
    else:
        made_first, made_second = _walk(first, second, first_root, path)
    if made_first != first_root or made_second != second_root:
        raise _invalid("the path leads to other roots")


def _walk(first: int, second: int, root: bytes, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    nodes = list(path)
    # A smaller tree that is perfect is a node of the larger one, and is left out of the path.
    if first & (first - 1) == 0:
        nodes.insert(0, root)
    if not nodes:
        raise _invalid("the path is too short")
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    made_first = made_second = nodes[0]
    for beside in nodes[1:]:
        if last == 0:
            raise _invalid("the path is too long")
        if at & 1 or at == last:
            made_first = node_hash(beside, made_first)
            made_second = node_hash(beside, made_second)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            made_second = node_hash(made_second, beside)
        at, last = at >> 1, last >> 1
    if last:
        raise _invalid("the path is too short")
    return made_first, made_second


def stored_nodes(block: Callable[[int, int], Sequence[bytes]]) -> Provider:
    """A provider for who stores the levels 0, 8, 16, 24, ... in blocks of 256.

    `block(level, number)` gives the nodes 256 * number on of that level, all that there are. The
    levels between are made from them, and kept for as long as the provider is.
    """

    @functools.lru_cache(maxsize=64)
    def rows(level: int, number: int) -> list[Sequence[bytes]]:
        made = [block(level, number)]
        for _ in range(BLOCK_LEVELS - 1):
            pairs = iter(made[-1])
            made.append([node_hash(a, b) for a, b in zip(pairs, pairs, strict=False)])
        return made

    def node(level: int, index: int) -> bytes:
        above = level % BLOCK_LEVELS
        first = index << above
        number = first >> BLOCK_LEVELS
        return rows(level - above, number)[above][(first - (number << BLOCK_LEVELS)) >> above]

    return node


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_hash(start: int, end: int, node: Provider) -> bytes:
    """Hash of the leaves start..end, whose start is a multiple of their count's power of two."""
    return _fold([node(level, index) for level, index in cover(start, end)])


def _fold(peaks: Sequence[bytes]) -> bytes:
    """Hash over perfect subtrees, larger first: the right ones are joined first."""
    return functools.reduce(lambda right, left: node_hash(left, right), reversed(peaks))


def _invalid(detail: str) -> ProtocolError:
    return ProtocolError(Code.PROOF_INVALID, detail)
