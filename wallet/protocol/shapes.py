"""Checks of the shapes of wire.cddl: each returns the value or raises `malformed`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from wallet.protocol.ids import ID_BYTES
from wallet.protocol.money import AMOUNT_MAX
from wallet.protocol.refusals import Code, ProtocolError

COUNT_MAX = 2**53 - 1
HASH_BYTES = 32
NONCE_BYTES = 16
_CURRENCY = re.compile(r"[A-Z]{3}\Z")
_CATEGORY = re.compile(r"[0-9]{4}\Z")
# Unicode property Bidi_Control (PropList.txt).
_BIDI_CONTROL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)

Check = Callable[[Any], Any]


def malformed(detail: str) -> ProtocolError:
    """The error of a wrong shape, to be raised."""
    return ProtocolError(Code.MALFORMED, detail)


def count(value: Any) -> int:
    """An unsigned integer up to 2^53 - 1."""
    if type(value) is not int or not 0 <= value <= COUNT_MAX:
        raise malformed("not a count")
    return value


def amount(value: Any) -> int:
    """1 to 10^12 minor units."""
    if type(value) is not int or not 1 <= value <= AMOUNT_MAX:
        raise malformed("not an amount")
    return value


def octets(size: int) -> Check:
    """Byte strings of one size."""

    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) != size:
            raise malformed(f"not a byte string of {size}")
        return value

    return check


identifier = octets(ID_BYTES)
digest = octets(HASH_BYTES)
nonce = octets(NONCE_BYTES)


def binary(value: Any) -> bytes:
    """A byte string of any size."""
    if type(value) is not bytes:
        raise malformed("not a byte string")
    return value


def text(value: Any) -> str:
    """A text string of any size."""
    if type(value) is not str:
        raise malformed("not text")
    return value


def currency(value: Any) -> str:
    """Three capital letters."""
    if type(value) is not str or not _CURRENCY.match(value):
        raise malformed("not a currency")
    return value


def category(value: Any) -> str:
    """Four ASCII digits."""
    if type(value) is not str or not _CATEGORY.match(value):
        raise malformed("not a merchant category")
    return value


def reference(value: Any) -> str:
    """1 to 64 bytes of text without control (Cc) or bidirectional control characters."""
    if type(value) is not str or not 1 <= len(value.encode()) <= 64:
        raise malformed("not a reference of 1 to 64 bytes")
    for character in value:
        if character in _BIDI_CONTROL or unicodedata.category(character) == "Cc":
            raise malformed("a control character in the reference")
    return value


def choice(*values: int) -> Check:
    """One of a few integers."""

    def check(value: Any) -> int:
        if type(value) is not int or value not in values:
            raise malformed("a number that means nothing here")
        return value

    return check


def listed(item: Check, *, least: int = 0) -> Check:
    """A list whose items all pass, as a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) < least:
            raise malformed("not a list of enough items")
        return tuple([item(part) for part in value])

    return check


def fixed(*items: Check) -> Check:
    """A list of known length, each part with its own check, as a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(items):
            raise malformed(f"not a list of {len(items)}")
        return tuple([part(given) for part, given in zip(items, value, strict=True)])

    return check


def mapping(key: Check, item: Check) -> Check:
    """A map of any size."""

    def check(value: Any) -> dict[Any, Any]:
        if type(value) is not dict:
            raise malformed("not a map")
        return {key(name): item(part) for name, part in value.items()}

    return check


def optional(item: Check) -> Check:
    """nil, or what passes."""

    def check(value: Any) -> Any:
        return None if value is None else item(value)

    return check


def record(
    value: Any, required: Mapping[int, Check], allowed: Mapping[int, Check] | None = None
) -> dict[int, Any]:
    """A map with all of the required members, some of the allowed ones, and no other."""
    if type(value) is not dict:
        raise malformed("not a map")
    checks = {**required, **(allowed or {})}
    if not value.keys() <= checks.keys():
        raise malformed("a member that is not known")
    if not value.keys() >= required.keys():
        raise malformed("a member is missing")
    return {name: checks[name](part) for name, part in value.items()}


def versioned(value: Any) -> None:
    """Claim 1 of every signed payload. Raises: `malformed`, `unknown-version`."""
    if type(value) is not dict or type(value.get(1)) is not int or value[1] < 0:
        raise malformed("no version")
    if value[1] != 1:
        raise ProtocolError(Code.UNKNOWN_VERSION, str(value[1]))
