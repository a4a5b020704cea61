"""What proofs are held against, under four eyes: one officer drafts a file, another approves it.

Makers' roots and images' manifests are files that others publish. Whoever approves compares the
file's hash with what the publisher says. PostgreSQL holds the rule of four eyes as well.
"""

from __future__ import annotations

import enum
import hashlib

import msgspec

from cloud.attestation.checks import Images
from cloud.attestation.makers import read_root
from cloud.attestation.manifests import Manifest, floors_of, read_manifest
from cloud.database import Connection, constraints_as
from cloud.errors import IssuerError
from cloud.issuer import audit
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


class TrustDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A file and what became of it. `content` is a root in DER, or a manifest as it came."""

    draft_id: bytes
    kind: TrustKind
    name: str
    content: bytes
    state: TrustState
    drafted_by: int
    decided_by: int | None

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return hashlib.sha256(self.content).hexdigest()


_COLUMNS = ", ".join(TrustDraft.__struct_fields__)


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
    with constraints_as(IssuerError, "draft-invalid"):
        made = await connection.fetchval(
            "INSERT INTO trust_draft (draft_id, kind, name, content, drafted_by, drafted_ms)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (draft_id) DO NOTHING RETURNING true",
            *(draft_id, kind.value, name, content, officer.officer_id, now_ms),
        )
    draft = await _draft_of(connection, draft_id)
    if (draft.kind, draft.content, draft.drafted_by) != (kind, content, officer.officer_id):
        raise IssuerError("draft-conflict", "the identity names another draft")
    if made:
        await _audit(connection, "trust.draft", draft, officer=officer, now_ms=now_ms)
    return draft


async def approve_trust(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> TrustDraft:
    """Let proofs be held against it. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`.
    """
    return await _decide(
        connection, draft_id, TrustState.APPROVED, "trust.approve", officer, now_ms=now_ms
    )


async def reject_trust(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> TrustDraft:
    """Decide against the draft. Raises: as `approve_trust`."""
    return await _decide(
        connection, draft_id, TrustState.REJECTED, "trust.reject", officer, now_ms=now_ms
    )


async def withdraw_trust(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> TrustDraft:
    """Hold nothing against it any more, by one officer: fewer proofs pass, never more.

    Gateways that run a withdrawn image are suspended at their next report.
    Raises: IssuerError `role-missing`, `draft-unknown`, `draft-undecided`.
    """
    officer.require(Role.POLICY)
    draft = await _draft_of(connection, draft_id)
    if draft.state is TrustState.WITHDRAWN:
        return draft
    if draft.state is not TrustState.APPROVED:
        raise IssuerError("draft-undecided", f"the draft is {draft.state.value}")
    await connection.execute(
        "UPDATE trust_draft SET state = 'withdrawn', withdrawn_by = $2, withdrawn_ms = $3"
        " WHERE draft_id = $1",
        *(draft_id, officer.officer_id, now_ms),
    )
    await _audit(connection, "trust.withdraw", draft, officer=officer, now_ms=now_ms)
    return await _draft_of(connection, draft_id)


async def list_trust(connection: Connection, *, limit: int = 500) -> list[TrustDraft]:
    """Drafts that wait and what is in force, the newest first."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM trust_draft WHERE state IN ('draft', 'approved')"
        " ORDER BY drafted_ms DESC, draft_id LIMIT $1",
        limit,
    )
    return [msgspec.convert(dict(row), TrustDraft) for row in rows]


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


async def _decide(
    connection: Connection,
    draft_id: bytes,
    state: TrustState,
    action: str,
    officer: Officer,
    *,
    now_ms: int,
) -> TrustDraft:
    officer.require(Role.POLICY)
    draft = await _draft_of(connection, draft_id)
    if draft.drafted_by == officer.officer_id:
        raise IssuerError("four-eyes", "another officer has to decide")
    if draft.state is not TrustState.DRAFT:
        if (draft.state, draft.decided_by) == (state, officer.officer_id):
            return draft
        raise IssuerError("draft-decided", f"the draft is {draft.state.value}")
    await connection.execute(
        "UPDATE trust_draft SET state = $2, decided_by = $3, decided_ms = $4 WHERE draft_id = $1",
        *(draft_id, state.value, officer.officer_id, now_ms),
    )
    await _audit(connection, action, draft, officer=officer, now_ms=now_ms)
    return await _draft_of(connection, draft_id)


async def _draft_of(connection: Connection, draft_id: bytes) -> TrustDraft:
    """The draft, locked for this transaction. Raises: IssuerError `draft-unknown`."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM trust_draft WHERE draft_id = $1 FOR UPDATE", draft_id
    )
    if row is None:
        raise IssuerError("draft-unknown")
    return msgspec.convert(dict(row), TrustDraft)


async def _audit(
    connection: Connection, action: str, draft: TrustDraft, *, officer: Officer, now_ms: int
) -> None:
    await audit.record(
        connection,
        actor=officer.name,
        action=action,
        subject=draft.draft_id.hex(),
        detail={"kind": draft.kind.value, "name": draft.name, "sha256": draft.digest},
        now_ms=now_ms,
    )
