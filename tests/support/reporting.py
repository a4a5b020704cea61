"""Journals that report to a reconciler: books of `tests.support.books`, and real funding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from cloud.database import Database
from cloud.funding import FundingRequest, hold, set_granted
from cloud.ledger.accounts import ensure_accounts, issuance
from cloud.ledger.conservation import Conservation, conservation, discrepancies
from cloud.ledger.posting import Transfer, TransferKind, post
from cloud.reconciler.reconciler import Reconciler
from cloud.reconciler.values import Ingested
from cloud.shards.reconcilers import Reconcilers
from cloud.wallets import find_wallet, open_wallet
from tests.support.books import Book
from tests.support.issuer import Key
from tests.support.world import ANCHOR, EURO, NOW_MS, issue, policy_of
from wallet.protocol.certificates import journal_chain
from wallet.protocol.checkpoint import (
    assemble_checkpoint,
    checkpoint_protected,
    checkpoint_signed_bytes,
)
from wallet.protocol.envelope import UP_TYPE, Up, VerifiedUp, up_payload
from wallet.protocol.issued import Grant, Settlement, Statement, decode_settlement
from wallet.protocol.merkle import Batch, Frontier

SUPPLY = 1_000_000


class WorldSigning:
    """Signs by the roles of the test's world."""

    async def sign(self, type_: str, claims: dict[int, Any]) -> bytes:
        """See `Signing`."""
        return issue(type_, claims)


def reconciler(database: Database, **changed: Any) -> Reconciler:
    """A reconciler of the test's world."""
    return Reconciler(database, anchor=ANCHOR, signing=WorldSigning(), **changed)


class Branch:
    """A journal and its reports."""

    def __init__(
        self,
        name: str,
        *,
        epoch: int = 1,
        journal: dict[Any, int] | None = None,
        statement: Statement | None = None,
        currency: str = EURO,
    ) -> None:
        self.book = Book(name, epoch=epoch)
        policy = policy_of({}, journal, currency=currency)
        self.book.accept(self.book.opening(policy, statement))
        self.currency = currency
        self.acknowledged = 0
        self.granted: list[tuple[FundingRequest, Grant]] = []

    @property
    def size(self) -> int:
        """Entries written."""
        return len(self.book.context.entries)

    def enrol(self, *keys: Key) -> None:
        """Wallets of this journal."""
        for key in keys:
            self.book.accept(self.book.enrolment(key))

    async def fund(self, database: Database, key: Key, amount: int) -> None:
        """Hold the amount online, and apply its grant."""
        self.grant(key, amount)
        await self.hold(database, len(self.granted) - 1)

    def grant(self, key: Key, amount: int) -> None:
        """Apply a grant whose amount is still to be held online."""
        number = len(self.granted)
        request = FundingRequest(
            funding_id=self.book.journal + number.to_bytes(12, "big"),
            wallet=bank_of(self.currency),
            journal=self.book.journal,
            epoch=self.book.epoch,
            offline_wallet=key.public.id,
            amount=amount,
        )
        grant = self.book.grant(key, amount, currency=self.currency)
        self.granted.append((request, grant))
        self.book.accept(grant)

    async def hold(self, database: Database, first: int = 0) -> None:
        """Hold online what was granted, from one grant on."""
        for sequence, (request, grant) in enumerate(self.granted[first:], first):
            async with database.transaction() as connection:
                await hold(connection, request, now_ms=NOW_MS)
                await set_granted(
                    connection,
                    request.funding_id,
                    sequence=sequence,
                    grant_cose=grant.signed.raw,
                )

    def pay_out(self, payer: Key, payee: Key, other: Branch, amount: int) -> int:
        """A transfer-out; its index."""
        order = self.book.pay(
            payer, payee, amount, payee_journal=other.book.journal, currency=self.currency
        )
        return self.book.accept(order).index

    def take_in(self, other: Branch, index: int) -> int:
        """A transfer-in of the other's note; its index."""
        return self.book.accept(other.book.note(index)).index

    def checkpoint(self, *, leaves: Sequence[bytes] | None = None, counter: int = 0) -> bytes:
        """A checkpoint over the first leaves, or over all."""
        tree = Batch(Frontier(), self.book.context.leaves if leaves is None else leaves)
        protected = checkpoint_protected(
            self.book.identity.key.public,
            journal=self.book.journal,
            epoch=self.book.epoch,
            size=tree.frontier.size,
            counter=counter,
            issued_s=-(-self.book.state.time_ms // 1000),
        )
        return assemble_checkpoint(
            protected,
            self.book.identity.chain,
            root=tree.root,
            signature=self.book.identity.key.sign(checkpoint_signed_bytes(protected, tree.root)),
        )

    def report(
        self, first: int | None = None, end: int | None = None, **changed: Any
    ) -> VerifiedUp:
        """Entries from what is acknowledged to the end. `changed`: claims by their names."""
        first = self.acknowledged if first is None else first
        end = self.size if end is None else end
        claims: dict[str, Any] = {
            "journal": self.book.journal,
            "epoch": self.book.epoch,
            "exchange": bytes(16),
            "acknowledged_size": first,
            "entries": tuple(self.book.context.entries[first:end]),
            "checkpoint": self.checkpoint(leaves=self.book.context.leaves[:end]),
            "newest": {},
            **changed,
        }
        made, owner = Up(**claims), self.book.identity
        certificate = journal_chain(owner.chain, ANCHOR)
        raw = owner.key.sign_object(UP_TYPE, up_payload(made), owner.chain)
        return VerifiedUp(claims=made, certificate=certificate, raw=raw)

    async def sync(
        self, reconciler: Reconciler | Reconcilers, *, now_ms: int = NOW_MS, **changed: Any
    ) -> Ingested:
        """Report, and take what is answered."""
        answer = await reconciler.ingest(self.report(**changed), now_ms=now_ms)
        self.acknowledged = answer.acknowledged
        return answer

    async def settlement(self, reconciler: Reconciler | Reconcilers) -> Settlement | None:
        """The settlement that the issuer has for this journal."""
        found = await reconciler.settlements_after(
            self.book.journal, self.book.epoch, self.book.state.settled_size
        )
        return decode_settlement(found[-1]) if found else None

    async def settle(self, reconciler: Reconciler | Reconcilers) -> Settlement:
        """Enter the settlement that the issuer has for this journal."""
        settlement = await self.settlement(reconciler)
        assert settlement is not None
        self.book.accept(settlement)
        return settlement


def bank_of(currency: str) -> str:
    """The online wallet that the supply of a currency is in."""
    return "bank" if currency == EURO else f"bank-{currency}"


async def open_bank(database: Database, currency: str = EURO) -> None:
    """An online wallet with the whole supply."""
    name = bank_of(currency)
    async with database.transaction() as connection:
        await open_wallet(connection, name, holder="bank", currency=currency, now_ms=NOW_MS)
        bank = await find_wallet(connection, name)
        numbers = await ensure_accounts(connection, [issuance(currency)])
        transfer = Transfer(
            identity=currency.encode().ljust(32, b"\0"),
            debit=numbers[issuance(currency).name],
            credit=bank.account_id,
            amount=SUPPLY,
            currency=currency,
            kind=TransferKind.ISSUE,
            created_ms=NOW_MS,
        )
        await post(connection, [transfer])


async def where(database: Database) -> Conservation:
    """Where the value is: everything adds up, or the test fails."""
    (found,) = await everywhere(database)
    return found


async def everywhere(database: Database) -> list[Conservation]:
    """Where the value of each currency is: everything adds up, or the test fails."""
    async with database.transaction() as connection:
        found = await conservation(connection)
        assert await discrepancies(connection) == []
    assert {(line.difference, line.issued) for line in found} == {(0, SUPPLY)}
    return found


async def both(*reports: Any) -> list[Ingested]:
    """Several reports at once."""
    return list(await asyncio.gather(*reports))
