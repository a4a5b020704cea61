"""`wallet list | create`: the wallets of this gateway."""

from __future__ import annotations

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
from edge.http.local import WalletsAnswer
from edge.http.types import WalletAnswer
from edge.secret_input import ask, read_secret_file
from wallet.protocol.money import Currency, decimal_text


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
    create.add_argument("--tier", type=int, default=1, metavar="N")
    create.add_argument("--label", metavar="TEXT", help="a name for people")
    add_json(create)
    create.set_defaults(run=_create)


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
    pin = read_secret_file(given) if given is not None else ask("PIN of the new wallet")
    body = {"pin": pin.decode("ascii", "replace"), "tier": parsed.tier, "label": parsed.label}
    made = await_it(daemon(config).call("POST", "/wallets", WalletAnswer, body=body))
    if parsed.json:
        print_json(made)
    else:
        print(f"{made.wallet} {made.state}")
    return WELL
