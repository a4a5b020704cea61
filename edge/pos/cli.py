"""The `cbdc-pos` command: a till and a phone. Exit codes: 0 well, 1 error or refused, 2 usage."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.commands.common import FAILED, USAGE
from edge.errors import ArgumentsWrong, EdgeError
from edge.pos import paying, wallets
from edge.pos.arguments import PosArguments
from edge.version import version
from hsm.process import forbid_cores
from wallet.protocol.refusals import ProtocolError

DEFAULT_FOLDER = "~/.cbdc-pos"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    parsed = _parser().parse_args(arguments, namespace=PosArguments())
    try:
        return asyncio.run(parsed.run(parsed))
    except (EdgeError, ProtocolError, OSError) as error:
        print(f"cbdc-pos: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ArgumentsWrong) else FAILED
    except KeyboardInterrupt:
        return FAILED


def run() -> int:
    """Run one command in a process of its own, which leaves no core: wallets' keys are in it."""
    forbid_cores()
    return main()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cbdc-pos",
        description="A till for people and scripts: pays, asks, refunds, verifies.",
        epilog="Keys of wallets stand in a file of the folder, readable by you alone: a tool for "
        "tills, tests and demonstrations. Exit codes: 0 well, 1 error or refused, 2 usage.",
    )
    parser.add_argument("--version", action="version", version=f"cbdc-pos {version()}")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("CBDC_POS_FOLDER", DEFAULT_FOLDER)).expanduser(),
        help=f"where terminal and wallets are kept (default: {DEFAULT_FOLDER})",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (paying, wallets):
        module.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(run())
