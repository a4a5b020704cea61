"""Arguments that the commands of `cbdc-pos` share."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_DECIMAL = re.compile(r"[0-9]{1,13}(\.[0-9]{1,4})?", re.ASCII)


class PosArguments(argparse.Namespace):
    """Parsed arguments. Each command sets its own part of them."""

    run: Callable[[PosArguments], Coroutine[Any, Any, int]]
    folder: Path
    json: bool
    payer: str | None
    payee: str | None
    amount: str | None
    journal: str | None
    reference: str | None
    category: str | None
    request: str | None
    file: Path | None
    hosted: str | None
    pin_file: Path | None
    receipts: Path | None
    payment: str
    files: list[Path]
    root: Path
    connections: int
    count: int | None
    wallet: str
    expires_s: int
    names: list[str]
    tier: int
    label: str | None
    pairing_url: str
    url: str
    code_file: Path | None
    name: str


def https_url(text: str) -> str:
    """An address of a gateway. Raises: ArgumentTypeError, which argparse turns into usage."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: write https://HOST:PORT")
    return text


def decimal(text: str) -> str:
    """An amount; how many places it may have is its currency's. Raises: ArgumentTypeError."""
    if _DECIMAL.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r}: write an amount such as 12.34")
    return text


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
