"""Files of evidence of forks."""

from __future__ import annotations

from typing import Any

from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.codec import decode, encode
from wallet.protocol.fork import FORK_BYTES_MAX, verify_fork
from wallet.protocol.vectors.report import Case, Report, unhex

MEMBERS = frozenset({"cases"})


def check(document: dict[str, Any], report: Report) -> None:
    """Every case of the file."""
    with report.frame("root_certificate", "issuer root"):
        root = TrustAnchor(unhex(document["root_certificate"]["der"]))
        grace_s = int(document["certificate_grace_s"])
        for entry, given in report.cases(document, "cases"):
            with entry as case:
                _evidence(case, given, root, grace_s)


def _evidence(case: Case, given: dict[str, Any], root: TrustAnchor, grace_s: int) -> None:
    raw = unhex(given["fork"])
    if given["expected"] == "fork":
        proof = verify_fork(raw, root=root, grace_s=grace_s)
        case.equal("kind", f"fork-{proof.kind.name.lower()}", given["kind"])
        case.equal("encoded again", encode(decode(raw, bytes_max=FORK_BYTES_MAX)), raw)
        return
    wanted = {"expected_code": "not-proven"} if given["expected"] == "not-proven" else {}
    case.refused({**wanted, **given}, _verify, raw, root, grace_s)


def _verify(raw: bytes, root: TrustAnchor, grace_s: int) -> None:
    verify_fork(raw, root=root, grace_s=grace_s)
