"""The chain of a gateway's audit log, for those who write it and those whom it is told to."""

from __future__ import annotations

import hashlib

import msgspec

GENESIS = bytes(32)


class AuditHead(msgspec.Struct, frozen=True, order=True):
    """A place in the log: its last row's number and hash, or 0 and zeros."""

    seq: int = 0
    hash: bytes = GENESIS

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash.hex()}"


def next_head(place: AuditHead, *, time_ms: int, action: str, details: bytes) -> AuditHead:
    """The place after one more row.

    Its hash is SHA-256 over the hash before it, number and time (8 bytes each), and both texts,
    each after its length (4 bytes).
    """
    seq = place.seq + 1
    digest = hashlib.sha256(place.hash)
    digest.update(seq.to_bytes(8, "big") + time_ms.to_bytes(8, "big"))
    for text in (action.encode(), details):
        digest.update(len(text).to_bytes(4, "big") + text)
    return AuditHead(seq, digest.digest())
