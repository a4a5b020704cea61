"""Writing what a closed epoch comes to: transfers, notes, grants and claims, in one transaction."""

from __future__ import annotations

from typing import Any

from cloud.database import Connection
from cloud.funding import set_applied
from cloud.ledger.accounts import ensure_accounts
from cloud.reconciler.postings import Batch
from cloud.reconciler.settling import settle_entry
from cloud.recovery.closures import Closure
from cloud.recovery.total import NoteChange, Total
from cloud.wallets import redeem_accounts
from wallet.protocol.ids import WalletId, wallet_text


async def post_total(
    connection: Connection, closure: Closure, total: Total, *, now_ms: int
) -> None:
    """Post and write. Raises: LedgerError, WalletError."""
    await _post(connection, total, now_ms=now_ms)
    window_s = _window_s(closure)
    for change in total.notes:
        await _write_note(connection, closure, change, window_s=window_s, now_ms=now_ms)
    sequences = [grant.sequence for grant in total.grants if grant.sequence is not None]
    await set_applied(connection, closure.journal, epoch=closure.epoch, sequences=sequences)
    await connection.executemany(
        "INSERT INTO epoch_claim (closure_id, index, leaf, entry, code)"
        " VALUES ($1, $2, $3, $4, $5)",
        [
            (closure.closure_id, claim.index, claim.leaf, claim.entry.raw, item.code)
            for item in total.judged
            for claim in [item.claim]
        ],
    )


async def _post(connection: Connection, total: Total, *, now_ms: int) -> None:
    named = [move.debit for move in total.moves]
    named += [move.credit for move in total.moves if move.credit is not None]
    numbers = await ensure_accounts(connection, named)
    texts = [_text(move.to_online) for move in total.moves if move.to_online is not None]
    online = await redeem_accounts(connection, texts, currency=total.currency, now_ms=now_ms)
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
    await batch.post(connection, currency=total.currency, now_ms=now_ms)


def _text(wallet: bytes) -> str:
    return wallet_text(WalletId(wallet))


def _window_s(closure: Closure) -> int:
    """The claims window as it was reckoned when the epoch was closed."""
    return max(0, (closure.claims_until_ms or 0) - (closure.decided_ms or 0)) // 1000


async def _write_note(
    connection: Connection, closure: Closure, change: NoteChange, *, window_s: int, now_ms: int
) -> None:
    if change.known is not None:
        await _settle_elsewhere(connection, change, now_ms=now_ms)
    order, note = change.order, change.note
    place: tuple[Any, ...] = (None, None, None)
    if note is not None:
        place = (closure.journal, closure.epoch, change.in_index)
    waits = change.state == "early" and note is not None
    await connection.execute(
        "INSERT INTO note (journal, epoch, index, leaf, state, payer, payee_journal, amount,"
        " currency, expires_ms, returns_ms, in_journal, in_epoch, in_index, entry, receipt)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
        " ON CONFLICT (journal, epoch, index) DO UPDATE SET state = excluded.state,"
        " in_journal = coalesce(excluded.in_journal, note.in_journal),"
        " in_epoch = coalesce(excluded.in_epoch, note.in_epoch),"
        " in_index = coalesce(excluded.in_index, note.in_index), entry = NULL, receipt = NULL",
        *(*change.key, change.leaf, change.state, order.payer, order.payee_journal),
        *(order.amount_minor, order.currency, order.expires_ms),
        order.expires_ms + window_s * 1000,
        *place,
        note.entry if note is not None and waits else None,
        note.receipt if note is not None and waits else None,
    )


async def _settle_elsewhere(connection: Connection, change: NoteChange, *, now_ms: int) -> None:
    """The note came into another journal before its parent was known: now it is."""
    epoch_id = await connection.fetchval(
        "SELECT epoch_id FROM journal_epoch WHERE journal = $1 AND epoch = $2",
        *(change.known["in_journal"], change.known["in_epoch"]),
    )
    await settle_entry(connection, epoch_id=epoch_id, index=change.known["in_index"], now_ms=now_ms)
