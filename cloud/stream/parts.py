"""Messages that are larger than the server takes: cut into parts, which are kept beside them.

The parts are stored first. The message itself then says how many there are and what they hash to,
so that its place in the order is one place and a reader sees all of it or none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

PARTS_MAX = 1_000


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What the message says of its parts."""

    parts: int
    digest: bytes


def cut(body: bytes, *, part_bytes: int) -> Cut:
    """How a body is cut."""
    return Cut(parts=-(-len(body) // part_bytes), digest=hashlib.sha256(body).digest())


def pieces(body: bytes, *, part_bytes: int) -> Iterator[bytes]:
    """The parts, in order."""
    for at in range(0, len(body), part_bytes):
        yield body[at : at + part_bytes]


def joined(found: list[bytes], made: Cut) -> bytes | None:
    """The body again; None where something of it is missing or another's."""
    body = b"".join(found)
    whole = len(found) == made.parts and hashlib.sha256(body).digest() == made.digest
    return body if whole else None
