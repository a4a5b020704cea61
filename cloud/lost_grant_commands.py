"""What `cbdc-cloud issuer` does about grants that it forgot, when it was restored from a backup."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config

PATH = "/v1/issuer/lost-grants"
WELL = 0


def add_lost_grants(actions: Any) -> None:
    """Add the commands to the parser of `issuer`."""
    shown = actions.add_parser(
        "lost-grants", help="grants in journals that nobody remembers, and drafts that wait"
    )
    _by_officer(shown, lost_grants)
    close = actions.add_parser(
        "close-grant", help="draft: where the value of a lost grant comes from; another approves"
    )
    close.add_argument("journal")
    close.add_argument("epoch", type=int)
    close.add_argument("sequence", type=int)
    close.add_argument("--wallet", help="the online wallet that paid, and has the value once more")
    close.add_argument(
        "--taken", type=int, default=0, help="minor units out of it; the rest is the issuer's loss"
    )
    close.add_argument("--reason", required=True)
    _by_officer(close, draft_closing)
    approve = actions.add_parser("approve-grant", help="close a lost grant as another proposed")
    approve.add_argument("draft")
    _by_officer(approve, approve_closing)


def _by_officer(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--officer-file", type=Path, required=True, help="the officer's token")
    parser.set_defaults(run=run)


async def lost_grants(config: Config, options: argparse.Namespace) -> int:
    """All of them, page by page, then drafts."""
    api = Api(config, options.officer_file)
    async for line in api.pages(PATH, "grants"):
        state = "closed" if line["closed"] else "open"
        print(
            f"{_text(line)}  {line['amount']} {line['currency']}"
            f"  to {line['offline_wallet']}  {state}"
        )
    async for line in api.pages(f"{PATH}/closings", "closings"):
        print(f"draft {line['draft_id']}: {_text(line)}  {_source(line)}  {line['reason']}")
    return WELL


async def draft_closing(config: Config, options: argparse.Namespace) -> int:
    """Propose."""
    body = {
        "draft_id": secrets.token_hex(32),
        "journal": options.journal,
        "epoch": options.epoch,
        "sequence": options.sequence,
        "wallet": options.wallet,
        "taken": options.taken,
        "reason": options.reason,
    }
    made = await Api(config, options.officer_file).post(f"{PATH}/closings", body)
    print(f"draft {made['draft_id']}: waits for another officer")
    return WELL


async def approve_closing(config: Config, options: argparse.Namespace) -> int:
    """Decide."""
    path = f"{PATH}/closings/{options.draft}/approve"
    made = await Api(config, options.officer_file).post(path, {})
    print(f"{_text(made)}  {_source(made)}: closed")
    return WELL


def _text(line: dict[str, Any]) -> str:
    return f"{line['journal']}  epoch {line['epoch']}  grant {line['sequence']}"


def _source(line: dict[str, Any]) -> str:
    if line["wallet"] is None:
        return "all of it the issuer's loss"
    return f"{line['taken']} out of {line['wallet']}"
