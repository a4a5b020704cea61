"""Officers under four eyes: one administrator drafts how an officer is to be, another approves.

The officer makes the token and hands out its hash alone, so that no administrator ever holds the
token of a second person: whoever had it could be both pairs of eyes. PostgreSQL holds the rule of
four eyes as well (cloud/sql/0007_officers.sql).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.officers import Officer, Role, insert_officer

ADMINS_MIN = 2


class OfficerState(enum.StrEnum):
    """A draft is decided once: approved or rejected."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class OfficerOrder(msgspec.Struct, frozen=True, kw_only=True):
    """How an officer is to be: new, with other roles, with another token, or disabled for ever.

    `draft_id` (32 bytes) makes asking again the same draft. `token_hash`: SHA-256 of the token's
    secret; None where the token stays. A disabled officer has no roles.
    """

    draft_id: bytes
    name: str
    roles: frozenset[Role]
    token_hash: bytes | None = None
    disabled: bool = False


class OfficerDraft(Draft, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: bytes
    name: str
    roles: frozenset[Role]
    token_hash: bytes | None
    disabled: bool
    state: OfficerState

    @property
    def subject(self) -> str:
        """The officer."""
        return self.name

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """How the officer is to be."""
        token = "" if self.token_hash is None else self.token_hash.hex()
        return {
            "roles": sorted(self.roles),
            "token_hash": token,
            "disabled": int(self.disabled),
            "draft": self.draft_id.hex(),
        }


_DRAFTS = Drafts(
    OfficerDraft,
    table="officer_draft",
    role=Role.ADMIN,
    action="officer",
    approved=OfficerState.APPROVED,
)


async def draft_officer(
    connection: Connection, order: OfficerOrder, *, officer: Officer, now_ms: int
) -> OfficerDraft:
    """Store the draft, or answer the one that is there.

    Raises: IssuerError `role-missing`, `officer-token-missing` (of a new officer),
    `officer-unknown` (of one to disable), `draft-conflict` (the identity names another draft),
    `draft-invalid`.
    """
    officer.require(Role.ADMIN)
    known = await _find(connection, order.name)
    if order.disabled and known is None:
        raise IssuerError("officer-unknown", order.name)
    if order.token_hash is None and known is None:
        raise IssuerError("officer-token-missing", "a new officer brings the hash of a token")
    said = {
        "name": order.name,
        "roles": sorted(order.roles),
        "token_hash": order.token_hash,
        "disabled": order.disabled,
    }
    return await _DRAFTS.propose(connection, order.draft_id, said, officer=officer, now_ms=now_ms)


async def approve_officer(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> OfficerDraft:
    """Let the officer be as drafted. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `draft-expired`, `officer-disabled`, `token-known` (another officer's), `admins-too-few`.
    """
    draft, again = await _DRAFTS.take(connection, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return draft
    await _carry_out(connection, draft, now_ms=now_ms)
    return await _DRAFTS.approve(connection, draft, officer=officer, now_ms=now_ms)


async def reject_officer(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> OfficerDraft:
    """Decide against the draft. Raises: as `approve_officer`."""
    return await _DRAFTS.reject(connection, draft_id, officer=officer, now_ms=now_ms)


async def list_officer_drafts(connection: Connection) -> list[OfficerDraft]:
    """Drafts that wait, the newest first."""
    return await _DRAFTS.newest(connection, "state = 'draft'")


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
        elif draft.disabled:
            await connection.execute(
                "UPDATE officer SET disabled_ms = $2 WHERE officer_id = $1",
                *(known["officer_id"], now_ms),
            )
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
