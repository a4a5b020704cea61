"""What `cbdc-cloud gateway` does when a gateway is lost or replaced; it calls the running cloud."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloud.attestation_commands import LEVELS, PCR_POLICIES
from cloud.client import Api
from cloud.config import Config
from cloud.errors import CloudError
from cloud.http.recovery_types import CLAIMS_MAX
from hsm.files import create_durably

# Entry and receipt have 16 KiB each at most; a file may have any number of lines.
LINE_BYTES_MAX = 64 * 1024
# What a call takes, well below the most that a body may have.
CALL_BYTES_MAX = 256 * 1024
# Reckoning takes time with the number of claims.
RECKONED_S = 600
SHOWN_MAX = 10_000
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
    _add_refusals(actions)
    statement = actions.add_parser("statement", help="draft the statement; another officer signs")
    statement.add_argument("closure")
    statement.add_argument(
        "--hosted",
        choices=("carry", "online", "everybody"),
        required=True,
        help="carry: the next gateway has the keys of hosted wallets; online: their value goes to "
        "the holders' online wallets; everybody: so does that of all wallets",
    )
    statement.add_argument(
        "--bear",
        type=int,
        default=0,
        metavar="MINOR",
        help="what the issuer may bear, in minor units, where that is beyond its policy's bound",
    )
    _by_officer(statement, draft_statement)
    shown = actions.add_parser("judged", help="every claim, as a draft of a statement judges it")
    shown.add_argument("statement")
    _by_officer(shown, judged)
    sign = actions.add_parser("sign", help="sign another officer's statement")
    sign.add_argument("statement")
    _by_officer(sign, sign_statement)
    _add_late_payments(actions)
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


def _add_refusals(actions: Any) -> None:
    refuse = actions.add_parser(
        "refuse", help="draft: one claim does not count, for a reason; another officer approves"
    )
    refuse.add_argument("closure")
    refuse.add_argument("claim", help="its entry's leaf hash, as `claims` shows it")
    refuse.add_argument("--reason", required=True)
    _by_officer(refuse, draft_refusal)
    shown = actions.add_parser("refusals", help="claims of a closure that are, or may be, refused")
    shown.add_argument("closure")
    _by_officer(shown, refusals)
    approve = actions.add_parser("approve-refusal", help="refuse a claim as another proposed")
    approve.add_argument("draft")
    _by_officer(approve, approve_refusal)


def _add_late_payments(actions: Any) -> None:
    late = actions.add_parser("late", help="receipts that came after a closure's statement")
    late.add_argument("closure")
    _by_officer(late, late_receipts)
    pay = actions.add_parser(
        "pay-late", help="draft: a late receipt is paid by the issuer; another officer approves"
    )
    pay.add_argument("closure")
    pay.add_argument("claim", help="its entry's leaf hash, as `late` shows it")
    pay.add_argument("--reason", required=True)
    pay.add_argument(
        "--bear",
        type=int,
        default=0,
        metavar="MINOR",
        help="what the issuer may bear of the epoch in all, where its policy's bound is below that",
    )
    _by_officer(pay, draft_late_payment)
    shown = actions.add_parser("late-payments", help="late receipts that are, or may be, paid")
    shown.add_argument("closure")
    _by_officer(shown, late_payments)
    approve = actions.add_parser("approve-late", help="pay a late receipt as another proposed")
    approve.add_argument("draft")
    _by_officer(approve, approve_late_payment)


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
    async for line in Api(config, options.officer_file).pages("/v1/issuer/closures", "closures"):
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
    api = Api(config, options.officer_file, timeout_s=RECKONED_S)
    if options.receipts is None and options.closure is None:
        raise CloudError("claims-unnamed", "name a closure, or receipts to hand in")
    handed_in = 0
    for part in [] if options.receipts is None else calls(options.receipts):
        made = await api.post("/v1/issuer/claims", {"receipts": part})
        for outcome in made["outcomes"]:
            handed_in += 1
            print(f"receipt {handed_in}: {outcome}")
    if options.closure is not None:
        await _show(api, f"/v1/issuer/closures/{options.closure}/claims")
    return WELL


def calls(path: Path) -> Iterator[list[dict[str, str]]]:
    """Receipts of a file or of all files in a folder, as many at a time as one call takes.

    Raises: OSError; CloudError `receipt-unreadable`.
    """
    part: list[dict[str, str]] = []
    size = 0
    for receipt in _receipts(path):
        length = len(receipt["entry"]) + len(receipt["receipt"])
        if part and (len(part) == CLAIMS_MAX or size + length > CALL_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(receipt)
        size += length
    if part:
        yield part


def _receipts(path: Path) -> Iterator[dict[str, str]]:
    """JSON, one object a line."""
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        with file.open("rb") as stream:
            while line := stream.readline(LINE_BYTES_MAX):
                if not line.strip():
                    continue
                try:
                    parsed = json.loads(line)
                    yield {"entry": parsed["entry"], "receipt": parsed["receipt"]}
                except (ValueError, LookupError, TypeError) as error:
                    raise CloudError("receipt-unreadable", f"{file}: {error}") from error


async def _show(api: Api, path: str) -> None:
    """The sums, and the first claims of them: a draft of a statement keeps them all."""
    shown, found = 0, await api.get(path)
    while found["claims"] and shown < SHOWN_MAX:
        for line in found["claims"]:
            _show_claim(line)
        shown += len(found["claims"])
        if shown == found["claimed"]:
            break
        found = await api.get(f"{path}?first={shown}")
    if shown < found["claimed"]:
        print(f"... and {found['claimed'] - shown} more claims: see those of a statement's draft")
    print(f"carried {found['carried']} of {found['wallets']} wallets, borne {found['borne']}")


def _show_claim(line: dict[str, Any], *, good: str = "counts") -> None:
    verdict = good if line["code"] is None else f"refused: {line['code']}"
    print(f"entry {line['index']}  {line['kind']}  {line['amount']}  {verdict}  {line['claim']}")


async def judged(config: Config, options: argparse.Namespace) -> int:
    """Every claim, as a draft of a statement judges it."""
    path = f"/v1/issuer/statements/{options.statement}/claims"
    async for line in Api(config, options.officer_file).pages(path, "claims"):
        _show_claim(line)
    return WELL


async def draft_refusal(config: Config, options: argparse.Namespace) -> int:
    """Propose to refuse a claim."""
    body = {"draft_id": secrets.token_hex(32), "claim": options.claim, "reason": options.reason}
    path = f"/v1/issuer/closures/{options.closure}/refusals"
    made = await Api(config, options.officer_file).post(path, body)
    print(f"draft {made['draft_id']}: waits for another officer")
    return WELL


async def refusals(config: Config, options: argparse.Namespace) -> int:
    """Claims that are, or may be, refused."""
    path = f"/v1/issuer/closures/{options.closure}/refusals"
    async for line in Api(config, options.officer_file).pages(path, "refusals"):
        print(f"{line['draft_id']}  claim {line['claim']}  {line['state']}  {line['reason']}")
    return WELL


async def approve_refusal(config: Config, options: argparse.Namespace) -> int:
    """Refuse a claim."""
    path = f"/v1/issuer/refusals/{options.draft}/approve"
    made = await Api(config, options.officer_file).post(path, {})
    print(f"claim {made['claim']}: refused")
    return WELL


async def draft_statement(config: Config, options: argparse.Namespace) -> int:
    """Reckon and draft a statement."""
    body: dict[str, object] = {
        "statement_id": secrets.token_hex(32),
        "hosted": options.hosted,
        "bear_max": options.bear,
    }
    path = f"/v1/issuer/closures/{options.closure}/statements"
    made = await Api(config, options.officer_file, timeout_s=RECKONED_S).post(path, body)
    print(f"statement {made['statement_id']}: waits for another officer")
    print(f"carried {made['carried']}, paid out {made['paid_out']}, borne {made['borne']}")
    if made["taken_back"]:
        print(f"taken back from payees of rejected entries: {made['taken_back']}")
    print(f"claims: {made['counted']} count, {made['refused']} do not")
    return WELL


async def sign_statement(config: Config, options: argparse.Namespace) -> int:
    """Sign a statement."""
    path = f"/v1/issuer/statements/{options.statement}/approve"
    made = await Api(config, options.officer_file, timeout_s=RECKONED_S).post(path, {})
    print(f"carried {made['carried']}, borne {made['borne']}: {made['state']}")
    return WELL


async def late_receipts(config: Config, options: argparse.Namespace) -> int:
    """What came after the statement, and what of it may be paid."""
    api = Api(config, options.officer_file, timeout_s=RECKONED_S)
    path = f"/v1/issuer/closures/{options.closure}/late-receipts"
    async for line in api.pages(path, "receipts"):
        _show_claim(line, good="payable")
    return WELL


async def draft_late_payment(config: Config, options: argparse.Namespace) -> int:
    """Propose to pay a late receipt."""
    body: dict[str, object] = {
        "draft_id": secrets.token_hex(32),
        "claim": options.claim,
        "reason": options.reason,
        "bear_max": options.bear,
    }
    path = f"/v1/issuer/closures/{options.closure}/late-payments"
    made = await Api(config, options.officer_file, timeout_s=RECKONED_S).post(path, body)
    print(f"draft {made['draft_id']}: waits for another officer")
    print(f"{made['amount']} to {made['payee']}, borne by the issuer")
    return WELL


async def late_payments(config: Config, options: argparse.Namespace) -> int:
    """Late receipts that are, or may be, paid."""
    path = f"/v1/issuer/closures/{options.closure}/late-payments"
    async for line in Api(config, options.officer_file).pages(path, "payments"):
        print(
            f"{line['draft_id']}  claim {line['claim']}  {line['amount']} to {line['payee']}"
            f"  {line['state']}  {line['reason']}"
        )
    return WELL


async def approve_late_payment(config: Config, options: argparse.Namespace) -> int:
    """Pay a late receipt."""
    path = f"/v1/issuer/late-payments/{options.draft}/approve"
    made = await Api(config, options.officer_file, timeout_s=RECKONED_S).post(path, {})
    print(f"claim {made['claim']}: {made['amount']} paid to {made['payee']}")
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
