"""Issue and burn: one officer drafts, another one approves, and only then the ledger moves.

PostgreSQL holds the rule of four eyes as well (cloud/sql/0002_issuer.sql).
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from cloud.database import Connection, constraints_as
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.officers import Officer, Role
from cloud.ledger.accounts import ensure_accounts, issuance
from cloud.ledger.identities import derived
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.wallets import find_wallet


class SupplyAction(enum.StrEnum):
    """Whether value comes into the world or leaves it."""

    ISSUE = "issue"
    BURN = "burn"


class SupplyState(enum.StrEnum):
    """A draft is decided once: posted or rejected."""

    DRAFT = "draft"
    POSTED = "posted"
    REJECTED = "rejected"


class SupplyOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What an officer asks for: `amount` minor units to or from an online wallet.

    `draft_id` (32 bytes) makes asking again the same draft.
    """

    draft_id: bytes
    action: SupplyAction
    wallet: str
    amount: int
    reason: str


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: bytes
    action: SupplyAction
    currency: str
    amount: int
    account_id: int
    reason: str
    state: SupplyState
    drafted_by: int
    drafted_ms: int
    decided_by: int | None
    decided_ms: int | None


_COLUMNS = ", ".join(Supply.__struct_fields__)


async def draft_supply(
    connection: Connection, order: SupplyOrder, *, officer: Officer, now_ms: int
) -> Supply:
    """Store the draft, or answer the one that is there.

    Raises: IssuerError `role-missing`, `draft-conflict` (the identity names another draft),
    `draft-invalid`; WalletError `unknown-wallet`, `wallet-closed`.
    """
    officer.require(Role.SUPPLY)
    wallet = await find_wallet(connection, order.wallet)
    wallet.require_receiving()
    with constraints_as(IssuerError, "draft-invalid"):
        made = await connection.fetchval(
            "INSERT INTO supply_draft"
            " (draft_id, action, currency, amount, account_id, reason, drafted_by, drafted_ms)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
            " ON CONFLICT (draft_id) DO NOTHING RETURNING true",
            *(order.draft_id, order.action.value, wallet.currency, order.amount),
            *(wallet.account_id, order.reason, officer.officer_id, now_ms),
        )
    supply = await find_supply(connection, order.draft_id)
    if made:
        await _audit(connection, "supply.draft", supply, officer=officer, now_ms=now_ms)
    asked = (order.action, order.amount, wallet.account_id, order.reason, officer.officer_id)
    there = (supply.action, supply.amount, supply.account_id, supply.reason, supply.drafted_by)
    if asked != there:
        raise IssuerError("draft-conflict", "the identity names another draft")
    return supply


async def approve_supply(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> Supply:
    """Decide for the draft and post it. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`;
    LedgerError `insufficient-funds` when there is not that much to burn.
    """
    supply, again = await _decide(
        connection, draft_id, SupplyState.POSTED, officer=officer, now_ms=now_ms
    )
    if not again:
        await _post(connection, supply, now_ms=now_ms)
        await _audit(connection, "supply.approve", supply, officer=officer, now_ms=now_ms)
    return supply


async def reject_supply(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> Supply:
    """Decide against the draft; it never moves anything. Raises: as `approve_supply`."""
    supply, again = await _decide(
        connection, draft_id, SupplyState.REJECTED, officer=officer, now_ms=now_ms
    )
    if not again:
        await _audit(connection, "supply.reject", supply, officer=officer, now_ms=now_ms)
    return supply


async def find_supply(connection: Connection, draft_id: bytes) -> Supply:
    """The draft, locked for this transaction. Raises: IssuerError `draft-unknown`."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM supply_draft WHERE draft_id = $1 FOR UPDATE", draft_id
    )
    if row is None:
        raise IssuerError("draft-unknown")
    return _supply(row)


async def list_supply(
    connection: Connection, *, state: SupplyState, limit: int = 200
) -> list[Supply]:
    """The newest drafts of a state."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM supply_draft WHERE state = $1 ORDER BY drafted_ms DESC LIMIT $2",
        *(state.value, limit),
    )
    return [_supply(row) for row in rows]


async def _decide(
    connection: Connection,
    draft_id: bytes,
    state: SupplyState,
    *,
    officer: Officer,
    now_ms: int,
) -> tuple[Supply, bool]:
    """The decided draft, and whether the same officer had decided the same before."""
    officer.require(Role.SUPPLY)
    supply = await find_supply(connection, draft_id)
    if supply.drafted_by == officer.officer_id:
        raise IssuerError("four-eyes", "another officer has to decide")
    if supply.state is not SupplyState.DRAFT:
        if (supply.state, supply.decided_by) == (state, officer.officer_id):
            return supply, True
        raise IssuerError("draft-decided", f"the draft is {supply.state.value}")
    row = await connection.fetchrow(
        "UPDATE supply_draft SET state = $2, decided_by = $3, decided_ms = $4"
        f" WHERE draft_id = $1 RETURNING {_COLUMNS}",
        *(draft_id, state.value, officer.officer_id, now_ms),
    )
    return _supply(row), False


async def _post(connection: Connection, supply: Supply, *, now_ms: int) -> None:
    source = issuance(supply.currency)
    issued = (await ensure_accounts(connection, [source]))[source.name]
    is_issue = supply.action is SupplyAction.ISSUE
    transfer = Transfer(
        identity=derived("supply", supply.draft_id),
        debit=issued if is_issue else supply.account_id,
        credit=supply.account_id if is_issue else issued,
        amount=supply.amount,
        currency=supply.currency,
        kind=TransferKind.ISSUE if is_issue else TransferKind.BURN,
        created_ms=now_ms,
        reference=supply.reason,
    )
    await post(connection, [transfer])


async def _audit(
    connection: Connection, action: str, supply: Supply, *, officer: Officer, now_ms: int
) -> None:
    await audit.record(
        connection,
        actor=officer.name,
        action=action,
        subject=supply.draft_id.hex(),
        detail={
            "action": supply.action.value,
            "amount": supply.amount,
            "currency": supply.currency,
            "account": supply.account_id,
        },
        now_ms=now_ms,
    )


def _supply(row: Any) -> Supply:
    return msgspec.convert(dict(row), Supply)
