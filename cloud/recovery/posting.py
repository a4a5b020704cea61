"""Writing what a closed epoch comes to: transfers, notes, grants and claims, in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cloud.database import Connection
from cloud.funding import Funding, set_applied
from cloud.ledger.accounts import ensure_accounts
from cloud.reconciler.hidden import set_aside
from cloud.reconciler.postings import Batch, online_accounts
from cloud.reconciler.settling import settle_entries
from cloud.recovery import claims, kept
from cloud.recovery.accounting import grant_identity
from cloud.recovery.arrivals import HIDDEN
from cloud.recovery.claims import CLAIMED, place_of
from cloud.recovery.closures import Closure
from cloud.recovery.total import Move, NoteChange, Total
from cloud.shards.homes import Site, homes_of
from cloud.shards.messages import (
    HEAD,
    Addressed,
    Fate,
    GrantClaimed,
    Judged,
    PaidOnline,
    Redeemed,
    send,
)
from cloud.wallets import redeem_accounts
from wallet.protocol.ids import WalletId, wallet_text


async def post_total(site: Site, closure: Closure, total: Total, *, now_ms: int) -> None:
    """Post and write. `site`: of the closure's journal. Raises: LedgerError, WalletError."""
    connection = site.home
    # Before the notes are written: with that, some of them are no longer claims.
    await _write_claims(connection, closure, total)
    await _post(site, closure, total, now_ms=now_ms)
    changes = await _first_of_each(site, total)
    await _write_notes(site, closure, changes, now_ms=now_ms)
    for hidden in [change for change in total.notes if change.state == HIDDEN]:
        arrived = (closure.journal, closure.epoch, hidden.in_index or 0)
        await set_aside(connection, hidden.key, hidden.leaf, arrived=arrived)
    await _settle_elsewhere(site, total.notes, now_ms=now_ms)
    await _use_grants(site, closure, total.grants, now_ms=now_ms)


async def _first_of_each(site: Site, total: Total) -> list[NoteChange]:
    """One note of each index. Of two, one is borne, where it came in, and set aside."""
    changes = [change for change in total.notes if change.state != HIDDEN]
    count = Counter(change.key for change in changes)
    found = []
    for change in changes:
        known = change.known
        if count[change.key] > 1 and change.state == "compensated" and known is not None:
            arrived = (known.in_journal, known.in_epoch, known.in_index)
            await set_aside(site.home, change.key, change.leaf, arrived=arrived)
        else:
            found.append(change)
    return found


async def _write_claims(connection: Connection, closure: Closure, total: Total) -> None:
    """Each claim with its entry, and why it does not count: evidence that stays."""
    await connection.execute(
        f"{CLAIMED} INSERT INTO epoch_claim (closure_id, index, leaf, entry, code)"
        " SELECT $6, claimed.index, claimed.leaf, entry, code FROM claimed"
        " JOIN unnest($7::bigint[], $8::bytea[], $9::text[]) AS judged (index, leaf, code)"
        "  ON (claimed.index, claimed.leaf) = (judged.index, judged.leaf)",
        *(*place_of(total.told), closure.closure_id),
        [item.index for item in total.judged],
        [item.leaf for item in total.judged],
        [item.code for item in total.judged],
    )


async def _post(site: Site, closure: Closure, total: Total, *, now_ms: int) -> None:
    named = [move.debit for move in total.moves]
    named += [move.credit for move in total.moves if move.credit is not None]
    numbers = await ensure_accounts(site.home, named)
    going = [move for move in total.moves if move.credit is None]
    texts = [_text(move.to_online or b"") for move in going]
    # Wherever the journal lives: who cannot be paid out is found out before anything is done.
    online = await redeem_accounts(site.head, texts, currency=total.currency, now_ms=now_ms)
    if not site.here.is_head:
        online = await online_accounts(
            *(site.home, texts, closure.journal, site.here),
            currency=total.currency,
            now_ms=now_ms,
        )
    batch = Batch()
    for move in total.moves:
        if move.credit is None:
            credit = online[_text(move.to_online or b"")]
        else:
            credit = numbers[move.credit.name]
        batch.add(
            move.identity,
            debit=numbers[move.debit.name],
            credit=credit,
            amount=move.amount,
            kind=move.kind,
        )
    # In one: what a payer spends in the first of them may come in, or be borne, in the last.
    await batch.post_whole(site.home, currency=total.currency, now_ms=now_ms)
    if not site.here.is_head:
        told = [_paid_online(move, closure, total.currency) for move in going]
        await send(site.home, site.here.number, told, now_ms=now_ms)


def _paid_online(move: Move, closure: Closure, currency: str) -> Addressed:
    """What another shard than the head pays into an online wallet."""
    message = PaidOnline(
        transfer=move.identity,
        journal=closure.journal,
        wallet=_text(move.to_online or b""),
        amount=move.amount,
        currency=currency,
        transfer_kind=move.kind,
        reference=None,
    )
    return Addressed(target=HEAD, message=message)


async def _use_grants(
    site: Site, closure: Closure, grants: Sequence[Funding], *, now_ms: int
) -> None:
    """The value of signed grants is in the statement, whether or not they came into the journal."""
    if site.here.is_head:
        sequences = [grant.sequence for grant in grants if grant.sequence is not None]
        await set_applied(site.head, closure.journal, epoch=closure.epoch, sequences=sequences)
        return
    told = [
        GrantClaimed(
            transfer=grant_identity(grant),
            journal=closure.journal,
            epoch=closure.epoch,
            grant=grant.grant_cose or b"",
            amount=grant.amount,
            currency=grant.currency,
        )
        for grant in grants
    ]
    addressed = [Addressed(target=HEAD, message=message) for message in told]
    await send(site.home, site.here.number, addressed, now_ms=now_ms)


def _text(wallet: bytes) -> str:
    return wallet_text(WalletId(wallet))


async def _window_s(site: Site, closure: Closure) -> int:
    """The claims window as it was reckoned when the epoch was closed."""
    known = await kept.ended(site, closure.place)
    if known is not None:
        return known.window_s
    return max(0, (closure.claims_until_ms or 0) - (closure.decided_ms or 0)) // 1000


async def _write_notes(
    site: Site, closure: Closure, changes: Sequence[NoteChange], *, now_ms: int
) -> None:
    here, window_s = site.here, await _window_s(site, closure)
    early = [change for change in changes if change.note is not None and change.state == "early"]
    origins = {change.key[0] for change in early}
    here.homes.hear(await homes_of(site.head, origins))
    away = {journal: here.homes.of(journal) for journal in origins if not here.has(journal)}
    told = [
        _told(change, closure, away[change.key[0]], window_s)
        for change in early
        if change.key[0] in away
    ]
    # It came in before anybody told: until this is taken, no note of that shard goes back.
    await send(site.home, here.number, told, now_ms=0)
    columns = zip(*[_columns(change, closure, away, window_s) for change in changes], strict=True)
    lists = [list(column) for column in columns] or [[] for _ in range(17)]
    await site.home.execute(
        "INSERT INTO note (journal, epoch, index, leaf, state, payer, payee_journal, amount,"
        " currency, expires_ms, returns_ms, in_journal, in_epoch, in_index, entry, receipt, home)"
        " SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[],"
        " $6::bytea[], $7::bytea[], $8::bigint[], $9::text[], $10::bigint[], $11::bigint[],"
        " $12::bytea[], $13::bigint[], $14::bigint[], $15::bytea[], $16::bytea[],"
        " $17::smallint[])"
        " ON CONFLICT (journal, epoch, index) DO UPDATE SET state = excluded.state,"
        " in_journal = coalesce(excluded.in_journal, note.in_journal),"
        " in_epoch = coalesce(excluded.in_epoch, note.in_epoch),"
        " in_index = coalesce(excluded.in_index, note.in_index), entry = NULL, receipt = NULL"
        # Another one came in before of the same index: where their journal lives, both are judged.
        " WHERE note.leaf = excluded.leaf",
        *lists,
    )


def _told(change: NoteChange, closure: Closure, home: int, window_s: int) -> Addressed:
    """A claim that a note of another shard's journal came in: judged there."""
    assert change.note is not None and change.in_index is not None  # it came in
    message = Redeemed(
        entry=change.note.entry,
        receipt=change.note.receipt,
        journal=closure.journal,
        epoch=closure.epoch,
        index=change.in_index,
        window_s=window_s,
    )
    return Addressed(target=home, message=message)


def _columns(
    change: NoteChange, closure: Closure, away: Mapping[bytes, int], window_s: int
) -> tuple[Any, ...]:
    order, note, window_ms = change.order, change.note, window_s * 1000
    place: tuple[Any, ...] = (None, None, None)
    if note is not None:
        place = (closure.journal, closure.epoch, change.in_index)
    waits = note if change.state == "early" else None
    return (
        *(*change.key, change.leaf, change.state, order.payer, order.payee_journal),
        *(order.amount_minor, order.currency, order.expires_ms, order.expires_ms + window_ms),
        *place,
        None if waits is None else waits.entry,
        None if waits is None else waits.receipt,
        None if note is None else away.get(change.key[0]),
    )


async def _settle_elsewhere(site: Site, changes: Sequence[NoteChange], *, now_ms: int) -> None:
    """Notes that came into other journals before their parents were known: now they are."""
    known = [(change, change.known) for change in changes if change.known is not None]
    await settle_entries(
        site.home,
        [(row.in_journal, row.in_epoch, row.in_index) for _, row in known if row.in_shard is None],
        now_ms=now_ms,
    )
    away = [_judged(change, row) for change, row in known if row.in_shard is not None]
    await send(site.home, site.here.number, away, now_ms=now_ms)


def _judged(change: NoteChange, row: claims.Redeemed) -> Addressed:
    """What becomes of a note that came in at another shard."""
    assert row.in_shard is not None  # the caller has looked
    journal, epoch, index = change.key
    message = Judged(
        journal=journal,
        epoch=epoch,
        index=index,
        in_journal=row.in_journal,
        in_epoch=row.in_epoch,
        in_index=row.in_index,
        fate=Fate.MATCHED if change.state == "redeemed" else Fate.BORNE,
        amount=row.amount,
        currency=row.currency,
    )
    return Addressed(target=row.in_shard, message=message)
