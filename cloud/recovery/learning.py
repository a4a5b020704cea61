"""Approvals that were carried out where a journal lives, and of which the head does not know."""

from __future__ import annotations

from cloud.errors import CloudError
from cloud.issuer.desk import Desk
from cloud.log import Log
from cloud.recovery.closures import learn_closure, open_closures
from cloud.recovery.late_payments import late_closure, learn_late, open_late
from cloud.recovery.statements import closure_of, learn_statement, open_statements
from cloud.shards.shards import Shards

_log = Log("recovery")


async def learn_endings(shards: Shards, desk: Desk, *, now_ms: int) -> None:
    """Let the head know of all of them. Raises: DatabaseError where the head is away."""
    if len(shards) == 1:
        return
    async with shards.head.transaction() as connection:
        closures = await open_closures(connection)
        drafts = await open_statements(connection)
        late = await open_late(connection)
    for closure in closures:
        try:
            async with (
                shards.head.transaction() as connection,
                shards.site(connection, closure.journal) as site,
            ):
                await learn_closure(site, desk, closure.closure_id, now_ms=now_ms)
        except CloudError as error:
            _log.warning("closure.unknown", closure=closure.closure_id.hex(), code=error.code)
    for draft in drafts:
        try:
            async with shards.head.transaction() as connection:
                closure = await closure_of(connection, draft.statement_id)
                async with shards.site(connection, closure.journal) as site:
                    await learn_statement(site, draft.statement_id, now_ms=now_ms)
        except CloudError as error:
            _log.warning("statement.unknown", statement=draft.statement_id.hex(), code=error.code)
    for payment in late:
        try:
            async with shards.head.transaction() as connection:
                closure = await late_closure(connection, payment.draft_id)
                async with shards.site(connection, closure.journal) as site:
                    await learn_late(site, payment.draft_id, now_ms=now_ms)
        except CloudError as error:
            _log.warning("late-payment.unknown", draft=payment.draft_id.hex(), code=error.code)
