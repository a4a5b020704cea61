"""Answers about evidence."""

from __future__ import annotations

from typing import Annotated

import msgspec

from cloud.http.types import Answer, Count, Identity

Journal = Annotated[str, msgspec.Meta(max_length=100)]
# A piece of a proof: base64url of half a mebibyte.
Piece = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$", max_length=700_000)]


class EvidenceAnswer(Answer, frozen=True, kw_only=True):
    """One piece of evidence. `state`: that of the journal's epoch now."""

    evidence_id: Count
    journal: Journal
    epoch: Count
    state: str
    kind: str
    code: str
    index: Count | None
    found_ms: Count


class EvidencesAnswer(Answer, frozen=True, kw_only=True):
    """A page, the oldest first. `next`: what to ask for `after`; null on the last page."""

    evidence: list[EvidenceAnswer]
    next: Count | None


class ProofAnswer(Answer, frozen=True, kw_only=True):
    """What a third party can check: `finding` says it in a sentence. `size` in bytes."""

    evidence: EvidenceAnswer
    kind: str
    code: str
    finding: str
    size: Count
    sha256: Identity


class PieceAnswer(Answer, frozen=True, kw_only=True):
    """A part of the proof from `offset` on; the last one ends at the proof's size."""

    offset: Count
    data: Piece


class ClockAnswer(Answer, frozen=True, kw_only=True):
    """The entry of an epoch that was furthest ahead of the issuer's clock when it came."""

    journal: Journal
    epoch: Count
    index: Count
    entry_ms: Count
    received_ms: Count


class ClocksAnswer(Answer, frozen=True, kw_only=True):
    """Such entries, from the place `first` of the query on; none at the end."""

    clocks: list[ClockAnswer]
