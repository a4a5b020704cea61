"""`tamper`: whether the box was opened, and what to do then."""

from __future__ import annotations

import msgspec

from edge.commands.common import SEALED, WELL, Arguments, Subparsers, add_json, print_json
from edge.config import Config
from edge.folder import Folder
from edge.tamper import Mark, read_mark

STEPS = """what to do:
1. Leave the folder as it is: it is evidence, and what the issuer does not hold yet is in it.
2. Tell the issuer, who closes this epoch. Receipts that holders have are claims until the end of
   the claims window.
3. When the box was looked at: name another folder in the configuration, with keys in a PKCS#11
   token another `key_label`, in a TPM another `nv_index`, and provision it with a new one-time
   token of the issuer: `cbdc-edge provision`. The statement that comes with it opens the next
   epoch.
No command makes this folder pay again."""


class TamperView(msgspec.Struct, frozen=True, kw_only=True):
    """The switch, and its mark if it ever tripped."""

    source: str
    mark: Mark | None


def add_commands(commands: Subparsers) -> None:
    """Add it to the parser."""
    parser = commands.add_parser("tamper", help="whether the box was opened, and what to do then")
    add_json(parser)
    parser.set_defaults(run=_tamper)


def _tamper(parsed: Arguments, config: Config) -> int:
    mark = read_mark(Folder(config.folder))
    if parsed.json:
        print_json(TamperView(source=config.tamper.source, mark=mark))
    elif mark is None:
        print(f"not tripped; the switch: {config.tamper.source}")
    else:
        print(mark.sentence)
        print(STEPS)
    return WELL if mark is None else SEALED
