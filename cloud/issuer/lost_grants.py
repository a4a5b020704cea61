"""Lost grants are closed: one officer says where the value comes from, another one decides.

An issuer that was restored from an older backup finds grants in journals that it forgot (ADR 6).
Their value is in the journal, and the online wallet that paid has it once more: as much is missing
in the journal's suspense account. It is taken out of that wallet, and what cannot be had there is
the issuer's loss. Supply never changes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer.drafts import Draft, Drafts
from cloud.issuer.officers import Officer, Role
from cloud.ledger.accounts import ensure_accounts, loss, suspense
from cloud.ledger.identities import derived
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.reconciler.outbox import tell
from cloud.wallets import find_wallet
from wallet.protocol.ids import journal_text

PAGE_MAX = 200


class LostGrant(msgspec.Struct, frozen=True, kw_only=True):
    """A grant that nobody remembered, and whether it is closed."""

    journal: bytes
    epoch: int
    sequence: int
    offline_wallet: bytes
    amount: int
    currency: str
    found_ms: int
    is_closed: bool


class ClosingState(enum.StrEnum):
    """A draft is decided once: approved or rejected."""

    DRAFT = "draft"
    APPROVED = "approved"
    REJECTED = "rejected"


class GrantClosing(Draft, frozen=True, kw_only=True):
    """A draft and what became of it: `taken` comes out of `wallet`, the issuer bears the rest."""

    draft_id: bytes
    journal: bytes
    epoch: int
    sequence: int
    wallet: str | None
    taken: int
    reason: str
    state: ClosingState

    @property
    def subject(self) -> str:
        """The grant: journal, epoch and sequence."""
        return f"{journal_text(self.journal)} {self.epoch} {self.sequence}"

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """Where the value comes from."""
        return {"wallet": self.wallet or "", "taken": self.taken, "reason": self.reason}


_DRAFTS = Drafts(
    GrantClosing,
    table="lost_grant_closing",
    role=Role.RECOVERY,
    action="lost-grant",
    approved=ClosingState.APPROVED,
)
_LOST = (
    "SELECT journal, epoch, sequence, offline_wallet, amount, currency, found_ms, EXISTS (SELECT"
    "  FROM lost_grant_closing AS closing WHERE closing.state = 'approved'"
    "  AND (closing.journal, closing.epoch, closing.sequence)"
    "   = (lost.journal, lost.epoch, lost.sequence)) AS is_closed FROM lost_grant AS lost"
)


async def list_lost_grants(connection: Connection, *, first: int) -> list[LostGrant]:
    """A page of lost grants, those that are not closed first, from the place `first` on."""
    rows = await connection.fetch(
        f"{_LOST} ORDER BY is_closed, found_ms, journal, epoch, sequence OFFSET $1 LIMIT $2",
        *(first, PAGE_MAX),
    )
    return [_lost(row) for row in rows]


async def draft_closing(
    connection: Connection,
    *,
    draft_id: bytes,
    journal: bytes,
    epoch: int,
    sequence: int,
    wallet: str | None,
    taken: int,
    reason: str,
    officer: Officer,
    now_ms: int,
) -> GrantClosing:
    """Say where the value comes from, or answer the draft that is there.

    Raises: IssuerError `role-missing`, `grant-unknown`, `closing-invalid` (more than the grant, or
    a wallet without an amount, or of another currency), `draft-conflict`; WalletError
    `unknown-wallet`.
    """
    officer.require(Role.RECOVERY)
    grant = await _find(connection, journal, epoch, sequence)
    if taken > grant.amount or (wallet is None) != (taken == 0):
        raise IssuerError("closing-invalid", f"1 to {grant.amount} out of a wallet, or neither")
    said = {
        "journal": journal,
        "epoch": epoch,
        "sequence": sequence,
        "wallet": wallet,
        "taken": taken,
        "reason": reason,
    }
    if wallet is not None:
        await _source(connection, wallet, grant)
    return await _DRAFTS.propose(connection, draft_id, said, officer=officer, now_ms=now_ms)


async def approve_closing(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> GrantClosing:
    """Close the lost grant. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `draft-expired`, `grant-closed-already`; LedgerError `insufficient-funds` where the wallet has
    not that much.
    """
    draft, again = await _DRAFTS.take(connection, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return draft
    grant = await _find(connection, draft.journal, draft.epoch, draft.sequence)
    if grant.is_closed:
        raise IssuerError("grant-closed-already", draft.subject)
    await _post(connection, draft, grant, now_ms=now_ms)
    body = {"journal": journal_text(draft.journal), "epoch": draft.epoch}
    await tell(connection, "grant.closed", {**body, "sequence": draft.sequence}, now_ms=now_ms)
    return await _DRAFTS.approve(connection, draft, officer=officer, now_ms=now_ms)


async def reject_closing(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> GrantClosing:
    """Decide against the draft. Raises: as `approve_closing`."""
    return await _DRAFTS.reject(connection, draft_id, officer=officer, now_ms=now_ms)


async def list_closings(connection: Connection, *, first: int) -> list[GrantClosing]:
    """A page of the drafts that wait, the newest first."""
    return await _DRAFTS.newest(connection, "state = 'draft'", first=first)


async def _find(connection: Connection, journal: bytes, epoch: int, sequence: int) -> LostGrant:
    """The lost grant; whoever closes it is alone with it until the transaction ends."""
    await connection.execute(
        "SELECT FROM lost_grant WHERE journal = $1 AND epoch = $2 AND sequence = $3 FOR UPDATE",
        *(journal, epoch, sequence),
    )
    row = await connection.fetchrow(
        f"{_LOST} WHERE journal = $1 AND epoch = $2 AND sequence = $3", journal, epoch, sequence
    )
    if row is None:
        raise IssuerError("grant-unknown", "no lost grant of this journal, epoch and sequence")
    return _lost(row)


async def _source(connection: Connection, wallet: str, grant: LostGrant) -> int:
    """The account of the wallet that pays."""
    found = await find_wallet(connection, wallet)
    if found.currency != grant.currency:
        raise IssuerError("closing-invalid", f"{wallet} holds {found.currency}")
    return found.account_id


async def _post(
    connection: Connection, draft: GrantClosing, grant: LostGrant, *, now_ms: int
) -> None:
    missing = suspense(journal_text(grant.journal), currency=grant.currency)
    bearing = loss(grant.currency)
    numbers = await ensure_accounts(connection, [missing, bearing])
    parts = [(numbers[bearing.name], grant.amount - draft.taken, TransferKind.COMPENSATION)]
    if draft.wallet is not None:
        source = await _source(connection, draft.wallet, grant)
        parts.append((source, draft.taken, TransferKind.GRANT_FOUND))
    await post(
        connection,
        [
            Transfer(
                identity=derived(f"lost-grant-{kind.name}", draft.draft_id),
                debit=debit,
                credit=numbers[missing.name],
                amount=amount,
                currency=grant.currency,
                kind=kind,
                created_ms=now_ms,
                reference=draft.reason,
            )
            for debit, amount, kind in parts
            if amount
        ],
    )


def _lost(row: Any) -> LostGrant:
    return msgspec.convert(dict(row), LostGrant)
