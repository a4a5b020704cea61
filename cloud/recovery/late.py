"""Receipts that came when their epoch had its statement, and which of them may be paid.

A late payment is judged by the rules for claims, by itself: against what the journal told, the
claims that counted in the statement, and the late payments that were made before. It is paid out
of the loss account, for the payer's balance is in the statement. No other kind of entry is paid
late: a note is borne and held where it comes in, what came in by a note can be redeemed again, and
value that was to go online is still its owner's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloud.errors import IssuerError
from cloud.issuer.desk import Desk
from cloud.issuer.gateways import find_gateway
from cloud.reconciler.replica import load
from cloud.recovery.accounting import Books
from cloud.recovery.claims import PAGE, Claim
from cloud.recovery.closures import Closure
from cloud.recovery.hidden import check_payee
from cloud.recovery.reckoning import enrolled_in, locked_epoch
from cloud.recovery.total import Judged, Place
from cloud.shards.homes import Site
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Entry, EntryKind, Note, Payment, decode_entry
from wallet.protocol.keys import PublicKey
from wallet.protocol.messages import Order
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.state import State

# Each page costs what it takes to read the epoch's state and its claims.
PAGE_MAX = 200
NOT_A_PAYMENT = "not-a-payment"
PAID = "paid-late-already"
# The kind of an entry that is none.
UNREADABLE = -1
# Receipts that are in no claim: below the journal's size of other entries than those it tells of.
# $1 journal, $2 epoch, $3 size, $4 closure, $5 one leaf or null.
_LATE = """
    SELECT DISTINCT ON (index, leaf) index, leaf, entry, EXISTS (SELECT FROM late_payment
        WHERE (journal, epoch) = ($1, $2) AND (index, leaf) = (given.index, given.leaf)) AS is_paid
    FROM (
        SELECT index, leaf, entry FROM collected_receipt
        WHERE journal = $1 AND epoch = $2 AND index >= $3
        UNION ALL SELECT index, leaf, entry FROM hidden_receipt WHERE journal = $1 AND epoch = $2
    ) AS given
    WHERE NOT EXISTS (SELECT FROM epoch_claim AS claim WHERE closure_id = $4
        AND (claim.index, claim.leaf) = (given.index, given.leaf))
    AND ($5::bytea IS NULL OR leaf = $5)
    ORDER BY index, leaf OFFSET $6 LIMIT $7
"""
# What counts, what officers refused, and what the journal told that the rules have not carried out.
# $1 closure, $2 journal, $3 epoch, $4 epoch_id, $5 applied.
_COUNTED = """
    SELECT entry FROM epoch_claim WHERE closure_id = $1 AND (code IS NULL OR code = 'claim-refused')
    UNION ALL SELECT entry FROM late_payment WHERE journal = $2 AND epoch = $3
    UNION ALL SELECT unnest(entries) FROM journal_segment WHERE epoch_id = $4 AND size > $5
"""


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that came late. `judged.code`: why it is not paid; None where it may be."""

    entry: bytes
    judged: Judged
    order: Order | None

    def require_payable(self) -> Order:
        """The order of a payment that may be paid. Raises: IssuerError with the code why not."""
        if self.judged.code is not None:
            raise IssuerError(self.judged.code, "this receipt pays nobody")
        assert self.order is not None  # a payment
        return self.order


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """Orders and requests, by their identities, of what was told or counted."""

    orders: set[bytes] = msgspec.field(default_factory=set)
    requests: set[bytes] = msgspec.field(default_factory=set)

    def add(self, raws: Sequence[bytes]) -> None:
        """Those of entries; what cannot be read has none."""
        for raw in raws:
            entry = _read(raw)
            if entry is not None and isinstance(entry.body, Payment | Note):
                order = entry.body.order
                self.orders.add(order.identity)
                if order.request is not None:
                    self.requests.add(order.request)


class LateBooks(Books):
    """A stated epoch, against which each payment is held by itself."""

    def __init__(
        self,
        anchor: TrustAnchor,
        state: State,
        *,
        place: Place,
        currency: str,
        keys: Mapping[bytes, PublicKey],
        spent: Spent,
    ) -> None:
        super().__init__(
            anchor, state, place=place, currency=currency, keys=keys, told=spent.orders
        )
        self._requests = spent.requests

    def _check_order(self, order: Order, *, leaves: bool) -> None:
        self._orders.clear()
        super()._check_order(order, leaves=leaves)

    def _pay(self, claim: Claim, payment: Payment) -> None:
        """Nothing is moved here: it is looked at whether the payee kept to the policy."""
        if self._state.policy is None:
            raise ProtocolError(Code.NOT_PROVISIONED, "the journal told of no policy")
        check_payee(self._state, payment.order, answered=self._requests)


class Review:
    """A stated epoch, which nobody else changes until the transaction ends.

    `borne`: what the issuer bore of it until now; `bound`: what the journal's policy exposes it to
    (limit 102), None where it sets no bound.
    """

    def __init__(
        self,
        site: Site,
        closure: Closure,
        row: Any,
        books: LateBooks,
        *,
        currency: str,
        bound: int | None,
        borne: int,
    ) -> None:
        self._site, self._row, self._books = site, row, books
        self._claims_by = _claims_by(closure, row)
        self.currency, self.bound, self.borne = currency, bound, borne

    async def page(self, *, first: int) -> list[Late]:
        """Late receipts in the order of their indexes, from the place `first` on."""
        return await self._late(None, first=first, limit=PAGE_MAX)

    async def one(self, leaf: bytes) -> Late:
        """A late receipt by its entry's leaf hash. Raises: IssuerError `claim-unknown`."""
        found = await self._late(leaf, first=0, limit=1)
        if not found:
            raise IssuerError("claim-unknown", "nobody handed this entry in after the statement")
        return found[0]

    def require_bounded(self, amount: int, bear_max: int) -> None:
        """That the issuer may bear as much besides. Raises: IssuerError `loss-above-limit`."""
        borne = self.borne + amount
        if self.bound is not None and borne > max(self.bound, bear_max):
            raise IssuerError(
                "loss-above-limit",
                f"with this the issuer would bear {borne}, and its policy bounds that by"
                f" {self.bound}: say how much it may bear",
            )

    async def _late(self, leaf: bytes | None, *, first: int, limit: int) -> list[Late]:
        row = self._row
        rows = await self._site.home.fetch(
            _LATE,
            *(row["journal"], row["epoch"], row["size"], self._claims_by, leaf, first, limit),
        )
        read = await asyncio.to_thread(lambda: [_read(item["entry"]) for item in rows])
        payments = [
            Claim(index=item["index"], leaf=item["leaf"], entry=entry, receipt=None)
            for item, entry in zip(rows, read, strict=True)
            if entry is not None and entry.kind == EntryKind.PAY and not item["is_paid"]
        ]
        before = len(self._books.judged)
        await self._books.add(self._site, payments)
        codes = {(item.index, item.leaf): item.code for item in self._books.judged[before:]}
        return [_late(item, entry, codes) for item, entry in zip(rows, read, strict=True)]


async def review(site: Site, desk: Desk, closure: Closure) -> Review:
    """Read what late receipts are held against. `site`: of the closure's journal.

    Raises: IssuerError `closure-open`, `closure-unstated`; ReconcilerError `replica-broken`.
    """
    row = await locked_epoch(site, closure)
    stated = await site.head.fetchval(
        "SELECT borne FROM epoch_statement WHERE closure_id = $1 AND state = 'signed'",
        closure.closure_id,
    )
    if row["stated_ms"] is None or stated is None:
        raise IssuerError("closure-unstated", "the epoch has no statement yet: it is a claim")
    journal, epoch = closure.place
    replica = await load(
        site.home, desk.anchor, epoch_id=row["epoch_id"], journal=journal, epoch=epoch
    )
    gateway = await find_gateway(site.head, journal)
    keys, _ = await enrolled_in(site.head, journal)
    books = LateBooks(
        desk.anchor,
        replica.state,
        place=closure.place,
        currency=gateway.currency,
        keys=keys,
        spent=await _spent(site, closure, row),
    )
    paid: int = await site.home.fetchval(
        "SELECT coalesce(sum(amount), 0)::bigint FROM late_payment"
        " WHERE journal = $1 AND epoch = $2",
        *closure.place,
    )
    return Review(
        site,
        closure,
        row,
        books,
        currency=gateway.currency,
        bound=replica.state.journal_limit(JournalLimit.EXPOSURE_HARD),
        borne=stated + paid,
    )


async def _spent(site: Site, closure: Closure, row: Any) -> Spent:
    found = Spent()
    cursor = await site.home.cursor(
        _COUNTED,
        *(_claims_by(closure, row), *closure.place, row["epoch_id"], row["applied"]),
    )
    while rows := await cursor.fetch(PAGE):
        await asyncio.to_thread(found.add, [item["entry"] for item in rows])
    return found


def _claims_by(closure: Closure, row: Any) -> bytes:
    """The closure under which the epoch's claims are kept."""
    found: bytes | None = row["stated_by"]
    return closure.closure_id if found is None else found


def _read(raw: bytes) -> Entry | None:
    try:
        return decode_entry(raw)
    except ProtocolError:
        return None


def _late(row: Any, entry: Entry | None, codes: Mapping[tuple[int, bytes], str | None]) -> Late:
    body = None if entry is None else entry.body
    order = body.order if isinstance(body, Payment | Note) else None
    code: str | None = PAID
    if not row["is_paid"]:
        code = codes.get((row["index"], row["leaf"]), NOT_A_PAYMENT)
    judged = Judged(
        index=row["index"],
        leaf=row["leaf"],
        kind=UNREADABLE if entry is None else entry.kind,
        amount=0 if order is None else order.amount_minor,
        code=code,
    )
    return Late(entry=row["entry"], judged=judged, order=order)
