"""Bodies and answers about what proofs of gateways are held against."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cloud.http.types import Answer, Body, Identity

# base64url of at most 12 KiB: a certificate, or a manifest.
FileText = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_-]*$", min_length=1, max_length=16_384)]


class TrustBody(Body, frozen=True, kw_only=True):
    """A file that proofs are to be held against: a maker's root, or an image's manifest."""

    draft_id: Identity
    kind: Literal["maker", "image"]
    file: FileText


class TrustAnswer(Answer, frozen=True, kw_only=True):
    """A file and what became of it; compare `sha256` with what its publisher says.

    It is of the manifest as it came, and of a root's certificate in DER.
    """

    draft_id: Identity
    kind: Literal["maker", "image"]
    name: str
    sha256: Identity
    state: Literal["draft", "approved", "rejected", "withdrawn"]


class TrustsAnswer(Answer, frozen=True, kw_only=True):
    """Drafts that wait and what is in force, the newest first."""

    drafts: list[TrustAnswer]
