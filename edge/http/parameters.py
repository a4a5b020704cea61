"""Parameters of paths and queries, checked."""

from __future__ import annotations

import re

from aiohttp import web

from edge.http.problem import HttpCode, problem
from wallet.protocol.ids import JournalId, WalletId, parse_journal, parse_wallet
from wallet.protocol.refusals import ProtocolError

PAGE_MAX = 200
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_NUMBER = re.compile(r"[0-9]{1,15}\Z")


def hash_of(request: web.Request, name: str) -> bytes:
    """A hash of the path, in hexadecimal. Raises: ProblemRaised."""
    text = request.match_info[name]
    if not _HASH.match(text):
        raise problem(HttpCode.PARAMETER_INVALID, f"{name}: 64 hexadecimal digits")
    return bytes.fromhex(text)


def hash_from(text: str) -> bytes:
    """A hash of a body that its type has checked."""
    return bytes.fromhex(text)


def wallet_of(request: web.Request) -> WalletId:
    """The wallet of the path. Raises: ProblemRaised."""
    return wallet_from(request.match_info["wallet"])


def wallet_from(text: str) -> WalletId:
    """A wallet of its text. Raises: ProblemRaised."""
    try:
        return parse_wallet(text)
    except ProtocolError as error:
        raise problem(HttpCode.PARAMETER_INVALID, error.detail) from error


def journal_from(text: str) -> JournalId:
    """A journal of its text. Raises: ProblemRaised."""
    try:
        return parse_journal(text)
    except ProtocolError as error:
        raise problem(HttpCode.PARAMETER_INVALID, error.detail) from error


def reference_of(request: web.Request) -> str:
    """The query's reference, which is needed. Raises: ProblemRaised."""
    reference = request.query.get("reference", "")
    if not 0 < len(reference.encode("utf-8", "surrogatepass")) <= 64:
        raise problem(HttpCode.PARAMETER_INVALID, "reference: 1 to 64 bytes")
    return reference


def limit_of(request: web.Request, *, default: int = 50) -> int:
    """How many items a page may have. Raises: ProblemRaised."""
    text = request.query.get("limit", str(default))
    if not _NUMBER.match(text) or not 1 <= int(text) <= PAGE_MAX:
        raise problem(HttpCode.PARAMETER_INVALID, f"limit: 1 to {PAGE_MAX}")
    return int(text)


def number_from(text: str) -> int | None:
    """A number of at most 15 digits, or None."""
    return int(text) if _NUMBER.match(text) else None
