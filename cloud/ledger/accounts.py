"""Accounts: their names, their kinds, and whether they may go below zero."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cloud.database import Connection
from cloud.errors import LedgerError


class AccountKind(enum.StrEnum):
    """What a balance stands for in the sum issued = online + offline + in transit + ..."""

    ISSUANCE = "issuance"  # Supply, as a negative number: what was issued and not burnt.
    ONLINE = "online"  # One for each online wallet; a dealer's is an ordinary one.
    OFFLINE = "offline"  # One for each wallet in each epoch of a journal.
    TRANSIT_NOTES = "transit-notes"  # Left a journal by a note that was not redeemed yet.
    TRANSIT_GRANTS = "transit-grants"  # Left an online wallet by a grant not yet in the journal.
    SUSPENSE = "suspense"  # Arrived in a journal, and what it left is not known yet.
    LOSS = "loss"  # What the issuer paid because a journal broke the rules; negative.
    BETWEEN = "between"  # On its way to another shard; negative on its way from there.


_BOTTOMLESS = {
    AccountKind.ISSUANCE,
    AccountKind.SUSPENSE,
    AccountKind.LOSS,
    AccountKind.BETWEEN,
}


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A named account; the name alone identifies it."""

    name: str
    kind: AccountKind
    currency: str

    @property
    def floor(self) -> int | None:
        """What the balance may not fall below; None where it may fall without an end."""
        return None if self.kind in _BOTTOMLESS else 0


def issuance(currency: str) -> Account:
    """The supply of a currency."""
    return Account(name=f"issuance/{currency}", kind=AccountKind.ISSUANCE, currency=currency)


def online(wallet: str, *, currency: str) -> Account:
    """The account of an online wallet, by its text."""
    return Account(name=f"online/{wallet}", kind=AccountKind.ONLINE, currency=currency)


def offline(wallet: str, *, journal: str, epoch: int, currency: str) -> Account:
    """The account of a wallet in an epoch of a journal, by their texts."""
    name = f"offline/{journal}/{epoch}/{wallet}"
    return Account(name=name, kind=AccountKind.OFFLINE, currency=currency)


def transit_notes(journal: str, *, currency: str) -> Account:
    """Notes that left a journal: one account each, so that journals do not wait for each other."""
    name = f"transit-notes/{currency}/{journal}"
    return Account(name=name, kind=AccountKind.TRANSIT_NOTES, currency=currency)


def transit_grants(journal: str, *, currency: str) -> Account:
    """Grants on their way to a journal."""
    name = f"transit-grants/{currency}/{journal}"
    return Account(name=name, kind=AccountKind.TRANSIT_GRANTS, currency=currency)


def suspense(journal: str, *, currency: str) -> Account:
    """Arrivals in a journal whose parent is not known yet."""
    name = f"suspense/{currency}/{journal}"
    return Account(name=name, kind=AccountKind.SUSPENSE, currency=currency)


def loss(currency: str) -> Account:
    """What the issuer bears in a currency."""
    return Account(name=f"loss/{currency}", kind=AccountKind.LOSS, currency=currency)


def between(shard: int, journal: str, *, currency: str) -> Account:
    """What a journal's value is on its way to or from another shard: one account each, so that
    journals do not wait for each other.
    """
    name = f"between/{currency}/{shard}/{journal}"
    return Account(name=name, kind=AccountKind.BETWEEN, currency=currency)


async def ensure_accounts(connection: Connection, accounts: Iterable[Account]) -> dict[str, int]:
    """Open the accounts that do not exist, and answer the number of each by its name.

    Keep the numbers only once the transaction has committed.
    Raises: LedgerError `account-conflict` when a name is of another kind or currency.
    """
    # In the order of names, so that two transactions that open the same ones do not deadlock.
    wanted = sorted({account.name: account for account in accounts}.values(), key=_name)
    columns = (
        [account.name for account in wanted],
        [account.kind.value for account in wanted],
        [account.currency for account in wanted],
        [account.floor for account in wanted],
    )
    await connection.execute(
        "INSERT INTO ledger_account (name, kind, currency, floor)"
        " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])"
        " ON CONFLICT (name) DO NOTHING",
        *columns,
    )
    rows = await connection.fetch(
        "SELECT account_id, name, kind, currency FROM ledger_account WHERE name = ANY ($1)",
        columns[0],
    )
    found = {row["name"]: row for row in rows}
    for account in wanted:
        row = found[account.name]
        if (row["kind"], row["currency"]) != (account.kind.value, account.currency):
            raise LedgerError("account-conflict", f"{account.name} is another account")
    return {name: row["account_id"] for name, row in found.items()}


async def lock_accounts(connection: Connection, account_ids: Sequence[int]) -> None:
    """Lock accounts for this transaction, before several postings that touch them.

    Locks are taken in the order of numbers, as each posting does it, so that nobody deadlocks.
    """
    await connection.execute(
        "SELECT FROM ledger_account WHERE account_id = ANY ($1)"
        " ORDER BY account_id FOR NO KEY UPDATE",
        account_ids,
    )


async def balances(connection: Connection, account_ids: Sequence[int]) -> Mapping[int, int]:
    """Balances in minor units by account number; an unknown number is left out."""
    rows = await connection.fetch(
        "SELECT account_id, balance FROM ledger_account WHERE account_id = ANY ($1)", account_ids
    )
    return {row["account_id"]: row["balance"] for row in rows}


def _name(account: Account) -> str:
    return account.name
