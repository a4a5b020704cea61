"""What a closed epoch comes to, by all that is known now. Nothing is written but empty accounts."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Set
from typing import Any

from cloud import funding
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer.desk import Desk
from cloud.issuer.gateways import find_gateway
from cloud.ledger.accounts import Account, transit_grants
from cloud.reconciler.postings import to_head
from cloud.reconciler.replica import load
from cloud.recovery.accounting import Books
from cloud.recovery.arrivals import borne_elsewhere
from cloud.recovery.claims import claims_of
from cloud.recovery.closures import Closure, ClosureState
from cloud.recovery.hidden import offence_in
from cloud.recovery.refusals import refused_in
from cloud.recovery.rejected import rejected_in
from cloud.recovery.total import Total
from cloud.shards.homes import Site
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.keys import PublicKey, from_cose_key
from wallet.protocol.merkle import EMPTY_ROOT
from wallet.protocol.policy import JournalLimit


class Hosted(enum.StrEnum):
    """Which wallets are paid out to their holders' online wallets instead of being carried.

    `carry`: none; the next gateway has the hosted wallets' keys, from a backup or on the same
    token. `online`: those whose keys the gateway kept, because the keys are lost. `everybody`: all.
    """

    CARRY = "carry"
    ONLINE = "online"
    EVERYBODY = "everybody"


class EnrolledKeys(Mapping[bytes, PublicKey]):
    """Keys by wallet, read when they are asked for: an epoch may have any number of wallets."""

    def __init__(self, cose_keys: Mapping[bytes, bytes]) -> None:
        self._cose_keys = cose_keys

    def __getitem__(self, wallet: bytes) -> PublicKey:
        return from_cose_key(self._cose_keys[wallet])

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._cose_keys)

    def __len__(self) -> int:
        return len(self._cose_keys)


async def reckon(
    site: Site,
    desk: Desk,
    closure: Closure,
    *,
    hosted: Hosted,
    only: Set[bytes] | None = None,
) -> Total:
    """What the epoch comes to. `site`: of the closure's journal. `only`: leaves of the claims that
    are looked at, where that is not all of them.

    Raises: IssuerError `closure-open`, `closure-stated`, `entries-held`; ReconcilerError
    `replica-broken`.
    """
    row = await locked_epoch(site, closure)
    if row["stated_ms"] is not None:
        raise IssuerError("closure-stated", "the epoch has its statement, which keeps its claims")
    await _require_decided(site.home, row)
    place = closure.place
    replica = await load(
        site.home, desk.anchor, epoch_id=row["epoch_id"], journal=place[0], epoch=place[1]
    )
    gateway = await find_gateway(site.head, closure.journal)
    keys, kept = await enrolled_in(site.head, closure.journal)
    books = Books(
        desk.anchor,
        replica.state,
        place=place,
        currency=gateway.currency,
        keys=keys,
        refused=await refused_in(site.head, closure.closure_id),
        told=await offence_in(site.home, row),
        here=site.here,
    )
    grants = await funding.not_entered(
        site.head, closure.journal, epoch=closure.epoch, entered=replica.state.grants_next
    )
    books.add_grants(grants, source=_waiting(site, closure.journal, gateway.currency))
    async for claims in claims_of(site.home, row):
        await books.add(site, [item for item in claims if only is None or item.leaf in only])
    away = {
        change.key: (change.leaf, change.order.amount_minor)
        for change in books.notes
        if change.note is not None and not site.here.has(change.key[0])
    }
    books.borne += await borne_elsewhere(site, away)
    books.take_back(await rejected_in(site.home, row))
    books.bear()
    paid_out = {Hosted.CARRY: [], Hosted.ONLINE: kept, Hosted.EVERYBODY: books.wallets()}
    books.pay_out(paid_out[hosted])
    return Total(
        told=row,
        root=row["root"] or EMPTY_ROOT,
        currency=gateway.currency,
        carried=books.carried(),
        redeemed=sorted(books.redeemed),
        moves=books.moves,
        notes=books.notes,
        grants=grants,
        judged=books.judged,
        forks=books.forks,
        paid_out=books.paid_out,
        taken_back=books.taken_back,
        borne=books.borne,
        bound=replica.state.journal_limit(JournalLimit.EXPOSURE_HARD),
    )


async def locked_epoch(site: Site, closure: Closure) -> Any:
    """The row of a closed epoch: whoever hands a claim in, or redeems a note, waits until the end.

    Raises: IssuerError `closure-open`.
    """
    if closure.state is not ClosureState.CLOSED:
        raise IssuerError("closure-open", f"the closure is {closure.state.value}")
    row = await site.home.fetchrow(
        "SELECT epoch_id, journal, epoch, size, applied, root, stated_ms, stated_by"
        " FROM journal_epoch WHERE journal = $1 AND epoch = $2 FOR UPDATE",
        *closure.place,
    )
    if row is None:
        raise IssuerError("closure-open", "where its journal lives nothing is known of the epoch")
    return row


def _waiting(site: Site, journal: bytes, currency: str) -> Account:
    """Where the value of grants is that were not entered, or the way there."""
    if site.here.is_head:
        return transit_grants(journal_text(JournalId(journal)), currency=currency)
    return to_head(journal, currency)


async def _require_decided(connection: Connection, row: Any) -> None:
    """Carried value is settled: nothing may be in it that a person has still to decide about."""
    held: int = await connection.fetchval(
        "SELECT count(*) FROM verdict WHERE epoch_id = $1 AND state = 'held' AND index < $2",
        *(row["epoch_id"], row["applied"]),
    )
    if held:
        raise IssuerError("entries-held", f"{held} entries wait for a decision first")


async def enrolled_in(connection: Connection, journal: bytes) -> tuple[EnrolledKeys, list[bytes]]:
    """Keys as the issuer enrolled them there, and the wallets whose keys were kept."""
    rows = await connection.fetch(
        "SELECT DISTINCT ON (wallet) wallet, cose_key, hosted FROM wallet_enrolment"
        " WHERE journal = $1 ORDER BY wallet, enrolment_id DESC",
        journal,
    )
    keys = EnrolledKeys({row["wallet"]: row["cose_key"] for row in rows})
    return keys, [row["wallet"] for row in rows if row["hosted"]]
