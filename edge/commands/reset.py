"""`reset`: wipe a gateway, while nothing is lost by that."""

from __future__ import annotations

import sys

from edge.commands.common import WELL, Arguments, Subparsers, await_it
from edge.config import Config
from edge.reset import reset
from edge.secret_input import token_secret
from wallet.clock import SystemClock


class ResetArguments(Arguments):
    """What `reset` takes."""

    journal: str
    forget_hosted: bool


def add_commands(commands: Subparsers) -> None:
    """Add it to the parser."""
    parser = commands.add_parser(
        "reset",
        help="wipe this gateway for good; the gateway is stopped meanwhile",
        description="Refused while the issuer does not hold all of the journal, unless what is "
        "missing lies on a stick (`sync export`). Cut off, it is finished by asking again.",
    )
    parser.add_argument(
        "--journal", required=True, metavar="JNL", help="the gateway's identifier, as `status` says"
    )
    parser.add_argument(
        "--forget-hosted",
        action="store_true",
        help="the keys of hosted wallets go as well: they are in a backup, or not needed",
    )
    parser.set_defaults(run=_reset)


def _reset(parsed: ResetArguments, config: Config) -> int:
    work = reset(
        config,
        secret=token_secret(config.token),
        journal=parsed.journal,
        forget_hosted=parsed.forget_hosted,
        clock=SystemClock(),
    )
    wiped = await_it(work)
    if wiped is None:
        print(f"{config.folder}: the rest of a wipe that was cut off is gone as well")
        return WELL
    print(f"{config.folder}: {wiped.journal} is wiped")
    if wiped.acknowledged < wiped.size:
        print(f"entries {wiped.acknowledged} to {wiped.size} are on the stick alone: keep it safe")
    if config.token.driver != "software":
        print("its keys are in the token still: remove them with the token's own tools")
    print("Next: cbdc-cloud gateway close, when this gateway does not come back", file=sys.stderr)
    return WELL
