"""What `cbdc-cloud gateway` does when a gateway is lost or replaced; it calls the running cloud."""

from __future__ import annotations

import argparse
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloud.attestation_commands import LEVELS, PCR_POLICIES
from cloud.client import Api
from cloud.config import Config
from cloud.errors import CloudError
from cloud.http.recovery_types import CLAIMS_MAX
from hsm.files import create_durably

FILE_BYTES_MAX = 64 * 1024 * 1024
WELL = 0


def add_recovery(actions: Any) -> None:
    """Add the commands to the parser of `gateway`."""
    close = actions.add_parser("close", help="draft: a gateway's epoch is over; another approves")
    close.add_argument("journal")
    close.add_argument(
        "--cause", choices=("planned", "lost", "compromised", "migrated"), required=True
    )
    close.add_argument("--reason", required=True)
    _by_officer(close, draft_closure)
    _by_officer(actions.add_parser("closures", help="closures and their claims windows"), closures)
    approve = actions.add_parser("approve", help="approve another officer's closure")
    approve.add_argument("closure")
    _by_officer(approve, approve_closure)
    claims = actions.add_parser("claims", help="hand in receipts, or see what is claimed")
    claims.add_argument("closure", nargs="?")
    claims.add_argument(
        "--receipts", type=Path, help="files as `cbdc-pos pay --receipts` writes them, or a folder"
    )
    _by_officer(claims, claim)
    statement = actions.add_parser("statement", help="draft the statement; another officer signs")
    statement.add_argument("closure")
    statement.add_argument(
        "--hosted",
        choices=("carry", "online"),
        required=True,
        help="wallets whose keys the gateway kept: carry them where the next gateway has the keys",
    )
    _by_officer(statement, draft_statement)
    sign = actions.add_parser("sign", help="sign another officer's statement")
    sign.add_argument("statement")
    _by_officer(sign, sign_statement)
    successor = actions.add_parser(
        "successor",
        help="a token for the gateway that goes on; it has to prove what the one before had to",
    )
    successor.add_argument("closure")
    successor.add_argument("--token-file", type=Path, required=True)
    successor.add_argument(
        "--level", choices=LEVELS, help="more than the one before had to prove, never less"
    )
    successor.add_argument("--pcr-policy", choices=PCR_POLICIES, help="other measurements")
    _by_officer(successor, successor_token)


def _by_officer(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--officer-file", type=Path, required=True, help="the officer's token")
    parser.set_defaults(run=run)


async def draft_closure(config: Config, options: argparse.Namespace) -> int:
    """Declare an epoch over."""
    body = {
        "closure_id": secrets.token_hex(32),
        "journal": options.journal,
        "cause": options.cause,
        "reason": options.reason,
    }
    made = await Api(config, options.officer_file).post("/v1/issuer/closures", body)
    print(f"closure {made['closure_id']}: waits for another officer")
    return WELL


async def closures(config: Config, options: argparse.Namespace) -> int:
    """Closures, the newest first."""
    found = await Api(config, options.officer_file).get("/v1/issuer/closures")
    for line in found["closures"]:
        print(
            f"{line['closure_id']}  {line['journal']}  epoch {line['epoch']}  {line['cause']}"
            f"  {line['state']}{_window(line)}"
        )
    return WELL


async def approve_closure(config: Config, options: argparse.Namespace) -> int:
    """Approve a closure."""
    path = f"/v1/issuer/closures/{options.closure}/approve"
    made = await Api(config, options.officer_file).post(path, {})
    print(f"{made['journal']} epoch {made['epoch']}: {made['state']}{_window(made)}")
    return WELL


def _window(line: dict[str, Any]) -> str:
    until_ms = line["claims_until_ms"]
    if until_ms is None:
        return ""
    return f"  claims until {datetime.fromtimestamp(until_ms // 1000, UTC):%Y-%m-%d %H:%M} UTC"


async def claim(config: Config, options: argparse.Namespace) -> int:
    """Hand receipts in, then show what a closure comes to."""
    api = Api(config, options.officer_file)
    if options.receipts is None and options.closure is None:
        raise CloudError("claims-unnamed", "name a closure, or receipts to hand in")
    receipts = [] if options.receipts is None else _receipts(options.receipts)
    for at in range(0, len(receipts), CLAIMS_MAX):
        part = receipts[at : at + CLAIMS_MAX]
        made = await api.post("/v1/issuer/claims", {"receipts": part})
        for number, outcome in enumerate(made["outcomes"], at + 1):
            print(f"receipt {number}: {outcome}")
    if options.closure is not None:
        _show(await api.get(f"/v1/issuer/closures/{options.closure}/claims"))
    return WELL


def _receipts(path: Path) -> list[dict[str, str]]:
    """Receipts of a file or of all files in a folder: JSON, one object a line. Raises: OSError."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        with file.open("rb") as stream:
            lines = stream.read(FILE_BYTES_MAX).splitlines()
        try:
            parsed = [json.loads(line) for line in lines if line.strip()]
            found += [{"entry": line["entry"], "receipt": line["receipt"]} for line in parsed]
        except (ValueError, LookupError, TypeError) as error:
            raise CloudError("receipt-unreadable", f"{file}: {error}") from error
    return found


def _show(found: dict[str, Any]) -> None:
    for line in found["claims"]:
        verdict = "counts" if line["code"] is None else f"refused: {line['code']}"
        print(f"entry {line['index']}  {line['kind']}  {line['amount']}  {verdict}")
    print(f"carried {found['carried']} of {found['wallets']} wallets, borne {found['borne']}")


async def draft_statement(config: Config, options: argparse.Namespace) -> int:
    """Reckon and draft a statement."""
    body = {"statement_id": secrets.token_hex(32), "hosted": options.hosted}
    path = f"/v1/issuer/closures/{options.closure}/statements"
    made = await Api(config, options.officer_file).post(path, body)
    print(f"statement {made['statement_id']}: waits for another officer")
    print(f"carried {made['carried']}, paid out {made['paid_out']}, borne {made['borne']}")
    print(f"claims: {made['counted']} count, {made['refused']} do not")
    return WELL


async def sign_statement(config: Config, options: argparse.Namespace) -> int:
    """Sign a statement."""
    path = f"/v1/issuer/statements/{options.statement}/approve"
    made = await Api(config, options.officer_file).post(path, {})
    print(f"carried {made['carried']}, borne {made['borne']}: {made['state']}")
    return WELL


async def successor_token(config: Config, options: argparse.Namespace) -> int:
    """A token for the gateway that goes on."""
    path = f"/v1/issuer/closures/{options.closure}/token"
    wanted = {"level": options.level, "pcr_policy": options.pcr_policy}
    body = {name: value for name, value in wanted.items() if value is not None}
    made = await Api(config, options.officer_file).post(path, body)
    create_durably(options.token_file, made["token"].encode())
    print(f"{options.token_file}: good for one gateway, for a week")
    return WELL
