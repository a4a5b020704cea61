"""What `cbdc-cloud attestation` does: what proofs of gateways are held against."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config
from cloud.http.octets import to_text

FILE_BYTES_MAX = 12_288
WELL = 0
_OFFICER = "the officer's token"


def add_attestation(verbs: Any) -> None:
    """Add the commands to the parser."""
    attestation = verbs.add_parser("attestation", help="what gateways prove of their hardware")
    actions = attestation.add_subparsers(dest="action", required=True, metavar="ACTION")
    for kind, text in (
        ("maker", "draft: trust a maker of TPMs, by its root certificate (PEM or DER)"),
        ("image", "draft: an image's published manifest of measurements"),
    ):
        draft = actions.add_parser(kind, help=f"{text}; another officer approves")
        draft.add_argument("file", type=Path)
        _by_officer(draft, draft_trust)
    for action, text in (
        ("approve", "approve another officer's file: compare its SHA-256 with the publisher's"),
        ("reject", "reject another officer's file"),
        ("withdraw", "trust a file no more: gateways that rely on it are suspended"),
    ):
        decide = actions.add_parser(action, help=text)
        decide.add_argument("draft")
        _by_officer(decide, decide_trust)
    _by_officer(actions.add_parser("files", help="drafts, and what is in force"), list_trust)


def _by_officer(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--officer-file", type=Path, required=True, help=_OFFICER)
    parser.set_defaults(run=run)


async def draft_trust(config: Config, options: argparse.Namespace) -> int:
    """Draft a file."""
    with options.file.open("rb") as stream:
        content = stream.read(FILE_BYTES_MAX)
    body = {"draft_id": secrets.token_hex(32), "kind": options.action, "file": to_text(content)}
    made = await Api(config, options.officer_file).post("/v1/issuer/trust", body)
    print(f"draft {made['draft_id']}: waits for another officer")
    print(_trust_text(made))
    return WELL


async def decide_trust(config: Config, options: argparse.Namespace) -> int:
    """Approve, reject or withdraw."""
    path = f"/v1/issuer/trust/{options.draft}/{options.action}"
    print(_trust_text(await Api(config, options.officer_file).post(path, {})))
    return WELL


async def list_trust(config: Config, options: argparse.Namespace) -> int:
    """Drafts, and what is in force."""
    found = await Api(config, options.officer_file).get("/v1/issuer/trust")
    for line in found["drafts"]:
        print(f"{line['draft_id']}  {_trust_text(line)}")
    return WELL


def _trust_text(line: dict[str, Any]) -> str:
    return f"{line['kind']} {line['name']}: {line['state']}, file SHA-256 {line['sha256']}"
