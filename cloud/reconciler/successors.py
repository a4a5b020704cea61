"""Who may open an epoch with a statement: the gateway that the issuer let go on, and no other."""

from __future__ import annotations

from cloud.database import Connection
from cloud.reconciler.values import ReconcilerError, Segment
from wallet.protocol.entry import Open
from wallet.protocol.ids import journal_text


async def require_successor(connection: Connection, segment: Segment) -> None:
    """Hold an opening against the closure whose statement it carries.

    A statement is no secret: whoever opened with it first would take what it carries.
    Raises: ReconcilerError `statement-foreign`.
    """
    opening = segment.entries[0].body if segment.first == 0 and segment.entries else None
    if not isinstance(opening, Open) or opening.statement is None:
        return
    statement = opening.statement
    rows = await connection.fetch(
        "SELECT successor FROM epoch_closure"
        " WHERE journal = $1 AND epoch = $2 AND state = 'closed'",
        *(statement.journal, statement.epoch),
    )
    # Before there were closures, a journal went on with its own statements alone.
    allowed = [row["successor"] for row in rows] or [statement.journal]
    if segment.journal not in allowed:
        raise ReconcilerError("statement-foreign", f"not {journal_text(segment.journal)}'s")
