"""Who may open an epoch with a statement: the gateway that the issuer let go on, and no other."""

from __future__ import annotations

from collections.abc import Sequence

from cloud.database import Database
from cloud.reconciler.values import ReconcilerError
from wallet.protocol.entry import Entry, Open
from wallet.protocol.ids import journal_text


async def require_successor(head: Database, journal: bytes, entries: Sequence[Entry]) -> None:
    """Hold an opening against the closure whose statement it carries. `entries`: of one report.

    A statement is no secret: whoever opened with it first would take what it carries. Who goes on
    is said once, before its gateway has the statement, so that it may be asked before anything
    else is. Raises: ReconcilerError `statement-foreign`, DatabaseError.
    """
    opening = entries[0].body if entries and entries[0].index == 0 else None
    if not isinstance(opening, Open) or opening.statement is None:
        return
    statement = opening.statement
    async with head.transaction() as connection:
        rows = await connection.fetch(
            "SELECT successor FROM epoch_closure"
            " WHERE journal = $1 AND epoch = $2 AND state = 'closed'",
            *(statement.journal, statement.epoch),
        )
    # Before there were closures, a journal went on with its own statements alone.
    allowed = [row["successor"] for row in rows] or [statement.journal]
    if journal not in allowed:
        raise ReconcilerError("statement-foreign", f"not {journal_text(journal)}'s")
