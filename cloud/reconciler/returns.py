"""Notes that nobody redeemed come back to their payers, after the claims window."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from cloud.database import Connection, Database
from cloud.ledger.accounts import ensure_accounts, transit_notes
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.reconciler.outbox import tell
from cloud.reconciler.postings import Batch
from cloud.wallets import redeem_accounts
from wallet.protocol.ids import journal_text, wallet_text

PAGE = 1_000


async def return_expired_notes(database: Database, *, now_ms: int) -> int:
    """Pay what is due back to the payers' online accounts, and answer how many notes that were.

    Raises: DatabaseError, LedgerError, WalletError.
    """
    returned = 0
    while True:
        async with database.transaction() as connection:
            done = await _return_page(connection, now_ms=now_ms)
        returned += done
        if done < PAGE:
            return returned


async def _return_page(connection: Connection, *, now_ms: int) -> int:
    rows = await connection.fetch(
        "UPDATE note SET state = 'returned' WHERE (journal, epoch, index) IN"
        " (SELECT journal, epoch, index FROM note WHERE state = 'out' AND returns_ms <= $1"
        # Into a closed epoch it may have come: its payee can claim that until the statement.
        "  AND NOT EXISTS (SELECT FROM epoch_closure WHERE epoch_closure.state = 'closed'"
        "   AND epoch_closure.journal = note.payee_journal AND NOT EXISTS"
        "   (SELECT FROM epoch_statement WHERE epoch_statement.state = 'signed'"
        "    AND epoch_statement.closure_id = epoch_closure.closure_id))"
        "  ORDER BY returns_ms LIMIT $2 FOR UPDATE SKIP LOCKED) AND state = 'out'"
        " RETURNING journal, epoch, index, payer, amount, currency",
        *(now_ms, PAGE),
    )
    by_currency: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        by_currency[row["currency"]].append(row)
    for currency in sorted(by_currency):
        await _pay_back(connection, currency, by_currency[currency], now_ms=now_ms)
    return len(rows)


async def _pay_back(connection: Connection, currency: str, rows: list[Any], *, now_ms: int) -> None:
    payers = [wallet_text(row["payer"]) for row in rows]
    online = await redeem_accounts(connection, payers, currency=currency, now_ms=now_ms)
    sources = [transit_notes(journal_text(row["journal"]), currency=currency) for row in rows]
    numbers = await ensure_accounts(connection, sources)
    batch = Batch()
    for row, payer, source in zip(rows, payers, sources, strict=True):
        entry = of_entry(row["journal"], epoch=row["epoch"], index=row["index"])
        batch.add(
            derived("note-return", entry),
            debit=numbers[source.name],
            credit=online[payer],
            amount=row["amount"],
            kind=TransferKind.NOTE_RETURN,
        )
    await batch.post(connection, currency=currency, now_ms=now_ms)
    await tell(connection, "notes.returned", {"notes": len(rows)}, now_ms=now_ms)
