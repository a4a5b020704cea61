"""What an issuer that was restored from an older backup finds in journals: its own forgotten words.

A journal that is sent again carries what was signed after the backup. Each of these objects has the
issuer's own signature, which the rules check; here is what the books make of them (ADR 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloud import funding
from cloud.database import Connection
from cloud.ledger.accounts import ensure_accounts, suspense, transit_grants
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.log import Log
from cloud.reconciler.outbox import tell
from cloud.reconciler.postings import Batch
from cloud.reconciler.values import Segment
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import Entry, ListUpdate
from wallet.protocol.envelope import Up
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.issued import LIST_TYPE, ROLES, Grant, decode_list
from wallet.protocol.lists import SignedList
from wallet.protocol.receipt import NO_CHAINS
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.trust import check_role

# In a report's health: the signed lists that its entries name.
SHOWN_LISTS = "lists"
_log = Log("restored")


# ---- lists ----------------------------------------------------------------------------------


async def take_lists(
    connection: Connection,
    anchor: TrustAnchor,
    up: Up,
    known: Mapping[bytes, SignedList],
    entries: Sequence[Entry],
    *,
    now_ms: int,
) -> dict[bytes, SignedList] | None:
    """The lists that entries name and nobody here knows, as the report shows them.

    None where some are missing and the report shows none: it is asked to. One that shows lists
    and not these is judged by the rules.
    """
    named = {entry.body.hash for entry in entries if isinstance(entry.body, ListUpdate)}
    missing = named - known.keys()
    if not missing:
        return {}
    shown = (up.health or {}).get(SHOWN_LISTS)
    if not isinstance(shown, list):
        return None
    found = {}
    for raw in shown:
        listed = _own_list(anchor, raw)
        if listed is not None and listed.hash in missing:
            found[listed.hash] = listed
            await _keep_list(connection, listed, now_ms=now_ms)
    return found


def _own_list(anchor: TrustAnchor, raw: object) -> SignedList | None:
    """The list, if it is one that this issuer signed."""
    if not isinstance(raw, bytes):
        return None
    try:
        listed = decode_list(raw)
        check_role(anchor, listed.signed, ROLES[LIST_TYPE], held_chains=NO_CHAINS)
    except ProtocolError:
        return None
    return listed


async def _keep_list(connection: Connection, listed: SignedList, *, now_ms: int) -> None:
    made = await connection.fetchval(
        "INSERT INTO recovered_list (hash, list_id, sequence, object, found_ms)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING true",
        *(listed.hash, listed.list_id, listed.sequence, listed.signed.raw, now_ms),
    )
    if made:
        _log.warning("list.recovered", list=listed.list_id, sequence=listed.sequence)


# ---- grants ---------------------------------------------------------------------------------


async def take_grants(
    connection: Connection, segment: Segment, batch: Batch, *, now_ms: int
) -> None:
    """Note the grants that a segment applies; those that are not remembered are accounted for.

    Such a grant is the issuer's word and holds. 1. If a holder's value is held for just this, that
    is what was granted. 2. Otherwise the value comes out of the journal's suspense account, until
    a person finds who paid for it.
    """
    place = (segment.journal, segment.epoch)
    entered = [
        (of_entry(place[0], epoch=place[1], index=entry.index), entry.body)
        for entry in segment.entries
        if isinstance(entry.body, Grant)
    ]
    if entered:
        await account_for(connection, place, entered, batch, now_ms=now_ms)


async def account_for(
    connection: Connection,
    place: tuple[bytes, int],
    entered: Sequence[tuple[bytes, Grant]],
    batch: Batch,
    *,
    now_ms: int,
) -> None:
    """As `take_grants`, of grants that the epoch `place` of a journal has entered.

    Each with the identity of the transfer into its wallet.
    """
    sequences = [grant.sequence for _, grant in entered]
    signed = await funding.grants_at(connection, *place, sequences=sequences)
    known = [
        grant.sequence for _, grant in entered if signed.get(grant.sequence) == grant.signed.raw
    ]
    await funding.set_applied(connection, place[0], epoch=place[1], sequences=known)
    for identity, grant in entered:
        if grant.sequence in known:
            continue
        # The number was given once more: the journal enters one of the two, and it was not this.
        await funding.withdraw_grant(connection, *place, sequence=grant.sequence)
        if not await funding.adopt_grant(connection, grant):
            await _lose(connection, identity, grant, batch, now_ms=now_ms)


async def _lose(
    connection: Connection,
    identity: bytes,
    grant: Grant,
    batch: Batch,
    *,
    now_ms: int,
) -> None:
    await connection.execute(
        "INSERT INTO lost_grant VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        *(grant.journal, grant.epoch, grant.sequence, grant.wallet, grant.amount_minor),
        *(grant.currency, grant.signed.raw, now_ms),
    )
    text = journal_text(grant.journal)
    missing = suspense(text, currency=grant.currency)
    transit = transit_grants(text, currency=grant.currency)
    numbers = await ensure_accounts(connection, [missing, transit])
    batch.add(
        derived("grant-lost", identity),
        debit=numbers[missing.name],
        credit=numbers[transit.name],
        amount=grant.amount_minor,
        kind=TransferKind.GRANT_LOST,
    )
    body = {
        "journal": text,
        "epoch": grant.epoch,
        "sequence": grant.sequence,
        "wallet": wallet_text(grant.wallet),
    }
    await tell(connection, "grant.lost", body, now_ms=now_ms)
    _log.warning("grant.lost", journal=text, sequence=grant.sequence)
