"""Files of Merkle trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wallet.protocol import merkle
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.vectors.report import Case, Report, unhex

MEMBERS = frozenset({"roots", "inclusion", "consistency", "invalid_inclusion"})


class Tree:
    """All leaf hashes of a file, for proofs of any size up to theirs."""

    def __init__(self, entries: list[str]) -> None:
        self.leaves = [merkle.leaf_hash(unhex(entry)) for entry in entries]
        self.frontiers = [merkle.Frontier()]
        upper: dict[int, list[bytes]] = {}
        for leaf in self.leaves:
            frontier, completed = self.frontiers[-1].append(leaf)
            self.frontiers.append(frontier)
            for node in completed:
                upper.setdefault(node.level, []).append(node.hash)
        self._rows = upper
        self.node = merkle.stored_nodes(self._block)

    def _block(self, level: int, number: int) -> list[bytes]:
        first = number * merkle.BLOCK_SIZE
        return self._rows[level][first : first + merkle.BLOCK_SIZE]


def check(document: dict[str, Any], report: Report) -> None:
    """Every case of the file."""
    with report.frame("entries", "all") as case:
        tree = Tree(document["entries"])
        case.equal("entry_count", len(tree.leaves), document.get("entry_count", len(tree.leaves)))
        _sections(document, report, tree)


def _sections(document: dict[str, Any], report: Report, tree: Tree) -> None:
    checks: dict[str, Callable[[Case, dict[str, Any], Tree], None]] = {
        "roots": _root,
        "inclusion": _inclusion,
        "consistency": _consistency,
        "invalid_inclusion": _invalid_inclusion,
        "invalid_consistency": _invalid_consistency,
    }
    for section, one in checks.items():
        for entry, given in report.cases(document, section, named=_name(section)):
            with entry as case:
                one(case, given, tree)


def _name(section: str) -> str:
    return "size" if section == "roots" else "name"


def _path(given: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple([unhex(node) for node in given["path"]])


def _root(case: Case, given: dict[str, Any], tree: Tree) -> None:
    size = given["size"]
    frontier = tree.frontiers[size]
    case.equal("root", frontier.root(), given["root"])
    case.equal("restored", merkle.import_frontier(frontier.export()).root(), given["root"])
    batch = merkle.Batch(tree.frontiers[size // 3], tree.leaves[size // 3 : size])
    case.equal("root of a batch", batch.root, given["root"])


def _inclusion(case: Case, given: dict[str, Any], tree: Tree) -> None:
    size, index, path = given["size"], given["index"], _path(given)
    leaf = unhex(given["leaf_hash"])
    case.equal("leaf_hash", tree.leaves[index], leaf)
    made = merkle.inclusion_path(index, size, tree.node)
    case.equal("path", [node.hex() for node in made], given["path"])
    batch = merkle.Batch(tree.frontiers[index], tree.leaves[index:size])
    case.equal("path in a batch", [n.hex() for n in batch.paths()[0]], given["path"])
    root = merkle.verify_inclusion(leaf, index=index, size=size, path=path)
    case.equal("root", root, given["root"])


def _consistency(case: Case, given: dict[str, Any], tree: Tree) -> None:
    made = merkle.consistency_path(given["first_size"], given["second_size"], tree.node)
    case.equal("path", [node.hex() for node in made], given["path"])
    _verify_consistency(given)


def _verify_consistency(given: dict[str, Any]) -> None:
    merkle.verify_consistency(
        first=given["first_size"],
        second=given["second_size"],
        first_root=unhex(given["first_root"]),
        second_root=unhex(given["second_root"]),
        path=_path(given),
    )


def _invalid_inclusion(case: Case, given: dict[str, Any], tree: Tree) -> None:
    case.refused({"expected_code": "proof-invalid", **given}, _verify_inclusion, given)


def _verify_inclusion(given: dict[str, Any]) -> None:
    root = merkle.verify_inclusion(
        unhex(given["leaf_hash"]), index=given["index"], size=given["size"], path=_path(given)
    )
    if root != unhex(given["root"]):
        raise ProtocolError(Code.PROOF_INVALID, "another root")


def _invalid_consistency(case: Case, given: dict[str, Any], tree: Tree) -> None:
    case.refused({"expected_code": "proof-invalid", **given}, _verify_consistency, given)
