"""What proofs are held against, under four eyes: one officer drafts a file, another approves it.

Makers' roots and images' manifests are files that others publish. Whoever approves compares the
file's hash with what the publisher says. PostgreSQL holds the rule of four eyes as well.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping

from cloud.attestation.checks import Images
from cloud.attestation.makers import read_root
from cloud.attestation.manifests import Manifest, floors_of, read_manifest
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.officers import Officer, Role


class TrustKind(enum.StrEnum):
    """What a file is."""

    MAKER = "maker"
    IMAGE = "image"


class TrustState(enum.StrEnum):
    """A draft is decided once; what was approved may be withdrawn."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


class TrustDraft(Draft, frozen=True, kw_only=True):
    """A file and what became of it. `content` is a root in DER, or a manifest as it came."""

    draft_id: bytes
    kind: TrustKind
    name: str
    content: bytes
    state: TrustState

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def subject(self) -> str:
        """The draft's identity."""
        return self.draft_id.hex()

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """What file it is."""
        return {"kind": self.kind.value, "name": self.name, "sha256": self.digest}


_DRAFTS = Drafts(
    TrustDraft,
    table="trust_draft",
    role=Role.POLICY,
    action="trust",
    approved=TrustState.APPROVED,
)


async def draft_trust(
    connection: Connection,
    *,
    draft_id: bytes,
    kind: TrustKind,
    file: bytes,
    officer: Officer,
    now_ms: int,
) -> TrustDraft:
    """Store the draft, or answer the one that is there.

    Raises: IssuerError `role-missing`, `maker-invalid`, `manifest-invalid`, `draft-conflict`,
    `draft-invalid`.
    """
    officer.require(Role.POLICY)
    name, content = _read(kind, file)
    said = {"kind": kind.value, "name": name, "content": content}
    return await _DRAFTS.propose(connection, draft_id, said, officer=officer, now_ms=now_ms)


async def approve_trust(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> TrustDraft:
    """Let proofs be held against it. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `draft-expired`.
    """
    draft, again = await _DRAFTS.take(connection, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return draft
    return await _DRAFTS.approve(connection, draft, officer=officer, now_ms=now_ms)


async def reject_trust(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> TrustDraft:
    """Decide against the draft. Raises: as `approve_trust`."""
    return await _DRAFTS.reject(connection, draft_id, officer=officer, now_ms=now_ms)


async def withdraw_trust(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> TrustDraft:
    """Hold nothing against it any more, by one officer: fewer proofs pass, never more.

    Gateways that run a withdrawn image are suspended at their next report.
    Raises: IssuerError `role-missing`, `draft-unknown`, `draft-undecided`.
    """
    officer.require(Role.POLICY)
    draft = await _DRAFTS.find(connection, draft_id)
    if draft.state is TrustState.WITHDRAWN:
        return draft
    if draft.state is not TrustState.APPROVED:
        raise IssuerError("draft-undecided", f"the draft is {draft.state.value}")
    await connection.execute(
        "UPDATE trust_draft SET state = 'withdrawn', withdrawn_by = $2, withdrawn_ms = $3"
        " WHERE draft_id = $1",
        *(draft_id, officer.officer_id, now_ms),
    )
    await audit.record(
        connection,
        actor=officer.name,
        action="trust.withdraw",
        subject=draft.subject,
        detail=draft.detail,
        now_ms=now_ms,
    )
    return await _DRAFTS.find(connection, draft_id)


async def list_trust(connection: Connection, *, limit: int = 500) -> list[TrustDraft]:
    """Drafts that wait and what is in force, the newest first."""
    return await _DRAFTS.newest(connection, "state IN ('draft', 'approved')", limit=limit)


async def maker_roots(connection: Connection) -> list[bytes]:
    """Roots in force, DER."""
    return await _in_force(connection, TrustKind.MAKER)


async def image_manifests(connection: Connection) -> list[Manifest]:
    """Manifests in force."""
    return [read_manifest(content) for content in await _in_force(connection, TrustKind.IMAGE)]


async def images_of(connection: Connection) -> Images:
    """What quotes of registers are held against."""
    return Images(
        manifests=await image_manifests(connection), floors=await image_floors(connection)
    )


async def image_floors(connection: Connection) -> dict[tuple[str, str], int]:
    """The lowest security versions that were ever approved: who withdraws a file lowers none."""
    rows = await connection.fetch(
        "SELECT content FROM trust_draft"
        " WHERE kind = 'image' AND state IN ('approved', 'withdrawn')"
    )
    return floors_of(read_manifest(row["content"]) for row in rows)


async def _in_force(connection: Connection, kind: TrustKind) -> list[bytes]:
    rows = await connection.fetch(
        "SELECT content FROM trust_draft WHERE kind = $1 AND state = 'approved'"
        " ORDER BY drafted_ms, draft_id",
        kind.value,
    )
    return [row["content"] for row in rows]


def _read(kind: TrustKind, file: bytes) -> tuple[str, bytes]:
    if kind is TrustKind.MAKER:
        return read_root(file)
    return read_manifest(file).name, file
