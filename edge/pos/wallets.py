"""`pair` and `wallet`: the terminal, and the wallets whose keys stand in its folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge.commands.common import FAILED, WELL, Subparsers, add_json, print_json, print_table
from edge.errors import OrderRefused
from edge.http.octets import Octets
from edge.http.types import DeviceWalletBody, StatementAnswer, WalletAnswer, WalletBody
from edge.moments import moment
from edge.pos.arguments import PosArguments, https_url
from edge.pos.client import Client
from edge.pos.pairing import pair
from edge.pos.purse import Purse
from edge.pos.terminal import Terminal
from edge.secret_input import ask, read_secret_file
from wallet.protocol.money import Currency, decimal_text

CODE_VARIABLE = "CBDC_POS_CODE"


def add_commands(commands: Subparsers) -> None:
    """Add them to the parser."""
    pairing = commands.add_parser(
        "pair",
        help="make this folder a terminal of a gateway",
        description="The gateway's technician runs `cbdc-edge device pair`, which shows the code. "
        "Both sides then show the same short string; the technician confirms.",
    )
    pairing.add_argument(
        "pairing_url", metavar="PAIRING_URL", type=https_url, help="https://gateway:8441"
    )
    pairing.add_argument("url", metavar="URL", type=https_url, help="https://gateway:8440")
    pairing.add_argument(
        "--code-file", type=Path, metavar="FILE", help=f"else {CODE_VARIABLE}, or a question"
    )
    pairing.add_argument("--name", default="cbdc-pos", metavar="TEXT")
    pairing.set_defaults(run=_pair)
    parser = commands.add_parser("wallet", help="wallets of this folder")
    what = parser.add_subparsers(metavar="WHAT", required=True)
    new = what.add_parser("new", help="make keys of new wallets")
    new.add_argument("names", nargs="+", metavar="NAME")
    new.set_defaults(run=_new)
    listed = what.add_parser("list", help="names and identifiers")
    add_json(listed)
    listed.set_defaults(run=_list)
    enrol = what.add_parser("enrol", help="ask the issuer, by the gateway, to enrol wallets")
    enrol.add_argument("names", nargs="+", metavar="NAME")
    enrol.add_argument("--tier", type=int, default=1, metavar="N")
    enrol.set_defaults(run=_enrol)
    show = what.add_parser("show", help="balance and limits, as the gateway knows them")
    show.add_argument("wallet", metavar="NAME", help="a name here, or an identifier")
    add_json(show)
    show.set_defaults(run=_show)
    statement = what.add_parser("statement", help="the last entries")
    statement.add_argument("wallet", metavar="NAME", help="a name here, or an identifier")
    add_json(statement)
    statement.set_defaults(run=_statement)


async def _pair(parsed: PosArguments) -> int:
    terminal = await pair(
        pairing_url=parsed.pairing_url,
        url=parsed.url,
        code=_code(parsed.code_file),
        name=parsed.name,
        show=lambda sas: print(f"the technician should see: {sas}", flush=True),
    )
    path = terminal.save(parsed.folder)
    print(f"paired as {terminal.terminal} with {terminal.gateway}; kept in {path}")
    return WELL


def _code(path: Path | None) -> str:
    if path is not None:
        return read_secret_file(path).decode("ascii", "replace")
    given = os.environ.get(CODE_VARIABLE)
    return given or ask("code", instead=f"--code-file, or {CODE_VARIABLE}").decode(
        "ascii", "replace"
    )


async def _new(parsed: PosArguments) -> int:
    purse = Purse.open(parsed.folder)
    for name, key in zip(parsed.names, purse.create(*parsed.names), strict=True):
        print(f"{name} {key.text}")
    return WELL


async def _list(parsed: PosArguments) -> int:
    keys = Purse.open(parsed.folder).keys
    if parsed.json:
        print_json({name: key.text for name, key in keys.items()})
    else:
        print_table(("name", "wallet"), [(name, key.text) for name, key in keys.items()])
    return WELL


async def _enrol(parsed: PosArguments) -> int:
    purse, failures = Purse.open(parsed.folder), 0
    async with Client(Terminal.load(parsed.folder)) as client:
        for name in parsed.names:
            device = DeviceWalletBody(
                key=Octets(purse.key(name).public.cose_key), tier=parsed.tier, label=name
            )
            body = WalletBody(device=device)
            try:
                made = await client.call("POST", "/v1/wallets", WalletAnswer, body=body)
            except OrderRefused as error:
                failures += 1
                print(f"{name}: refused: {error.detail}", file=sys.stderr)
                continue
            print(f"{name} {made.wallet} {made.state}")
    return FAILED if failures else WELL


def _identifier(parsed: PosArguments) -> str:
    key = Purse.open(parsed.folder).keys.get(parsed.wallet)
    return parsed.wallet if key is None else key.text


async def _show(parsed: PosArguments) -> int:
    async with Client(Terminal.load(parsed.folder)) as client:
        wallet = await client.call("GET", f"/v1/wallets/{_identifier(parsed)}", WalletAnswer)
    if parsed.json:
        print_json(wallet)
        return WELL
    currency = Currency(wallet.currency)
    print(f"{wallet.wallet} {wallet.state}, {'hosted' if wallet.hosted else 'device'}")
    settled = decimal_text(wallet.settled, currency)
    print(f"balance {decimal_text(wallet.balance, currency)} {currency.code}, settled {settled}")
    for limit in wallet.limits:
        print(f"  {limit.code}: {limit.left} left of {limit.limit}")
    return WELL


async def _statement(parsed: PosArguments) -> int:
    async with Client(Terminal.load(parsed.folder)) as client:
        path = f"/v1/wallets/{_identifier(parsed)}/statement"
        statement = await client.call("GET", path, StatementAnswer)
    if parsed.json:
        print_json(statement)
        return WELL
    currency = Currency(statement.currency)
    rows = [
        (
            moment(entry.time_ms),
            entry.kind,
            decimal_text(entry.amount, currency),
            entry.state,
            entry.reference or "",
        )
        for entry in statement.entries
    ]
    print_table(("time", "kind", currency.code, "state", "reference"), rows)
    return WELL
