"""Value on its way from an online wallet into a journal: held first, then granted, then applied.

The hold takes the amount out of the wallet at once (account `transit-grants/...`). A signed grant
stands for it until the journal's `fund` entry arrives, which the reconciler posts.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from cloud.database import Connection, constraints_as
from cloud.errors import WalletError
from cloud.ledger.accounts import ensure_accounts, transit_grants
from cloud.ledger.identities import derived
from cloud.ledger.posting import BATCH_MAX, Transfer, TransferKind, post
from cloud.wallets import find_wallet
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import Grant

HELD_MAX = 10_000


class FundingState(enum.StrEnum):
    """Held or granted: in transit. Applied: in the journal. Returned: in the wallet again."""

    HELD = "held"
    GRANTED = "granted"
    APPLIED = "applied"
    RETURNED = "returned"


class FundingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a holder asks for; `funding_id` (32 bytes) makes asking again the same hold."""

    funding_id: bytes
    wallet: str
    journal: bytes
    epoch: int
    offline_wallet: bytes
    amount: int


class Funding(msgspec.Struct, frozen=True, kw_only=True):
    """A hold and what became of it; `sequence` and `grant_cose` are there once it is granted."""

    funding_id: bytes
    wallet: str
    journal: bytes
    epoch: int
    offline_wallet: bytes
    amount: int
    currency: str
    state: FundingState
    sequence: int | None
    grant_cose: bytes | None
    created_ms: int

    @property
    def request(self) -> FundingRequest:
        """What was asked for."""
        values = {name: getattr(self, name) for name in FundingRequest.__struct_fields__}
        return FundingRequest(**values)


_COLUMNS = ", ".join(Funding.__struct_fields__)


async def hold(connection: Connection, request: FundingRequest, *, now_ms: int) -> Funding:
    """Take the amount out of the wallet, or answer the hold that is there.

    Raises: WalletError `unknown-wallet`, `wallet-frozen`, `wallet-closed`, `funding-conflict` (the
    identity names another one), `funding-invalid`; LedgerError `insufficient-funds`.
    """
    wallet = await find_wallet(connection, request.wallet)
    with constraints_as(WalletError, "funding-invalid"):
        made = await connection.fetchval(
            "INSERT INTO funding (funding_id, wallet, journal, epoch, offline_wallet, amount,"
            " currency, created_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
            " ON CONFLICT (funding_id) DO NOTHING RETURNING true",
            *(*msgspec.structs.astuple(request), wallet.currency, now_ms),
        )
    funding = await find_funding(connection, request.funding_id)
    if funding.request != request:
        raise WalletError("funding-conflict", "the identity names another funding")
    if made:
        wallet.require_open()
        await _move(connection, funding, TransferKind.GRANT_HOLD, now_ms=now_ms)
    return funding


async def find_funding(connection: Connection, funding_id: bytes) -> Funding:
    """The hold, locked for this transaction. Raises: WalletError `unknown-funding`."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM funding WHERE funding_id = $1 FOR UPDATE", funding_id
    )
    if row is None:
        raise WalletError("unknown-funding")
    return _funding(row)


async def held_for(
    connection: Connection, journal: bytes, *, epoch: int, limit: int = HELD_MAX
) -> list[Funding]:
    """The oldest holds for an epoch that have no grant yet; locked for this transaction."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM funding WHERE journal = $1 AND epoch = $2 AND state = 'held'"
        " ORDER BY created_ms, funding_id LIMIT $3 FOR UPDATE",
        *(journal, epoch, limit),
    )
    return [_funding(row) for row in rows]


async def granted_for(connection: Connection, journal: bytes, *, epoch: int) -> list[Funding]:
    """Grants of an epoch that were signed and that its journal did not tell of, in order."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM funding WHERE journal = $1 AND epoch = $2 AND state = 'granted'"
        " ORDER BY sequence FOR UPDATE",
        *(journal, epoch),
    )
    return [_funding(row) for row in rows]


async def not_entered(
    connection: Connection, journal: bytes, *, epoch: int, entered: int
) -> list[Funding]:
    """Grants of an epoch that were signed and that its journal did not enter, in order.

    `entered`: how many it has: their sequences are below. Whether this database has heard of that
    is another matter.
    """
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM funding WHERE journal = $1 AND epoch = $2 AND sequence >= $3"
        " AND state IN ('granted', 'applied') ORDER BY sequence FOR UPDATE",
        *(journal, epoch, entered),
    )
    return [_funding(row) for row in rows]


async def next_sequence(connection: Connection, journal: bytes, *, epoch: int) -> int:
    """The sequence of the next grant of an epoch: from 0, no gap.

    Grants that the issuer has forgotten and the journal has shown count too. Callers serialise:
    only one transaction at a time signs grants for a journal.
    """
    found: int = await connection.fetchval(
        "SELECT coalesce(max(sequence) + 1, 0) FROM ("
        " SELECT sequence FROM funding WHERE journal = $1 AND epoch = $2 UNION ALL"
        " SELECT sequence FROM lost_grant WHERE journal = $1 AND epoch = $2) AS granted",
        *(journal, epoch),
    )
    return found


async def set_granted(
    connection: Connection, funding_id: bytes, *, sequence: int, grant_cose: bytes
) -> Funding:
    """Keep the signed grant. Raises: WalletError `unknown-funding`, `funding-decided`,
    `funding-invalid` (the sequence is taken).
    """
    funding = await find_funding(connection, funding_id)
    _require(funding, FundingState.HELD)
    with constraints_as(WalletError, "funding-invalid"):
        await connection.execute(
            "UPDATE funding SET state = 'granted', sequence = $2, grant_cose = $3"
            " WHERE funding_id = $1",
            *(funding_id, sequence, grant_cose),
        )
    return msgspec.structs.replace(
        funding, state=FundingState.GRANTED, sequence=sequence, grant_cose=grant_cose
    )


async def grants_from(
    connection: Connection, journal: bytes, *, epoch: int, sequence: int, limit: int
) -> list[Funding]:
    """Grants of an epoch from a sequence on, applied or not, in order; what a `down` carries."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM funding"
        " WHERE journal = $1 AND epoch = $2 AND sequence >= $3 ORDER BY sequence LIMIT $4",
        *(journal, epoch, sequence, limit),
    )
    return [_funding(row) for row in rows]


async def grants_at(
    connection: Connection, journal: bytes, epoch: int, *, sequences: list[int]
) -> dict[int, bytes]:
    """The signed grants of these sequences, as far as they are remembered."""
    rows = await connection.fetch(
        "SELECT sequence, grant_cose FROM funding WHERE journal = $1 AND epoch = $2"
        " AND sequence = ANY ($3)",
        *(journal, epoch, sequences),
    )
    return {row["sequence"]: row["grant_cose"] for row in rows}


async def withdraw_grant(
    connection: Connection, journal: bytes, epoch: int, *, sequence: int
) -> None:
    """Hold again what was granted under a number that the journal has used for another grant.

    The journal can never enter it; it is granted anew, under the next number.
    """
    await connection.execute(
        "UPDATE funding SET state = 'held', sequence = NULL, grant_cose = NULL"
        " WHERE journal = $1 AND epoch = $2 AND sequence = $3 AND state = 'granted'",
        *(journal, epoch, sequence),
    )


async def adopt_grant(connection: Connection, grant: Grant) -> bool:
    """Let a grant that the issuer forgot be that of the oldest hold that it fits; is there one?

    The order is that in which holds are granted.
    """
    found = await connection.fetchval(
        "UPDATE funding SET state = 'applied', sequence = $3, grant_cose = $7"
        " WHERE funding_id = (SELECT funding_id FROM funding WHERE journal = $1 AND epoch = $2"
        "  AND offline_wallet = $4 AND amount = $5 AND currency = $6 AND state = 'held'"
        "  ORDER BY created_ms, funding_id LIMIT 1 FOR UPDATE) RETURNING true",
        *(grant.journal, grant.epoch, grant.sequence, grant.wallet, grant.amount_minor),
        *(grant.currency, grant.signed.raw),
    )
    return bool(found)


async def set_applied(
    connection: Connection, journal: bytes, *, epoch: int, sequences: list[int]
) -> int:
    """Note that the journal has applied the grants, and answer how many had not been noted."""
    rows = await connection.fetch(
        "UPDATE funding SET state = 'applied' WHERE journal = $1 AND epoch = $2"
        " AND sequence = ANY ($3) AND state = 'granted' RETURNING funding_id",
        *(journal, epoch, sequences),
    )
    return len(rows)


async def give_back(connection: Connection, funding_id: bytes, *, now_ms: int) -> Funding:
    """Return what was held to the wallet; giving it back again changes nothing.

    The caller knows that the journal cannot apply the grant any more: it was never signed, or the
    epoch is closed and its last state is known.
    Raises: WalletError `unknown-funding`, `funding-decided` when it was applied.
    """
    funding = await find_funding(connection, funding_id)
    if funding.state is FundingState.RETURNED:
        return funding
    _require(funding, FundingState.HELD, FundingState.GRANTED)
    await connection.execute(
        "UPDATE funding SET state = 'returned' WHERE funding_id = $1", funding_id
    )
    await _move(connection, funding, TransferKind.GRANT_RETURN, now_ms=now_ms)
    return msgspec.structs.replace(funding, state=FundingState.RETURNED)


async def give_back_held(connection: Connection, journal: bytes, *, epoch: int, now_ms: int) -> int:
    """Return all that was held for an epoch and never granted; gives how many holds that were.

    Raises: WalletError, LedgerError.
    """
    rows = await connection.fetch(
        "UPDATE funding SET state = 'returned' FROM online_wallet WHERE journal = $1"
        " AND epoch = $2 AND funding.state = 'held' AND online_wallet.wallet = funding.wallet"
        " RETURNING funding_id, account_id, amount, funding.currency",
        *(journal, epoch),
    )
    named = [transit_grants(journal_text(journal), currency=row["currency"]) for row in rows]
    numbers = await ensure_accounts(connection, named)
    transfers = [
        Transfer(
            identity=derived(TransferKind.GRANT_RETURN.name, row["funding_id"]),
            debit=numbers[account.name],
            credit=row["account_id"],
            amount=row["amount"],
            currency=row["currency"],
            kind=TransferKind.GRANT_RETURN,
            created_ms=now_ms,
        )
        for row, account in zip(rows, named, strict=True)
    ]
    for at in range(0, len(transfers), BATCH_MAX):
        await post(connection, transfers[at : at + BATCH_MAX])
    return len(rows)


def _require(funding: Funding, *states: FundingState) -> None:
    if funding.state not in states:
        raise WalletError("funding-decided", f"the funding is {funding.state.value}")


async def _move(
    connection: Connection, funding: Funding, kind: TransferKind, *, now_ms: int
) -> None:
    """Move the amount into transit, or back."""
    wallet = await find_wallet(connection, funding.wallet)
    account = transit_grants(journal_text(funding.journal), currency=funding.currency)
    transit = (await ensure_accounts(connection, [account]))[account.name]
    is_hold = kind is TransferKind.GRANT_HOLD
    transfer = Transfer(
        identity=derived(kind.name, funding.funding_id),
        debit=wallet.account_id if is_hold else transit,
        credit=transit if is_hold else wallet.account_id,
        amount=funding.amount,
        currency=funding.currency,
        kind=kind,
        created_ms=now_ms,
    )
    await post(connection, [transfer])


def _funding(row: Any) -> Funding:
    return msgspec.convert(dict(row), Funding)
