"""Issue and burn: one officer drafts, another one approves, and only then the ledger moves.

PostgreSQL holds the rule of four eyes as well (cloud/sql/0002_issuer.sql).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from cloud.database import Connection
from cloud.issuer.drafts import Draft, Drafts
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


class Supply(Draft, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: bytes
    action: SupplyAction
    currency: str
    amount: int
    account_id: int
    reason: str
    state: SupplyState

    @property
    def subject(self) -> str:
        """The draft's identity."""
        return self.draft_id.hex()

    @property
    def detail(self) -> Mapping[str, str | int | list[str]]:
        """What is issued or burnt."""
        return {
            "action": self.action.value,
            "amount": self.amount,
            "currency": self.currency,
            "account": self.account_id,
        }


_DRAFTS = Drafts(
    Supply,
    table="supply_draft",
    role=Role.SUPPLY,
    action="supply",
    approved=SupplyState.POSTED,
)


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
    said = {
        "action": order.action.value,
        "currency": wallet.currency,
        "amount": order.amount,
        "account_id": wallet.account_id,
        "reason": order.reason,
    }
    return await _DRAFTS.propose(connection, order.draft_id, said, officer=officer, now_ms=now_ms)


async def approve_supply(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> Supply:
    """Decide for the draft and post it. Approving one's own approval again changes nothing.

    Raises: IssuerError `role-missing`, `four-eyes`, `draft-unknown`, `draft-decided`,
    `draft-expired`; LedgerError `insufficient-funds` when there is not that much to burn.
    """
    supply, again = await _DRAFTS.take(connection, draft_id, officer=officer, now_ms=now_ms)
    if again:
        return supply
    await _post(connection, supply, now_ms=now_ms)
    return await _DRAFTS.approve(connection, supply, officer=officer, now_ms=now_ms)


async def reject_supply(
    connection: Connection, draft_id: bytes, *, officer: Officer, now_ms: int
) -> Supply:
    """Decide against the draft; it never moves anything. Raises: as `approve_supply`."""
    return await _DRAFTS.reject(connection, draft_id, officer=officer, now_ms=now_ms)


async def find_supply(connection: Connection, draft_id: bytes) -> Supply:
    """The draft, locked for this transaction. Raises: IssuerError `draft-unknown`."""
    return await _DRAFTS.find(connection, draft_id)


async def list_supply(connection: Connection, *, state: SupplyState) -> list[Supply]:
    """The newest drafts of a state."""
    return await _DRAFTS.newest(connection, "state = $1", state.value)


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
