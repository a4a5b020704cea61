"""What the subcommands share: exit codes, arguments, printing."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edge.config import Config
from edge.folder import Folder
from edge.http.octets import encode_text_hook
from edge.local_client import LocalClient

WELL, FAILED, USAGE, DEGRADED, SEALED = 0, 1, 2, 3, 4
T = TypeVar("T")
Subparsers = Any
"""What `add_subparsers` gives; argparse has no public name for it."""


class Arguments(argparse.Namespace):
    """Parsed arguments. Each command adds its own."""

    run: Callable[[Arguments, Config], int]
    config: str | None
    folder: Path | None
    set: list[str]
    json: bool


def daemon(config: Config) -> LocalClient:
    """The running daemon of the configured folder."""
    return LocalClient(Folder(config.folder))


def await_it(work: Coroutine[Any, Any, T]) -> T:
    """Run one piece of asynchronous work."""
    return asyncio.run(work)


def print_json(value: Any) -> None:
    """The value as readable JSON."""
    raw = msgspec.json.encode(value, enc_hook=encode_text_hook)
    print(msgspec.json.format(raw, indent=2).decode())


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as what stands in them."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    for row in (head, *rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag of commands that scripts read."""
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
