"""Claims that officers refuse: one proposes it with a reason, another one decides.

A refused claim does not count in the sum, and drafts of the statement from before are stale. Its
entry and receipt stay. A note that came in elsewhere already is paid for by the issuer: whoever
redeemed it kept to the policy.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.officers import Officer, Role
from cloud.recovery.claims import CLAIMED, place_of
from cloud.recovery.closures import Closure, ClosureState, find_closure
from cloud.shards.homes import Site


class RefusalState(enum.StrEnum):
    """A draft is decided once: approved or rejected."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class ClaimRefusal(Draft, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: bytes
    closure_id: bytes
    leaf: bytes
    reason: str
    state: RefusalState

    @property
    def subject(self) -> str:
        """The claim."""
        return self.leaf.hex()

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """Why it is refused, and of which closure it is."""
        return {"closure": self.closure_id.hex(), "reason": self.reason}


_DRAFTS = Drafts(
    ClaimRefusal,
    table="claim_refusal",
    role=Role.RECOVERY,
    action="claim-refusal",
    approved=RefusalState.APPROVED,
)


async def draft_refusal(
    site: Site,
    *,
    draft_id: bytes,
    closure_id: bytes,
    leaf: bytes,
    reason: str,
    officer: Officer,
    now_ms: int,
) -> ClaimRefusal:
    """Propose to refuse a claim, or answer the draft that is there.

    `site`: of the closure's journal.
    Raises: IssuerError `role-missing`, `closure-unknown`, `closure-open`, `claim-unknown`,
    `closure-stated`, `draft-conflict`, `draft-invalid`.
    """
    officer.require(Role.RECOVERY)
    closure = await find_closure(site.head, closure_id)
    if await _DRAFTS.known(site.head, draft_id) is None:
        await _require_claimed(site.home, closure, leaf)
    said = {"closure_id": closure_id, "leaf": leaf, "reason": reason}
    return await _DRAFTS.propose(site.head, draft_id, said, officer=officer, now_ms=now_ms)


async def approve_refusal(
    site: Site, draft_id: bytes, *, officer: Officer, now_ms: int
) -> ClaimRefusal:
    """Refuse the claim. Approving one's own approval again changes nothing.

    `site`: of the closure's journal.
    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `draft-expired`, `closure-stated`, `claim-unknown` where its journal has told of it since.
    """
    draft, again = await _DRAFTS.take(site.head, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return draft
    closure = await find_closure(site.head, draft.closure_id)
    await _require_claimed(site.home, closure, draft.leaf)
    return await _DRAFTS.approve(site.head, draft, officer=officer, now_ms=now_ms)


async def reject_refusal(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> ClaimRefusal:
    """Decide against the draft: the claim is judged as any. Raises: as `approve_refusal`."""
    return await _DRAFTS.reject(connection, draft_id, officer=officer, now_ms=now_ms)


async def list_refusals(
    connection: Connection, closure_id: bytes, *, first: int
) -> list[ClaimRefusal]:
    """A page of the drafts of a closure and what became of them, the newest first."""
    return await _DRAFTS.newest(connection, "closure_id = $1", closure_id, first=first)


async def closure_of(connection: Connection, draft_id: bytes) -> bytes:
    """The closure that a draft is of. Raises: IssuerError `draft-unknown`."""
    return (await _DRAFTS.find(connection, draft_id)).closure_id


async def refused_in(connection: Connection, closure_id: bytes) -> set[bytes]:
    """Leaves of the claims that are refused."""
    rows = await connection.fetch(
        "SELECT leaf FROM claim_refusal WHERE closure_id = $1 AND state = 'approved'", closure_id
    )
    return {row["leaf"] for row in rows}


async def _require_claimed(connection: Connection, closure: Closure, leaf: bytes) -> None:
    if closure.state is not ClosureState.CLOSED:
        raise IssuerError("closure-open", f"the closure is {closure.state.value}")
    row = await connection.fetchrow(
        "SELECT epoch_id, journal, epoch, size, applied, stated_ms FROM journal_epoch"
        " WHERE journal = $1 AND epoch = $2 FOR UPDATE",
        *(closure.journal, closure.epoch),
    )
    if row["stated_ms"] is not None:
        raise IssuerError("closure-stated", "the epoch has its statement")
    found = await connection.fetchval(
        f"{CLAIMED} SELECT EXISTS (SELECT FROM claimed WHERE leaf = $6)", *place_of(row), leaf
    )
    if not found:
        raise IssuerError("claim-unknown", "nobody claims this entry")
