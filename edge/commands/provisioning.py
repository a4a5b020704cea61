"""`provision`: enrol this machine as a gateway."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge.audit import Detail, Note, leave_note
from edge.commands.common import WELL, Arguments, Subparsers, await_it, daemon
from edge.config import Config
from edge.errors import DaemonSilent
from edge.folder import Folder
from edge.http.types import GatewayAnswer
from edge.provision import Wish, provision
from edge.secret_input import read_file, read_secret_file, token_secret
from edge.tamper import refuse_tampered
from wallet.clock import SystemClock

CA_BYTES_MAX = 64 * 1024


class ProvisionArguments(Arguments):
    """What `provision` takes."""

    cloud: str
    cloud_ca: Path
    token_file: Path
    hosted_tier: int | None


def add_commands(commands: Subparsers) -> None:
    """Add it to the parser."""
    parser = commands.add_parser(
        "provision",
        help="enrol this machine as a gateway",
        description="Makes keys and store, asks the cloud for certificates with a one-time token, "
        "and opens the journal. May be run again after a crash: it goes on where it was.",
    )
    parser.add_argument(
        "--cloud", required=True, metavar="URL", help="such as https://cloud.bank:8443"
    )
    parser.add_argument(
        "--cloud-ca", required=True, type=Path, metavar="FILE", help="CA of the cloud's TLS, PEM"
    )
    parser.add_argument(
        "--token-file", required=True, type=Path, metavar="FILE", help="the one-time token"
    )
    parser.add_argument(
        "--hosted-tier", type=int, metavar="N", help="tier that hosted wallets ask for"
    )
    parser.set_defaults(run=_provision)


def _provision(parsed: ProvisionArguments, config: Config) -> int:
    refuse_tampered(Folder(config.folder))
    wish = Wish(
        cloud=parsed.cloud,
        cloud_ca=read_file(parsed.cloud_ca, bytes_max=CA_BYTES_MAX).decode("ascii", "replace"),
        enrolment_token=read_secret_file(parsed.token_file).decode("ascii", "replace"),
        hosted_tier=parsed.hosted_tier,
    )
    secret = token_secret(config.token)
    folder, clock = Folder(config.folder), SystemClock()
    journal = await_it(provision(config, wish, secret=secret, clock=clock, say=_say))
    # The store is closed again, or another process has it: the daemon takes the note in.
    details: dict[str, Detail] = {"journal": journal, "cloud": wish.cloud, "user": os.getuid()}
    note = Note(time_ms=clock.now_ms(), action="technician provision", details=details)
    leave_note(folder.audit, note)
    print(f"this gateway is {journal}")
    await_it(_tell_daemon(config))
    return WELL


def _say(step: str) -> None:
    print(f"provisioning: {step}", file=sys.stderr)


async def _tell_daemon(config: Config) -> None:
    """A daemon that runs already opens what is there now."""
    if not Folder(config.folder).socket.exists():
        return
    try:
        await daemon(config).call("POST", "/reload", GatewayAnswer, body={})
    except DaemonSilent:
        # A socket that a killed daemon left behind: the next one opens what is there.
        return
