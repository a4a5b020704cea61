"""What `cbdc-cloud evidence` does: officers read it and take it away, and anybody checks it."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config
from cloud.errors import CloudError
from cloud.evidence.rows import EvidenceError
from cloud.http.octets import from_text
from hsm.files import create_durably
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.evidence import EVIDENCE_BYTES_MAX, Proof, verify_evidence
from wallet.protocol.ids import journal_text
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.trust import ENDLESS_S

ROOT_BYTES_MAX = 16 * 1024
# A journal is run again at some thousand entries a second.
PROOF_TIMEOUT_S = 3_600
WELL = 0
_PATH = "/v1/issuer/evidence"


def add_evidence(verbs: Any) -> None:
    """Add the commands to the parser."""
    evidence = verbs.add_parser("evidence", help="what convicts journals, for anybody to check")
    actions = evidence.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify", help="check a file with the issuer's root alone: no cloud, no network"
    )
    verify.add_argument("file", type=Path)
    verify.add_argument("--root", type=Path, required=True, help="the issuer's root, DER")
    verify.add_argument(
        "--grace-s",
        type=int,
        default=ENDLESS_S,
        help="how long after its end a certificate still vouches for a signature (always)",
    )
    verify.set_defaults(alone=verify_file)
    listed = actions.add_parser("list", help="all of it, the oldest first")
    listed.add_argument("--json", action="store_true")
    _by_officer(listed, list_evidence)
    _by_officer(
        actions.add_parser("clocks", help="journals that were ahead of the issuer's clock"), clocks
    )
    shown = actions.add_parser("show", help="one piece, and what it proves to anybody")
    shown.add_argument("evidence", type=int)
    _by_officer(shown, show)
    export = actions.add_parser("export", help="write one piece as a file that needs nothing else")
    export.add_argument("evidence", type=int)
    export.add_argument("--out", type=Path, required=True, help="a file that is not there yet")
    _by_officer(export, export_proof)


def _by_officer(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--officer-file", type=Path, required=True, help="the token of an auditor")
    parser.set_defaults(run=run)


def verify_file(options: argparse.Namespace) -> int:
    """Check a file of evidence. Raises: EvidenceError with the protocol's code, OSError."""
    raw = _read(options.file, EVIDENCE_BYTES_MAX)
    try:
        anchor = TrustAnchor(_read(options.root, ROOT_BYTES_MAX))
    except ProtocolError as error:
        raise EvidenceError(error.code, f"{options.root} is no root certificate") from error
    try:
        proof = verify_evidence(raw, root=anchor, grace_s=options.grace_s)
    except ProtocolError as error:
        raise EvidenceError(error.code, f"{options.file}: {_why(error)}") from error
    print(proof_text(proof))
    print(f"  {proof.kind}, {len(raw):,} bytes, SHA-256 {hashlib.sha256(raw).hexdigest()}")
    return WELL


def _read(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as stream:
        # Before it is read: what is too large is never in memory.
        size = os.fstat(stream.fileno()).st_size
        if size > bytes_max:
            raise EvidenceError(str(Code.TOO_LARGE), f"{path}: more than {bytes_max:,} bytes")
        return stream.read(bytes_max)


def _why(error: ProtocolError) -> str:
    said = f": {error.detail}" if error.detail else ""
    if error.code == Code.NOT_PROVEN:
        return f"it proves nothing against anybody{said}"
    return f"it is no evidence{said}"


def proof_text(proof: Proof) -> str:
    """Who, in which epoch, and what conflicts: two plain sentences."""
    return _proven(journal_text(proof.journal), proof.epoch, proof.code, proof.finding)


def _proven(journal: str, epoch: int, code: str, finding: str) -> str:
    return f"Proven: journal {journal} broke the rules in epoch {epoch} ({code}).\n  {finding}."


async def clocks(config: Config, options: argparse.Namespace) -> int:
    """Of each epoch, the entry that was furthest ahead."""
    async for line in Api(config, options.officer_file).pages("/v1/issuer/clocks", "clocks"):
        ahead_s = (line["entry_ms"] - line["received_ms"]) // 1000
        print(f"{line['journal']}  epoch {line['epoch']}  entry {line['index']}  {ahead_s} s ahead")
    return WELL


async def list_evidence(config: Config, options: argparse.Namespace) -> int:
    """All rows."""
    api, found, after = Api(config, options.officer_file), [], 0
    while after is not None:
        page = await api.get(f"{_PATH}?after={after}")
        found += page["evidence"]
        after = page["next"]
    if options.json:
        print(json.dumps({"evidence": found}, indent=2))
        return WELL
    for line in found:
        print(_line(line))
    return WELL


def _line(line: dict[str, Any]) -> str:
    found = datetime.fromtimestamp(line["found_ms"] // 1000, UTC)
    place = "" if line["index"] is None else f"  entry {line['index']}"
    return (
        f"{line['evidence_id']}  {found:%Y-%m-%d %H:%M} UTC  {line['journal']}"
        f"  epoch {line['epoch']}{place}  {line['kind']}: {line['code']}  {line['state']}"
    )


async def show(config: Config, options: argparse.Namespace) -> int:
    """One row, and its proof where it has one."""
    api = Api(config, options.officer_file, timeout_s=PROOF_TIMEOUT_S)
    print(_line(await api.get(f"{_PATH}/{options.evidence}")))
    try:
        made = await api.get(f"{_PATH}/{options.evidence}/proof")
    except CloudError as error:
        if error.code != Code.NOT_PROVEN:
            raise
        print("It convinces nobody but the issuer: nobody else can check it.")
        return WELL
    _print_proof(made)
    return WELL


def _print_proof(made: dict[str, Any]) -> None:
    line = made["evidence"]
    print(_proven(line["journal"], line["epoch"], made["code"], made["finding"]))
    print(f"  {made['kind']}, {made['size']:,} bytes, SHA-256 {made['sha256']}")


async def export_proof(config: Config, options: argparse.Namespace) -> int:
    """Write a proof into a file. Raises: CloudError `not-proven`, `proof-damaged`."""
    api = Api(config, options.officer_file, timeout_s=PROOF_TIMEOUT_S)
    path = f"{_PATH}/{options.evidence}/proof"
    made = await api.get(path)
    pieces, size = [], 0
    while size < made["size"]:
        pieces.append(from_text((await api.get(f"{path}/piece?offset={size}"))["data"]))
        if not pieces[-1]:
            break
        size += len(pieces[-1])
    raw = b"".join(pieces)
    if hashlib.sha256(raw).hexdigest() != made["sha256"]:
        raise EvidenceError("proof-damaged", "what came is not what was said")
    create_durably(options.out, raw)
    _print_proof(made)
    print(
        f"{options.out}: check it with `cbdc-cloud evidence verify {options.out} --root root.der`"
    )
    return WELL
