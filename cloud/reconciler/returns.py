"""Notes that nobody redeemed come back to their payers, after the claims window."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from cloud.database import Connection, Database
from cloud.ledger.accounts import ensure_accounts, transit_notes
from cloud.ledger.identities import derived, of_entry
from cloud.ledger.posting import TransferKind
from cloud.reconciler.outbox import tell
from cloud.reconciler.postings import Batch, online_accounts
from cloud.shards.homes import ALONE, Here
from cloud.shards.messages import HEAD, Addressed, PaidOnline, send
from wallet.protocol.ids import journal_text, wallet_text

PAGE = 1_000


async def return_expired_notes(
    database: Database,
    *,
    now_ms: int,
    due_ms: int | None = None,
    closing: Sequence[bytes] | None = None,
    here: Here = ALONE,
) -> int:
    """Pay what is due back to the payers' online accounts, and answer how many notes that were.

    `due_ms`: those that are due by then, where that is not now. `closing`: as `closing_journals`
    answered before `due_ms` was known; asked for by default.
    Raises: DatabaseError, LedgerError, WalletError.
    """
    if closing is None:
        async with (here.head or database).transaction() as connection:
            closing = await closing_journals(connection)
    returned = 0
    while True:
        async with database.transaction() as connection:
            done = await _return_page(
                connection,
                closing,
                here,
                due_ms=now_ms if due_ms is None else due_ms,
                now_ms=now_ms,
            )
        returned += done
        if done < PAGE:
            return returned


async def closing_journals(connection: Connection) -> list[bytes]:
    """Journals with a closed epoch that has no statement yet. `connection`: at the head.

    A note may have come into one of them: its payee can claim that until the statement.
    """
    rows = await connection.fetch(
        "SELECT DISTINCT journal FROM epoch_closure WHERE state = 'closed' AND NOT EXISTS"
        " (SELECT FROM epoch_statement WHERE epoch_statement.state = 'signed'"
        "  AND epoch_statement.closure_id = epoch_closure.closure_id)"
    )
    return [row["journal"] for row in rows]


async def _return_page(
    connection: Connection, closing: Sequence[bytes], here: Here, *, due_ms: int, now_ms: int
) -> int:
    rows = await connection.fetch(
        "UPDATE note SET state = 'returned' WHERE (journal, epoch, index) IN"
        " (SELECT journal, epoch, index FROM note WHERE state = 'out' AND returns_ms <= $1"
        "  AND payee_journal <> ALL ($3::bytea[])"
        "  ORDER BY returns_ms LIMIT $2 FOR UPDATE SKIP LOCKED) AND state = 'out'"
        " RETURNING journal, epoch, index, payer, amount, currency",
        *(due_ms, PAGE, list(closing)),
    )
    by_place: dict[tuple[str, bytes], list[Any]] = defaultdict(list)
    for row in rows:
        by_place[row["currency"], row["journal"]].append(row)
    for currency, journal in sorted(by_place):
        returning = by_place[currency, journal]
        await _pay_back(connection, currency, journal, returning, here, now_ms=now_ms)
    return len(rows)


async def _pay_back(
    connection: Connection,
    currency: str,
    journal: bytes,
    rows: list[Any],
    here: Here,
    *,
    now_ms: int,
) -> None:
    payers = [wallet_text(row["payer"]) for row in rows]
    online = await online_accounts(
        connection, payers, journal, here, currency=currency, now_ms=now_ms
    )
    source = transit_notes(journal_text(journal), currency=currency)
    number = (await ensure_accounts(connection, [source]))[source.name]
    batch, messages = Batch(), []
    for row, payer in zip(rows, payers, strict=True):
        entry = of_entry(journal, epoch=row["epoch"], index=row["index"])
        message = PaidOnline(
            transfer=derived("note-return", entry),
            journal=journal,
            wallet=payer,
            amount=row["amount"],
            currency=currency,
            transfer_kind=TransferKind.NOTE_RETURN,
            reference=None,
        )
        messages.append(Addressed(target=HEAD, message=message))
        batch.add(
            message.transfer,
            debit=number,
            credit=online[payer],
            amount=row["amount"],
            kind=TransferKind.NOTE_RETURN,
        )
    await batch.post(connection, currency=currency, now_ms=now_ms)
    if not here.is_head:
        await send(connection, here.number, messages, now_ms=now_ms)
    await tell(connection, "notes.returned", {"notes": len(rows)}, now_ms=now_ms)
