"""What `cbdc-cloud attestation` does: what proofs are held against, and how gateways stand."""

from __future__ import annotations

import argparse
import json
import secrets
from pathlib import Path
from typing import Any

from cloud.attestation.makers import CRL_BYTES_MAX, read_revoked
from cloud.client import Api
from cloud.config import Config
from cloud.http.octets import to_text
from cloud.http.trust_types import SERIALS_MAX

FILE_BYTES_MAX = 12_288
WELL = 0
_OFFICER = "the officer's token"
LEVELS = ("tpm", "pkcs11", "software")
PCR_POLICIES = ("firmware", "firmware-and-boot")


def add_level(parser: argparse.ArgumentParser) -> None:
    """What a gateway has to prove: options of `gateway add`."""
    level = parser.add_mutually_exclusive_group()
    level.add_argument(
        "--level",
        choices=LEVELS,
        default="tpm",
        help="where its keys have to be: `tpm` is proven, at the enrolment and with each report;"
        " `pkcs11` and `software` are not: what a PKCS#11 token can prove differs from maker to"
        " maker, and is not checked, so that this level is your word alone",
    )
    level.add_argument(
        "--allow-software",
        action="store_const",
        const="software",
        dest="level",
        help="the same as `--level software`: whoever copies its disk and passphrase is it",
    )
    parser.add_argument(
        "--pcr-policy",
        choices=PCR_POLICIES,
        default="firmware",
        help="which measurements a TPM shows: firmware (PCR 0, 2, 7), or the boot as well",
    )


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
    revoke = actions.add_parser(
        "revoke",
        help="refuse TPMs whose maker took their certificates back: a CRL, or a certificate",
        description="The file is a revocation list or one certificate, PEM or DER. It is not"
        " checked who signed it: compare it with what the maker publishes. Never taken back.",
    )
    revoke.add_argument("file", type=Path)
    _by_officer(revoke, revoke_endorsements)
    _by_officer(actions.add_parser("revoked", help="certificates that are"), list_revoked)
    _by_officer(actions.add_parser("files", help="drafts, and what is in force"), list_trust)
    shown = actions.add_parser("gateways", help="what gateways proved, and what was found")
    shown.add_argument("--json", action="store_true")
    _by_officer(shown, list_gateways)
    lifted = actions.add_parser("lift", help="let a journal report again; the report is judged")
    lifted.add_argument("journal")
    _by_officer(lifted, lift)


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


async def revoke_endorsements(config: Config, options: argparse.Namespace) -> int:
    """Revoke what a file names."""
    with options.file.open("rb") as stream:
        named = read_revoked(stream.read(CRL_BYTES_MAX + 1))
    api, made = Api(config, options.officer_file), 0
    by_issuer: dict[bytes, list[str]] = {}
    for one in named:
        text = one.serial.to_bytes(max(1, (one.serial.bit_length() + 7) // 8)).hex()
        by_issuer.setdefault(one.issuer, []).append(text)
    for issuer, serials in by_issuer.items():
        for at in range(0, len(serials), SERIALS_MAX):
            body = {"issuer": issuer.hex(), "serials": serials[at : at + SERIALS_MAX]}
            answer = await api.post("/v1/issuer/endorsement-revocations", body)
            made += answer["revoked"]
    print(f"{len(named)} certificates, {made} of them not revoked before")
    return WELL


async def list_revoked(config: Config, options: argparse.Namespace) -> int:
    """The newest ones."""
    found = await Api(config, options.officer_file).get("/v1/issuer/endorsement-revocations")
    for line in found["revocations"]:
        print(f"{line['serial']}  of issuer {line['issuer']}")
    return WELL


def _trust_text(line: dict[str, Any]) -> str:
    return f"{line['kind']} {line['name']}: {line['state']}, file SHA-256 {line['sha256']}"


async def list_gateways(config: Config, options: argparse.Namespace) -> int:
    """All gateways, and the registers of those that drifted."""
    found = await Api(config, options.officer_file).get("/v1/issuer/attestations")
    if options.json:
        print(json.dumps(found, indent=2))
        return WELL
    for line in found["gateways"]:
        word = line["image"] or "by an officer's word"
        state = "suspended" if line["suspended"] else "in order"
        print(f"{line['journal']}  {line['name']}  {line['level']}  {word}  {state}")
        if line["suspended"] and line["finding"]:
            print(_finding_text(line["finding"]))
    return WELL


def _finding_text(finding: dict[str, Any]) -> str:
    lines = [f"  {finding['code']}"]
    lines += [f"  found     {number}: {value}" for number, value in finding["found"].items()]
    for known in finding["expected"]:
        lines += [
            f"  expected  {number}: {value}  {known['image']}"
            for number, value in known["registers"].items()
        ]
    return "\n".join(lines)


async def lift(config: Config, options: argparse.Namespace) -> int:
    """Lift a suspension."""
    path = f"/v1/issuer/journals/{options.journal}/lift"
    made = await Api(config, options.officer_file).post(path, {})
    print(f"{made['journal']}  epoch {made['epoch']}: its next report is judged")
    return WELL
