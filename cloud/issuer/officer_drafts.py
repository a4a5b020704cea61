"""Officers under four eyes: one administrator drafts how an officer is to be, another approves.

The officer makes the token and hands out its hash alone, so that no administrator ever holds the
token of a second person: whoever had it could be both pairs of eyes. PostgreSQL holds the rule of
four eyes as well (cloud/sql/0007_officers.sql).
"""

from __future__ import annotations

import enum
from typing import Any

import asyncpg
import msgspec

from cloud.database import Connection, constraints_as
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.officers import Officer, Role, insert_officer

ADMINS_MIN = 2


class OfficerState(enum.StrEnum):
    """A draft is decided once: approved or rejected."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class OfficerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """How an officer is to be: new, with other roles, or with another token.

    `draft_id` (32 bytes) makes asking again the same draft. `token_hash`: SHA-256 of the token's
    secret; None where the token stays.
    """

    draft_id: bytes
    name: str
    roles: frozenset[Role]
    token_hash: bytes | None


class OfficerDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: bytes
    name: str
    roles: frozenset[Role]
    token_hash: bytes | None
    state: OfficerState
    drafted_by: int
    decided_by: int | None

    @property
    def order(self) -> OfficerOrder:
        """What was asked for."""
        values = {name: getattr(self, name) for name in OfficerOrder.__struct_fields__}
        return OfficerOrder(**values)


_COLUMNS = ", ".join(OfficerDraft.__struct_fields__)


async def draft_officer(
    connection: Connection, order: OfficerOrder, *, officer: Officer, now_ms: int
) -> OfficerDraft:
    """Store the draft, or answer the one that is there.

    Raises: IssuerError `role-missing`, `officer-token-missing` (of a new officer),
    `draft-conflict` (the identity names another draft), `draft-invalid`.
    """
    officer.require(Role.ADMIN)
    if order.token_hash is None and await _find(connection, order.name) is None:
        raise IssuerError("officer-token-missing", "a new officer brings the hash of a token")
    with constraints_as(IssuerError, "draft-invalid"):
        made = await connection.fetchval(
            "INSERT INTO officer_draft (draft_id, name, roles, token_hash, drafted_by, drafted_ms)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (draft_id) DO NOTHING RETURNING true",
            *(order.draft_id, order.name, sorted(order.roles), order.token_hash),
            *(officer.officer_id, now_ms),
        )
    draft = await _draft_of(connection, order.draft_id)
    if (draft.order, draft.drafted_by) != (order, officer.officer_id):
        raise IssuerError("draft-conflict", "the identity names another draft")
    if made:
        await _audit(connection, "officer.draft", draft, officer=officer, now_ms=now_ms)
    return draft


async def approve_officer(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> OfficerDraft:
    """Let the officer be as drafted. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `officer-disabled`, `token-known` (another officer's), `admins-too-few`.
    """
    draft, again = await _decide(
        connection, draft_id, OfficerState.APPROVED, officer=officer, now_ms=now_ms
    )
    if not again:
        await _carry_out(connection, draft, now_ms=now_ms)
        await _audit(connection, "officer.approve", draft, officer=officer, now_ms=now_ms)
    return draft


async def reject_officer(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> OfficerDraft:
    """Decide against the draft. Raises: as `approve_officer`."""
    draft, again = await _decide(
        connection, draft_id, OfficerState.REJECTED, officer=officer, now_ms=now_ms
    )
    if not again:
        await _audit(connection, "officer.reject", draft, officer=officer, now_ms=now_ms)
    return draft


async def list_officer_drafts(connection: Connection, *, limit: int = 200) -> list[OfficerDraft]:
    """Drafts that wait, the newest first."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM officer_draft WHERE state = 'draft'"
        " ORDER BY drafted_ms DESC LIMIT $1",
        limit,
    )
    return [_draft(row) for row in rows]


async def _decide(
    connection: Connection,
    draft_id: bytes,
    state: OfficerState,
    *,
    officer: Officer,
    now_ms: int,
) -> tuple[OfficerDraft, bool]:
    """The decided draft, and whether the same officer had decided the same before."""
    officer.require(Role.ADMIN)
    draft = await _draft_of(connection, draft_id)
    if draft.drafted_by == officer.officer_id:
        raise IssuerError("four-eyes", "another administrator has to decide")
    if draft.state is not OfficerState.DRAFT:
        if (draft.state, draft.decided_by) == (state, officer.officer_id):
            return draft, True
        raise IssuerError("draft-decided", f"the draft is {draft.state.value}")
    row = await connection.fetchrow(
        "UPDATE officer_draft SET state = $2, decided_by = $3, decided_ms = $4"
        f" WHERE draft_id = $1 RETURNING {_COLUMNS}",
        *(draft_id, state.value, officer.officer_id, now_ms),
    )
    return _draft(row), False


async def _carry_out(connection: Connection, draft: OfficerDraft, *, now_ms: int) -> None:
    # Two approvals at once must not leave fewer administrators than each of them counted.
    await connection.execute("LOCK TABLE officer IN SHARE ROW EXCLUSIVE MODE")
    known = await _find(connection, draft.name)
    try:
        if known is None:
            assert draft.token_hash is not None  # the draft of a new officer has one
            await insert_officer(
                connection,
                name=draft.name,
                roles=draft.roles,
                token_hash=draft.token_hash,
                now_ms=now_ms,
            )
        elif known["disabled_ms"] is not None:
            raise IssuerError("officer-disabled", draft.name)
        else:
            await connection.execute(
                "UPDATE officer SET roles = $2, token_hash = coalesce($3, token_hash)"
                " WHERE officer_id = $1",
                *(known["officer_id"], sorted(draft.roles), draft.token_hash),
            )
    except asyncpg.UniqueViolationError as error:
        raise IssuerError("token-known", "the token is another officer's") from error
    admins = await connection.fetchval(
        "SELECT count(*) FROM officer WHERE 'admin' = ANY (roles) AND disabled_ms IS NULL"
    )
    if admins < ADMINS_MIN:
        raise IssuerError("admins-too-few", "nobody could approve any more")


async def _find(connection: Connection, name: str) -> Any:
    return await connection.fetchrow(
        "SELECT officer_id, disabled_ms FROM officer WHERE name = $1", name
    )


async def _draft_of(connection: Connection, draft_id: bytes) -> OfficerDraft:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM officer_draft WHERE draft_id = $1 FOR UPDATE", draft_id
    )
    if row is None:
        raise IssuerError("draft-unknown")
    return _draft(row)


async def _audit(
    connection: Connection, action: str, draft: OfficerDraft, *, officer: Officer, now_ms: int
) -> None:
    token = "" if draft.token_hash is None else draft.token_hash.hex()
    await audit.record(
        connection,
        actor=officer.name,
        action=action,
        subject=draft.name,
        detail={"roles": sorted(draft.roles), "token_hash": token, "draft": draft.draft_id.hex()},
        now_ms=now_ms,
    )


def _draft(row: Any) -> OfficerDraft:
    return msgspec.convert(dict(row), OfficerDraft)
