"""Bodies and answers about what proofs of gateways are held against, and how gateways stand."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cloud.http.types import Answer, Body, Identity

# base64url of at most 12 KiB: a certificate, or a manifest.
SERIALS_MAX = 500
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


class RevocationBody(Body, frozen=True, kw_only=True):
    """Certificates of one issuer of a maker: its name in DER, and serials; both in hex."""

    issuer: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2}){2,1024}$", max_length=2048)]
    serials: Annotated[
        list[Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2}){1,21}$", max_length=42)]],
        msgspec.Meta(min_length=1, max_length=SERIALS_MAX),
    ]


class RevokedAnswer(Answer, frozen=True, kw_only=True):
    """How many were not revoked before."""

    revoked: int


class RevocationAnswer(Answer, frozen=True, kw_only=True):
    """A certificate that nobody enrols with any more; both in hex."""

    issuer: str
    serial: str
    revoked_ms: int


class RevocationsAnswer(Answer, frozen=True, kw_only=True):
    """The newest five hundred."""

    revocations: list[RevocationAnswer]


class ExpectedAnswer(Answer, frozen=True, kw_only=True):
    """What a manifest told of: register numbers with values in hex."""

    image: str
    registers: dict[str, str]


class FindingAnswer(Answer, frozen=True, kw_only=True):
    """What a gateway was suspended for last.

    `found`: what stood beside its quote, by register. `expected`: what was approved then.
    """

    code: str
    found_ms: int
    found: dict[str, str]
    expected: list[ExpectedAnswer]


class AttestationAnswer(Answer, frozen=True, kw_only=True):
    """What a gateway is held to. Only `tpm` is proven: the other levels are an officer's word."""

    journal: str
    name: str
    level: Literal["tpm", "pkcs11", "software"]
    pcr_policy: str | None
    image: str | None
    checked_ms: int | None
    suspended: bool
    finding: FindingAnswer | None


class AttestationsAnswer(Answer, frozen=True, kw_only=True):
    """All gateways by name."""

    gateways: list[AttestationAnswer]


class LiftAnswer(Answer, frozen=True, kw_only=True):
    """A journal that may report again."""

    journal: str
    epoch: int
