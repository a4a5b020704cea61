"""Byte strings in bodies: base64url without padding in JSON, byte strings in CBOR."""

from __future__ import annotations

import binascii
from typing import Any

_URL = bytes.maketrans(b"+/", b"-_")
# What the last character may be when the text has 2, 3 or 4 characters in its last group: no
# stray bits, so that a byte string has one text.
_LAST = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


class Octets:
    """A byte string of a body. msgspec knows bytes as padded base64, so they have a type here."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Octets) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Octets({len(self.raw)} bytes)"


def to_text(raw: bytes) -> str:
    """base64url without padding (RFC 4648 section 5)."""
    text = binascii.b2a_base64(raw, newline=False).translate(_URL)
    return text.rstrip(b"=").decode()


def from_text(text: str) -> bytes:
    """The bytes of base64url without padding. Raises: ValueError for anything else."""
    rest = len(text) % 4
    if "+" in text or "/" in text or "=" in text or rest == 1:
        raise ValueError("not base64url without padding")
    if rest and text[-1] not in _LAST[rest]:
        raise ValueError("base64url with stray bits at its end")
    standard = text.replace("-", "+").replace("_", "/") + "=" * (-rest % 4)
    try:
        return binascii.a2b_base64(standard, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not base64url without padding") from error


def decode_hook(kind: type[Any], value: Any) -> Any:
    """msgspec's way in."""
    if kind is Octets and type(value) is str:
        return Octets(from_text(value))
    if kind is Octets and type(value) is bytes:
        return Octets(value)
    raise ValueError("not a byte string")


def encode_text_hook(value: Any) -> Any:
    """msgspec's way out into JSON."""
    if type(value) is Octets:
        return to_text(value.raw)
    raise TypeError(f"no {type(value).__name__} in a body")


def encode_bytes_hook(value: Any) -> Any:
    """msgspec's way out into CBOR."""
    if type(value) is Octets:
        return value.raw
    raise TypeError(f"no {type(value).__name__} in a body")


def schema_hook(kind: type[Any]) -> dict[str, Any]:
    """How OpenAPI tells of it."""
    if kind is Octets:
        return {
            "type": "string",
            "contentEncoding": "base64url",
            "pattern": "^([A-Za-z0-9_-]{4})*"
            "([A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$",
            "maxLength": 22_369_624,
        }
    raise TypeError(f"no {kind.__name__} in a body")
