"""`device pair | list | revoke`: the terminals of this gateway."""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import quote

from edge.commands.common import (
    FAILED,
    WELL,
    Arguments,
    Subparsers,
    add_json,
    await_it,
    daemon,
    print_json,
    print_table,
)
from edge.config import Config
from edge.http.local import PairingView, TerminalsAnswer, TerminalView
from edge.local_client import LocalClient
from edge.moments import moment

POLL_S = 0.2


class PairArguments(Arguments):
    """What `device pair` takes."""

    yes_if_sas: str | None
    code_file: str | None


class RevokeArguments(Arguments):
    """What `device revoke` takes."""

    terminal: str


def add_commands(commands: Subparsers) -> None:
    """Add them to the parser."""
    parser = commands.add_parser("device", help="terminals: pair, list, revoke")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    pair = what.add_parser(
        "pair",
        help="let a new terminal in",
        description="Prints a code for the terminal. When the terminal came, both sides show a "
        "short string: compare them, and only then say yes.",
    )
    pair.add_argument(
        "--yes-if-sas",
        metavar="SAS",
        help="say yes without a question if the short string is this one; `-` reads it from the "
        "standard input once the terminal shows it",
    )
    pair.set_defaults(run=_pair)
    listed = what.add_parser("list", help="all terminals")
    add_json(listed)
    listed.set_defaults(run=_list)
    revoke = what.add_parser("revoke", help="let a terminal in no more")
    revoke.add_argument("terminal", metavar="ID")
    revoke.set_defaults(run=_revoke)


def _pair(parsed: PairArguments, config: Config) -> int:
    return await_it(_pair_terminal(daemon(config), parsed.yes_if_sas))


async def _pair_terminal(client: LocalClient, expected: str | None) -> int:
    opened = await client.call("POST", "/pairing", PairingView, body={})
    code = opened.code or ""
    print(f"code: {code[:4]}-{code[4:]}   (good for {opened.left_s} s)", flush=True)
    view = await _terminal_came(client)
    if view.state != "waiting" or view.sas is None:
        print("no terminal came, or too many wrong codes", file=sys.stderr)
        return FAILED
    print(f"terminal {view.name!r} shows, if nobody sits in between: {view.sas}", flush=True)
    answer = await asyncio.to_thread(_answer, expected, view.sas)
    if answer is None:
        await client.call("DELETE", "/pairing", PairingView)
        print("refused", file=sys.stderr)
        return FAILED
    terminal = await client.call("POST", "/pairing/confirm", TerminalView, body={"sas": answer})
    print(f"paired: {terminal.id} {terminal.name}")
    return WELL


async def _terminal_came(client: LocalClient) -> PairingView:
    """The pairing once a terminal waits, or once it is over; it ends by itself after 5 minutes."""
    while True:
        view = await client.call("GET", "/pairing", PairingView)
        if view.state not in ("open", "met"):
            return view
        await asyncio.sleep(POLL_S)


def _answer(expected: str | None, shown: str) -> str | None:
    """The string to confirm with, or None for no."""
    if expected == "-":
        return sys.stdin.readline().strip() or None
    if expected is not None:
        return expected
    if not sys.stdin.isatty():
        return None
    print("the same on the terminal? [y/N] ", end="", flush=True)
    return shown if sys.stdin.readline().strip().lower() in ("y", "yes") else None


def _list(parsed: Arguments, config: Config) -> int:
    found = await_it(daemon(config).call("GET", "/terminals", TerminalsAnswer))
    if parsed.json:
        print_json(found)
        return WELL
    rows = [
        (
            terminal.id,
            terminal.name,
            moment(terminal.created_ms),
            moment(terminal.revoked_ms) if terminal.revoked_ms else "-",
        )
        for terminal in found.terminals
    ]
    print_table(("id", "name", "paired", "revoked"), rows)
    return WELL


def _revoke(parsed: RevokeArguments, config: Config) -> int:
    client = daemon(config)
    await_it(
        client.call("DELETE", f"/terminals/{quote(parsed.terminal, safe='')}", TerminalsAnswer)
    )
    print(f"revoked: {parsed.terminal}")
    return WELL
