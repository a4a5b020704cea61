"""Identities of transfers: 32 bytes that make the same event the same transfer, every time."""

from __future__ import annotations

import hashlib

IDENTITY_BYTES = 32
_JOURNAL_BYTES = 20
_EPOCH_BYTES = 4
_INDEX_BYTES = 8


def of_entry(journal: bytes, *, epoch: int, index: int) -> bytes:
    """The identity of what an entry of a journal moves: journal, epoch, index.

    Neighbours in a journal are neighbours in PostgreSQL's index, which makes posting a quarter
    cheaper than random identities do; and another entry under a known index is a conflict.
    Raises: OverflowError for an epoch from 2^32 or an index from 2^64 on.
    """
    if len(journal) != _JOURNAL_BYTES:
        raise ValueError("a journal's identifier has 20 bytes")
    return journal + epoch.to_bytes(_EPOCH_BYTES, "big") + index.to_bytes(_INDEX_BYTES, "big")


def derived(purpose: str, *parts: bytes) -> bytes:
    """The identity of an event that follows from others; `purpose` separates kinds of events."""
    digest = hashlib.sha256()
    for part in (purpose.encode(), *parts):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
