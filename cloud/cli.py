"""`cbdc-cloud`: the issuer's side, for its operators.

Exit codes: 0 well, 1 error, 2 usage, 3 degraded (the account does not add up), 4 not initialised.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cloud import commands
from cloud.attestation_commands import add_attestation, add_level
from cloud.compliance_commands import add_compliance
from cloud.config import Config, load_config
from cloud.courier_commands import add_sync
from cloud.errors import CloudError
from cloud.evidence_commands import add_evidence
from cloud.http.types import SUPPLY_MAX
from cloud.issuer.officers import Role
from cloud.lost_grant_commands import add_lost_grants
from cloud.main import run_cloud
from cloud.policy_commands import add_policies
from cloud.recovery_commands import add_recovery
from cloud.stream_commands import add_stream
from cloud.streaming import run_worker
from cloud.trail_commands import add_trails
from hsm.api import HsmError

_OFFICER_FILE = "the officer's token (officer-first.token in the folder)"
WELL, FAILED, DEGRADED, NOT_INITIALISED = 0, 1, 3, 4
Command = Callable[[Config, argparse.Namespace], Coroutine[Any, Any, int]]


def parser() -> argparse.ArgumentParser:
    """Commands and their options."""
    top = argparse.ArgumentParser(prog="cbdc-cloud", description="Issuer, reconciler and ledger.")
    top.add_argument("--config", type=Path, help="a TOML file (/etc/cbdc-cloud/config.toml)")
    top.add_argument("--folder", type=Path, help="where the cloud keeps what it has")
    top.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="listen.api_port=8444"
    )
    verbs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    first = verbs.add_parser("init", help="make keys, database, first policy and two admins")
    first.set_defaults(run=commands.init)
    verbs.add_parser("run", help="serve until SIGTERM").set_defaults(serve=run_cloud)
    worker = verbs.add_parser("worker", help="reconcile what other processes take in: [stream]")
    worker.set_defaults(serve=run_worker)
    status = verbs.add_parser("status", help="where all value is; works beside a running cloud")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=commands.status)
    _add_gateway(verbs)
    _add_issuer(verbs)
    add_attestation(verbs)
    add_compliance(verbs)
    add_evidence(verbs)
    add_sync(verbs)
    add_stream(verbs)
    migrate = verbs.add_parser("migrate", help="bring the database's schema up to date")
    migrate.set_defaults(run=commands.migrate_schema)
    reconcile = verbs.add_parser("reconcile", help="journals, their sizes and states")
    reconcile.add_argument("--json", action="store_true")
    reconcile.add_argument("--officer-file", type=Path, help=_OFFICER_FILE)
    reconcile.set_defaults(run=commands.reconcile)
    return top


def _add_gateway(verbs: Any) -> None:
    gateway = verbs.add_parser("gateway", help="gateways of the issuer")
    actions = gateway.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="write a one-time enrolment token into a file")
    add.add_argument("--name", required=True)
    add.add_argument("--currency", default="EUR")
    add.add_argument("--tier", type=int, action="append", help="tiers it may enrol by itself")
    add.add_argument("--token-file", type=Path, required=True)
    add_level(add)
    add.add_argument("--officer-file", type=Path, help=_OFFICER_FILE)
    add.set_defaults(run=commands.gateway_add)
    shown = actions.add_parser("list", help="all gateways")
    shown.add_argument("--json", action="store_true")
    shown.add_argument("--officer-file", type=Path, help=_OFFICER_FILE)
    shown.set_defaults(run=commands.gateway_list)
    add_recovery(actions)
    add_trails(actions)


def _add_issuer(verbs: Any) -> None:
    issuer = verbs.add_parser("issuer", help="supply under four eyes, holders, officers")
    actions = issuer.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action in ("issue", "burn"):
        draft = actions.add_parser(action, help=f"draft: {action} value; another officer approves")
        draft.add_argument("--wallet", required=True, help="an online wallet")
        draft.add_argument("--amount", type=_minor, required=True, help="minor units")
        draft.add_argument("--reason", required=True)
        draft.add_argument("--officer-file", type=Path, required=True, help="the officer's token")
        draft.set_defaults(run=commands.draft_supply)
    approve = actions.add_parser("approve", help="approve a draft of another officer")
    approve.add_argument("draft")
    approve.add_argument("--officer-file", type=Path, required=True)
    approve.set_defaults(run=commands.approve_supply)
    drafts = actions.add_parser("drafts", help="drafts that wait")
    drafts.add_argument("--officer-file", type=Path, required=True)
    drafts.set_defaults(run=commands.list_drafts)
    _add_officers(actions)
    add_policies(actions)
    add_lost_grants(actions)
    holder = actions.add_parser("holder", help="open an online wallet for a holder")
    holder.add_argument("--name", required=True)
    holder.add_argument("--wallet", required=True)
    holder.add_argument("--currency", default="EUR")
    holder.add_argument("--officer-file", type=Path, required=True)
    holder.add_argument("--token-file", type=Path, required=True, help="for the holder's token")
    holder.set_defaults(run=commands.add_holder)


def _minor(text: str) -> int:
    """An amount of supply in minor units. Raises: ArgumentTypeError, which names the option."""
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(SUPPLY_MAX))
    if not digits or not 1 <= int(text) <= SUPPLY_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: minor units, from 1 to {SUPPLY_MAX}")
    return int(text)


def _add_officers(actions: Any) -> None:
    token = actions.add_parser("token", help="make your own token; prints the hash to tell others")
    token.add_argument("--token-file", type=Path, required=True)
    token.set_defaults(run=commands.make_token)
    officer = actions.add_parser("officer", help="draft: an officer; another admin approves")
    officer.add_argument("--name", required=True)
    officer.add_argument("--role", action="append", required=True, choices=list(Role))
    officer.add_argument("--token-hash", help="what `issuer token` printed; not if it stays")
    officer.add_argument("--officer-file", type=Path, required=True, help="the drafter's token")
    officer.set_defaults(run=commands.draft_officer)
    disable = actions.add_parser(
        "disable", help="draft: an officer may act no more; another admin approves"
    )
    disable.add_argument("--name", required=True)
    disable.add_argument("--officer-file", type=Path, required=True, help="the drafter's token")
    disable.set_defaults(run=commands.draft_disabling)
    approve = actions.add_parser("approve-officer", help="approve a draft of an officer")
    approve.add_argument("draft")
    approve.add_argument("--officer-file", type=Path, required=True)
    approve.set_defaults(run=commands.approve_officer)
    shown = actions.add_parser("officers", help="officers, and drafts that wait")
    shown.add_argument("--officer-file", type=Path, required=True)
    shown.set_defaults(run=commands.list_officers)


def config_of(options: argparse.Namespace) -> Config:
    """File, environment and flags. Raises: CloudError `config-invalid`."""
    flags = {}
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise CloudError("config-invalid", f"--set {text}: KEY=VALUE")
        flags[key] = value
    if options.folder is not None:
        flags["folder"] = str(options.folder.absolute())
    return load_config(options.config, environment=os.environ, flags=flags)


def main() -> int:
    """The command; its exit code."""
    options = parser().parse_args()
    try:
        if "alone" in options:
            # It needs neither configuration nor cloud, and whoever runs it has none.
            alone: Callable[[argparse.Namespace], int] = options.alone
            return alone(options)
        config = config_of(options)
        if "serve" in options:
            serve: Callable[[Config], None] = options.serve
            serve(config)
            return WELL
        work: Command = options.run
        return asyncio.run(work(config, options))
    except CloudError as error:
        print(f"cbdc-cloud: {error}", file=sys.stderr)
        return NOT_INITIALISED if error.code == "not-initialised" else FAILED
    except (HsmError, OSError) as error:
        print(f"cbdc-cloud: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
