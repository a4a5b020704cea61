"""`wallet list | create`: the wallets of this gateway."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from edge.commands.common import (
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
from edge.errors import ArgumentsWrong
from edge.http.local import WalletsAnswer
from edge.http.types import WalletAnswer
from edge.secret_input import ask, read_secret_file
from wallet.protocol.money import Currency, decimal_text

TIER_MAX = 1_000
_PIN = re.compile(rb"[0-9]{4,12}")


class CreateArguments(Arguments):
    """What `wallet create` takes."""

    pin_file: Path | None
    tier: int
    label: str | None


def add_commands(commands: Subparsers) -> None:
    """Add them to the parser."""
    parser = commands.add_parser("wallet", help="wallets: list, create hosted ones")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    listed = what.add_parser("list", help="all wallets of this gateway")
    add_json(listed)
    listed.set_defaults(run=_list)
    create = what.add_parser(
        "create",
        help="a wallet whose key the gateway keeps",
        description="The issuer enrols it at the next exchange; until then it is `pending`.",
    )
    create.add_argument("--pin-file", type=Path, metavar="FILE", help="else the PIN is asked for")
    create.add_argument("--tier", type=_tier, default=1, metavar="N", help="0 to 1000")
    create.add_argument("--label", metavar="TEXT", help="a name for people")
    add_json(create)
    create.set_defaults(run=_create)


def _tier(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > TIER_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: 0 to {TIER_MAX}")
    return int(text)


def _list(parsed: Arguments, config: Config) -> int:
    found = await_it(daemon(config).call("GET", "/wallets", WalletsAnswer))
    if parsed.json:
        print_json(found)
        return WELL
    rows = []
    for wallet in found.wallets:
        balance = decimal_text(wallet.balance, Currency(wallet.currency))
        kind = "hosted" if wallet.hosted else "device"
        rows.append((wallet.wallet, kind, wallet.state, f"{balance} {wallet.currency}"))
    print_table(("wallet", "kind", "state", "balance"), rows)
    return WELL


def _create(parsed: CreateArguments, config: Config) -> int:
    given = parsed.pin_file
    question = "PIN of the new wallet"
    pin = read_secret_file(given) if given is not None else ask(question, instead="--pin-file")
    if not _PIN.fullmatch(pin):
        raise ArgumentsWrong("a PIN has 4 to 12 digits")
    body = {"pin": pin.decode("ascii"), "tier": parsed.tier, "label": parsed.label}
    made = await_it(daemon(config).call("POST", "/wallets", WalletAnswer, body=body))
    if parsed.json:
        print_json(made)
    else:
        print(f"{made.wallet} {made.state}")
    return WELL
