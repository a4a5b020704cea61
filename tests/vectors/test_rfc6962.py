"""The proofs of transparency-dev/merkle: RFC 6962, whose trees are those of RFC 9162."""

import base64
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.files import MERKLE, load
from wallet.protocol.merkle import verify_consistency, verify_inclusion
from wallet.protocol.refusals import Code, ProtocolError

INCLUSION = sorted((MERKLE / "inclusion").rglob("*.json"))
CONSISTENCY = sorted((MERKLE / "consistency").rglob("*.json"))


def bytes_of(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def path_of(given: dict[str, Any]) -> list[bytes]:
    return [bytes_of(node) for node in given["proof"] or []]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_the_files_are_there() -> None:
    assert len(INCLUSION) + len(CONSISTENCY) == 196


@pytest.mark.parametrize("path", INCLUSION, ids=name_of)
def test_inclusion_proofs_hold_or_fail_as_they_must(path: Path) -> None:
    given = load(path)
    try:
        root = verify_inclusion(
            bytes_of(given["leafHash"]),
            index=given["leafIdx"],
            size=given["treeSize"],
            path=path_of(given),
        )
        holds = root == bytes_of(given["root"])
    except ProtocolError as error:
        assert error.code == Code.PROOF_INVALID
        holds = False
    assert holds is not given["wantErr"]


@pytest.mark.parametrize("path", CONSISTENCY, ids=name_of)
def test_consistency_proofs_hold_or_fail_as_they_must(path: Path) -> None:
    given = load(path)
    try:
        verify_consistency(
            first=given["size1"],
            second=given["size2"],
            first_root=bytes_of(given["root1"]),
            second_root=bytes_of(given["root2"]),
            path=path_of(given),
        )
        holds = True
    except ProtocolError as error:
        assert error.code == Code.PROOF_INVALID
        holds = False
    # RFC 6962 libraries take a proof from the empty tree; this protocol has none.
    assert holds is (not given["wantErr"] and given["size1"] > 0)
