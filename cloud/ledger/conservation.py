"""Proofs over the whole ledger: nothing appeared, nothing vanished, no balance was touched."""

from __future__ import annotations

import msgspec

from cloud.database import Connection
from cloud.ledger.accounts import AccountKind


class Conservation(msgspec.Struct, frozen=True, kw_only=True):
    """Where the issued value of one currency is, in minor units.

    What arrived before its parent makes `suspense` negative, what the issuer bears makes `loss` so.
    `between`: on its way between shards, negative on its way from another one.
    """

    currency: str
    issued: int
    online: int
    offline: int
    transit_notes: int
    transit_grants: int
    suspense: int
    loss: int
    between: int = 0

    @property
    def in_transit(self) -> int:
        """On its way into a journal or out of one, or between shards."""
        return self.transit_notes + self.transit_grants + self.between

    @property
    def difference(self) -> int:
        """What issued has above the sum of the others: 0, or the ledger is broken."""
        held = self.online + self.offline + self.in_transit
        return self.issued - held - self.suspense - self.loss


class Discrepancy(msgspec.Struct, frozen=True, kw_only=True):
    """An account whose balance is not the sum of its transfers."""

    account_id: int
    balance: int
    transferred: int


async def conservation(connection: Connection) -> list[Conservation]:
    """The sums of every currency, of one moment."""
    rows = await connection.fetch(
        "SELECT currency, kind, sum(balance)::bigint AS balance FROM ledger_account"
        " GROUP BY currency, kind"
    )
    sums: dict[str, dict[str, int]] = {}
    for row in rows:
        sums.setdefault(row["currency"], {})[row["kind"]] = row["balance"]
    return [conservation_of(currency, by_kind) for currency, by_kind in sorted(sums.items())]


def conservation_of(currency: str, by_kind: dict[str, int]) -> Conservation:
    """The account of one currency, of balances by kind of account."""
    return Conservation(
        currency=currency,
        issued=-by_kind.get(AccountKind.ISSUANCE, 0),
        online=by_kind.get(AccountKind.ONLINE, 0),
        offline=by_kind.get(AccountKind.OFFLINE, 0),
        transit_notes=by_kind.get(AccountKind.TRANSIT_NOTES, 0),
        transit_grants=by_kind.get(AccountKind.TRANSIT_GRANTS, 0),
        suspense=by_kind.get(AccountKind.SUSPENSE, 0),
        loss=by_kind.get(AccountKind.LOSS, 0),
        between=by_kind.get(AccountKind.BETWEEN, 0),
    )


async def discrepancies(connection: Connection) -> list[Discrepancy]:
    """Accounts whose balance does not follow from the transfers; reads all of them."""
    rows = await connection.fetch(
        "SELECT account.account_id, balance, coalesce(moved.amount, 0)::bigint AS transferred"
        " FROM ledger_account AS account LEFT JOIN ("
        "  SELECT account_id, sum(change) AS amount FROM ledger_transfer,"
        "   LATERAL (VALUES (debit, -amount), (credit, amount)) AS side (account_id, change)"
        "  GROUP BY account_id) AS moved USING (account_id)"
        " WHERE balance <> coalesce(moved.amount, 0) ORDER BY account.account_id"
    )
    return [Discrepancy(**dict(row)) for row in rows]
