"""What `cbdc-cloud issuer window` and its like do: the counter's window in the next policy."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config
from cloud.issuer.policies import WINDOWS
from wallet.protocol.policy import JournalLimit

WELL = 0


def add_policies(actions: Any) -> None:
    """Add the commands to the parser of `issuer`."""
    window = actions.add_parser(
        "window",
        help="draft: the policy in force with another window of the counter; another approves",
        description="`short` ends after 1,000 entries, `long` after 1,000,000, both after an hour."
        " A rollback could hide one window; each window moves the counter, which wears out in a"
        " TPM.",
    )
    window.add_argument("window", choices=tuple(WINDOWS))
    window.add_argument("--currency", default="EUR")
    _by_officer(window, draft_window)
    _by_officer(actions.add_parser("policies", help="drafts of policies"), list_policies)
    approve = actions.add_parser("approve-policy", help="approve another officer's policy")
    approve.add_argument("draft")
    _by_officer(approve, approve_policy)


def _by_officer(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--officer-file", type=Path, required=True, help="the officer's token")
    parser.set_defaults(run=run)


async def draft_window(config: Config, options: argparse.Namespace) -> int:
    """Draft it."""
    body = {"draft_id": secrets.token_hex(32), "currency": options.currency}
    api = Api(config, options.officer_file)
    made = await api.post("/v1/issuer/policies/window", {**body, "window": options.window})
    print(f"draft {made['draft_id']}: waits for another officer")
    print(_policy_text(made))
    return WELL


async def list_policies(config: Config, options: argparse.Namespace) -> int:
    """All of them, the newest first."""
    found = await Api(config, options.officer_file).get("/v1/issuer/policies")
    for line in found["policies"]:
        print(f"{line['draft_id']}  {_policy_text(line)}")
    return WELL


async def approve_policy(config: Config, options: argparse.Namespace) -> int:
    """Have it signed."""
    path = f"/v1/issuer/policies/{options.draft}/approve"
    print(_policy_text(await Api(config, options.officer_file).post(path, {})))
    return WELL


def _policy_text(line: dict[str, Any]) -> str:
    entries = line["journal"].get(str(int(JournalLimit.WINDOW_ENTRIES)), "-")
    seconds = line["journal"].get(str(int(JournalLimit.WINDOW_S)), "-")
    number = "" if line["sequence"] is None else f" as number {line['sequence']}"
    return (
        f"{line['currency']}: {line['state']}{number}, window of {entries} entries or {seconds} s"
    )
