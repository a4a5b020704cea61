"""Drafts of policies: one officer writes the next policy, another one has it signed."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.issuer.desk import Desk
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.officers import Officer, Role
from cloud.issuer.policies import (
    WINDOWS,
    check_limits,
    check_window,
    next_policy,
    policy_in_force,
)


class PolicyState(enum.StrEnum):
    """A draft is decided once: signed or rejected."""

    DRAFT = "draft"
    SIGNED = "signed"
    REJECTED = "rejected"


class PolicyContent(msgspec.Struct, frozen=True, kw_only=True):
    """Limits by their codes: by tier, and of the whole journal."""

    tiers: dict[int, dict[int, int]]
    journal: dict[int, int]


class PolicyDraft(Draft, frozen=True, kw_only=True):
    """A draft and what became of it; `sequence` is the policy's, once it is signed."""

    draft_id: bytes
    currency: str
    content: PolicyContent
    state: PolicyState
    sequence: int | None

    @property
    def subject(self) -> str:
        """The draft's identity."""
        return self.draft_id.hex()

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """Whose policy it is."""
        return {"currency": self.currency}


def _read(row: Any) -> PolicyDraft:
    content = msgspec.json.decode(row["content"], type=PolicyContent)
    return msgspec.convert({**dict(row), "content": content}, PolicyDraft)


_DRAFTS = Drafts(
    PolicyDraft,
    table="policy_draft",
    role=Role.POLICY,
    action="policy",
    approved=PolicyState.SIGNED,
    read=_read,
)
VALID_DAYS = 365


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

    Raises: IssuerError `role-missing`, `limit-unknown`, `claims-window-short`, `draft-conflict`,
    `draft-invalid`.
    """
    officer.require(Role.POLICY)
    check_limits(content.tiers, content.journal)
    check_window(content.journal)
    said = {
        "currency": currency,
        "content": msgspec.json.encode(_ordered(content)).decode(),
        "valid_days": VALID_DAYS,
    }
    return await _DRAFTS.propose(connection, draft_id, said, officer=officer, now_ms=now_ms)


def _ordered(content: PolicyContent) -> PolicyContent:
    """The same limits in the order of their codes, so that the same content is the same text."""
    tiers = {tier: dict(sorted(limits.items())) for tier, limits in sorted(content.tiers.items())}
    return PolicyContent(tiers=tiers, journal=dict(sorted(content.journal.items())))


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
    `draft-expired`, `policy-unknown`, `claims-window-short`.
    """
    draft, again = await _DRAFTS.take(connection, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return draft
    check_window(draft.content.journal)
    sequence = await next_policy(
        connection,
        desk,
        draft.currency,
        tiers=draft.content.tiers,
        journal=draft.content.journal,
        actor=officer.name,
        now_ms=now_ms,
    )
    # That a policy was signed is in the audit log by itself.
    return await _DRAFTS.approve(
        connection,
        draft,
        officer=officer,
        now_ms=now_ms,
        more={"sequence": sequence},
        recorded=False,
    )


async def reject_policy(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> PolicyDraft:
    """Decide against the draft. Raises: as `approve_policy`."""
    return await _DRAFTS.reject(connection, draft_id, officer=officer, now_ms=now_ms)


async def list_drafts(connection: Connection) -> list[PolicyDraft]:
    """Drafts, the newest first."""
    return await _DRAFTS.newest(connection)
