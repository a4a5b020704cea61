"""What `cbdc-cloud compliance` does: entries that are held, and what two officers decide."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config

PATH = "/v1/compliance/decisions"
WELL = 0


def add_compliance(verbs: Any) -> None:
    """Add the commands to the parser."""
    compliance = verbs.add_parser("compliance", help="entries that are held, under four eyes")
    actions = compliance.add_subparsers(dest="action", required=True, metavar="ACTION")
    _by_officer(actions.add_parser("held", help="entries that wait for a decision"), held)
    for action, text in (
        ("release", "draft: a held entry is settled"),
        ("reject", "draft: the payee of a held entry does not keep what it brought"),
    ):
        draft = actions.add_parser(action, help=f"{text}; another officer approves")
        draft.add_argument("journal")
        draft.add_argument("epoch", type=int)
        draft.add_argument("index", type=int)
        draft.add_argument("--reason", required=True)
        if action == "reject":
            draft.add_argument(
                "--freeze", action="store_true", help="the payee's wallet goes on list 5 as well"
            )
        _by_officer(draft, draft_decision)
    _by_officer(actions.add_parser("decisions", help="drafts that wait"), list_decisions)
    for verdict, text in (
        ("approve", "decide as another officer proposed"),
        ("decline", "decide against another officer's draft: the entry is held as before"),
    ):
        decide = actions.add_parser(verdict, help=text)
        decide.add_argument("draft")
        _by_officer(decide, decide_decision)


def _by_officer(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--officer-file", type=Path, required=True, help="the officer's token")
    parser.set_defaults(run=run)


async def held(config: Config, options: argparse.Namespace) -> int:
    """All of them, page by page."""
    api = Api(config, options.officer_file)
    async for line in api.pages("/v1/compliance/held", "entries"):
        more = "" if line["decidable"] else "  a claim, when its epoch is closed"
        print(
            f"{line['journal']}  epoch {line['epoch']}  entry {line['index']}  {line['kind']}"
            f"  {line['amount']}  {line['code']}{more}"
        )
    return WELL


async def draft_decision(config: Config, options: argparse.Namespace) -> int:
    """Propose."""
    body = {
        "draft_id": secrets.token_hex(32),
        "journal": options.journal,
        "epoch": options.epoch,
        "index": options.index,
        "action": options.action,
        "reason": options.reason,
        "freeze": options.action == "reject" and options.freeze,
    }
    made = await Api(config, options.officer_file).post(PATH, body)
    print(f"draft {made['draft_id']}: waits for another officer")
    return WELL


async def list_decisions(config: Config, options: argparse.Namespace) -> int:
    """Drafts that wait."""
    async for line in Api(config, options.officer_file).pages(PATH, "decisions"):
        print(f"{line['draft_id']}  {_text(line)}  {line['reason']}")
    return WELL


async def decide_decision(config: Config, options: argparse.Namespace) -> int:
    """Decide."""
    verb = "approve" if options.action == "approve" else "reject"
    made = await Api(config, options.officer_file).post(f"{PATH}/{options.draft}/{verb}", {})
    print(f"{_text(made)}: {made['state']}")
    return WELL


def _text(line: dict[str, Any]) -> str:
    frozen = " and freeze its payee" if line["freeze"] else ""
    return f"{line['action']} {line['journal']} epoch {line['epoch']} entry {line['index']}{frozen}"
