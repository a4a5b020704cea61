"""Drafts of policies: one officer writes the next policy, another one has it signed."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from cloud.database import Connection, constraints_as
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.desk import Desk
from cloud.issuer.officers import Officer, Role
from cloud.issuer.policies import WINDOWS, check_limits, next_policy, policy_in_force


class PolicyState(enum.StrEnum):
    """A draft is decided once: signed or rejected."""

    DRAFT = "draft"
    SIGNED = "signed"
    REJECTED = "rejected"


class PolicyContent(msgspec.Struct, frozen=True, kw_only=True):
    """Limits by their codes: by tier, and of the whole journal."""

    tiers: dict[int, dict[int, int]]
    journal: dict[int, int]


class PolicyDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A draft and what became of it; `sequence` is the policy's, once it is signed."""

    draft_id: bytes
    currency: str
    content: PolicyContent
    state: PolicyState
    drafted_by: int
    decided_by: int | None
    sequence: int | None


_COLUMNS = "draft_id, currency, content, state, drafted_by, decided_by, sequence"


async def draft_policy(
    connection: Connection,
    *,
    draft_id: bytes,
    currency: str,
    content: PolicyContent,
    officer: Officer,
    now_ms: int,
) -> PolicyDraft:
    """Store the draft, or answer the one that is there.

    Raises: IssuerError `role-missing`, `limit-unknown`, `draft-conflict`, `draft-invalid`.
    """
    officer.require(Role.POLICY)
    check_limits(content.tiers, content.journal)
    with constraints_as(IssuerError, "draft-invalid"):
        made = await connection.fetchval(
            "INSERT INTO policy_draft (draft_id, currency, content, valid_days, drafted_by,"
            " drafted_ms) VALUES ($1, $2, $3, 365, $4, $5)"
            " ON CONFLICT (draft_id) DO NOTHING RETURNING true",
            *(draft_id, currency, msgspec.json.encode(content).decode()),
            *(officer.officer_id, now_ms),
        )
    draft = await find_draft(connection, draft_id)
    asked = (currency, content, officer.officer_id)
    if (draft.currency, draft.content, draft.drafted_by) != asked:
        raise IssuerError("draft-conflict", "the identity names another draft")
    if made:
        await _audit(connection, "policy.draft", draft, officer=officer, now_ms=now_ms)
    return draft


async def draft_window(
    connection: Connection,
    *,
    draft_id: bytes,
    currency: str,
    window: str,
    officer: Officer,
    now_ms: int,
) -> PolicyDraft:
    """Draft the policy in force with another window of the counter, one of WINDOWS.

    Raises: as `draft_policy`, and IssuerError `policy-unknown`.
    """
    policy = await policy_in_force(connection, currency)
    tiers = {int(tier): _plain(limits) for tier, limits in policy.tiers.items()}
    content = PolicyContent(tiers=tiers, journal=_plain({**policy.journal, **WINDOWS[window]}))
    return await draft_policy(
        connection,
        draft_id=draft_id,
        currency=currency,
        content=content,
        officer=officer,
        now_ms=now_ms,
    )


def _plain(limits: Mapping[int, int]) -> dict[int, int]:
    return {int(code): int(value) for code, value in limits.items()}


async def approve_policy(
    connection: Connection, desk: Desk, draft_id: bytes, *, officer: Officer, now_ms: int
) -> PolicyDraft:
    """Sign the draft as the next policy. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `policy-unknown`.
    """
    draft = await _to_decide(connection, draft_id, PolicyState.SIGNED, officer)
    if draft.state is PolicyState.SIGNED:
        return draft
    sequence = await next_policy(
        connection,
        desk,
        draft.currency,
        tiers=draft.content.tiers,
        journal=draft.content.journal,
        actor=officer.name,
        now_ms=now_ms,
    )
    return await _decide(
        connection, draft_id, PolicyState.SIGNED, sequence, officer=officer, now_ms=now_ms
    )


async def reject_policy(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> PolicyDraft:
    """Decide against the draft. Raises: as `approve_policy`."""
    draft = await _to_decide(connection, draft_id, PolicyState.REJECTED, officer)
    if draft.state is PolicyState.REJECTED:
        return draft
    decided = await _decide(
        connection, draft_id, PolicyState.REJECTED, None, officer=officer, now_ms=now_ms
    )
    await _audit(connection, "policy.reject", decided, officer=officer, now_ms=now_ms)
    return decided


async def find_draft(connection: Connection, draft_id: bytes) -> PolicyDraft:
    """The draft, locked for this transaction. Raises: IssuerError `draft-unknown`."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM policy_draft WHERE draft_id = $1 FOR UPDATE", draft_id
    )
    if row is None:
        raise IssuerError("draft-unknown")
    return _draft(row)


async def list_drafts(connection: Connection, *, limit: int = 100) -> list[PolicyDraft]:
    """Drafts, the newest first."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM policy_draft ORDER BY drafted_ms DESC LIMIT $1", limit
    )
    return [_draft(row) for row in rows]


async def _to_decide(
    connection: Connection, draft_id: bytes, state: PolicyState, officer: Officer
) -> PolicyDraft:
    """The draft, undecided, or decided the same by the same officer before."""
    officer.require(Role.POLICY)
    draft = await find_draft(connection, draft_id)
    if draft.drafted_by == officer.officer_id:
        raise IssuerError("four-eyes", "another officer has to decide")
    again = (draft.state, draft.decided_by) == (state, officer.officer_id)
    if draft.state is not PolicyState.DRAFT and not again:
        raise IssuerError("draft-decided", f"the draft is {draft.state.value}")
    return draft


async def _decide(
    connection: Connection,
    draft_id: bytes,
    state: PolicyState,
    sequence: int | None,
    *,
    officer: Officer,
    now_ms: int,
) -> PolicyDraft:
    row = await connection.fetchrow(
        "UPDATE policy_draft SET state = $2, sequence = $3, decided_by = $4, decided_ms = $5"
        f" WHERE draft_id = $1 RETURNING {_COLUMNS}",
        *(draft_id, state.value, sequence, officer.officer_id, now_ms),
    )
    return _draft(row)


async def _audit(
    connection: Connection, action: str, draft: PolicyDraft, *, officer: Officer, now_ms: int
) -> None:
    await audit.record(
        connection,
        actor=officer.name,
        action=action,
        subject=draft.draft_id.hex(),
        detail={"currency": draft.currency},
        now_ms=now_ms,
    )


def _draft(row: Any) -> PolicyDraft:
    content = msgspec.json.decode(row["content"], type=PolicyContent)
    return PolicyDraft(
        **{
            **dict(row),
            "content": content,
            "state": PolicyState(row["state"]),
        }
    )
