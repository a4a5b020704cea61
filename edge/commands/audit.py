"""`audit`: what technicians did, how keys were used, how the gateway's state changed."""

from __future__ import annotations

import argparse
import sys
from urllib.parse import urlencode

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
from edge.http.trail import AuditCheck, AuditEntry, AuditPage
from edge.local_client import LocalClient
from edge.moments import moment
from wallet.store.audit import parse_head


class AuditArguments(Arguments):
    """What `audit` takes."""

    verify: bool
    head: str | None
    after: int


def add_commands(commands: Subparsers) -> None:
    """Add it to the parser."""
    parser = commands.add_parser(
        "audit",
        help="who did what, key use and changes of state; --verify checks the chain",
        description="Prints the audit log of the running gateway. Each row's hash covers the row "
        "before it; the last one's, the head, is told to the issuer at each exchange.",
    )
    parser.add_argument("--verify", action="store_true", help="check every row instead of printing")
    parser.add_argument(
        "--head", type=_head, metavar="NUMBER:HASH", help="one that was told; implies --verify"
    )
    parser.add_argument("--after", type=int, default=0, metavar="NUMBER", help="rows after this")
    add_json(parser)
    parser.set_defaults(run=_audit)


def _head(text: str) -> str:
    try:
        return str(parse_head(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _audit(parsed: AuditArguments, config: Config) -> int:
    client = daemon(config)
    if parsed.verify or parsed.head is not None:
        return _verify(parsed, await_it(_check(client, parsed.head)))
    rows = await_it(_rows(client, parsed.after))
    if parsed.json:
        print_json(AuditPage(rows=rows))
        return WELL
    table = [(str(row.seq), moment(row.time_ms), row.action, _details(row)) for row in rows]
    print_table(("row", "time", "action", "details"), table)
    return WELL


async def _check(client: LocalClient, head: str | None) -> AuditCheck:
    query = "" if head is None else "?" + urlencode({"head": head})
    return await client.call("GET", "/audit/check" + query, AuditCheck)


async def _rows(client: LocalClient, after: int) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    while True:
        page = await client.call("GET", f"/audit?after={after}", AuditPage)
        if not page.rows:
            return found
        found += page.rows
        after = page.rows[-1].seq


def _verify(parsed: AuditArguments, check: AuditCheck) -> int:
    if parsed.json:
        print_json(check)
    elif check.finding is not None:
        print(check.finding, file=sys.stderr)
    else:
        print(f"every row holds; the head is {check.head}")
        print(f"the issuer was told   {check.told}")
    return WELL if check.finding is None else FAILED


def _details(row: AuditEntry) -> str:
    return bytes(row.details).decode()
