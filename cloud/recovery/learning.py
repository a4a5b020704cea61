"""What the head and a journal's home know differently of a closed epoch, and both have to know.

A transaction at the head failed after the home's had ended; or one of them was restored from a
backup. What was signed, and what was posted, stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from cloud.database import Connection
from cloud.errors import CloudError
from cloud.issuer.desk import Desk
from cloud.log import Log
from cloud.recovery import closures, kept, late_payments, statements
from cloud.recovery.closures import Closure
from cloud.shards.homes import Site
from cloud.shards.messages import HEAD
from cloud.shards.shards import Shards
from wallet.protocol.refusals import ProtocolError

Work = Callable[[Site, Closure], Awaitable[None]]
_log = Log("recovery")


async def learn_endings(shards: Shards, desk: Desk, *, now_ms: int) -> None:
    """Let each learn from the other. Raises: DatabaseError where the head is away."""
    if len(shards) == 1:
        return
    async with shards.head.transaction() as connection:
        drafts = await closures.open_closures(connection)
        stating = await statements.open_statements(connection)
        paying = await late_payments.open_late(connection)
        holding = await closures.closures_with_holds(connection)

    async def learn(site: Site, closure: Closure) -> None:
        await closures.learn_closure(site, desk, closure.closure_id, now_ms=now_ms)

    async def give_back(site: Site, closure: Closure) -> None:
        await closures.give_back(site, closure, now_ms=now_ms)

    async def learn_statement(statement_id: bytes, site: Site, closure: Closure) -> None:
        await statements.learn_statement(site, statement_id, now_ms=now_ms)

    async def learn_late(draft_id: bytes, site: Site, closure: Closure) -> None:
        await late_payments.learn_late(site, draft_id, now_ms=now_ms)

    for draft in drafts:
        await _one(shards, draft.closure_id, learn)
    for one in stating:
        await _one(shards, one.closure_id, partial(learn_statement, one.statement_id))
    for payment in paying:
        await _one(shards, payment.closure_id, partial(learn_late, payment.draft_id))
    for number, _ in shards:
        await keep_closed(shards, number, now_ms=now_ms)
        await _state_again(shards, number, desk, now_ms=now_ms)
    for closure in holding:
        await _one(shards, closure.closure_id, give_back)


async def keep_closed(shards: Shards, number: int, *, now_ms: int) -> None:
    """Epochs that are closed are closed where their journals live, whatever was restored there."""

    async def close(site: Site, closure: Closure) -> None:
        await closures.keep_closed(site, closure, now_ms=now_ms)

    await _all_at(shards, number, _not_ended, close)


async def _state_again(shards: Shards, number: int, desk: Desk, *, now_ms: int) -> None:
    """Statements that were signed are posted where their journals live, and what was paid later."""

    async def state(site: Site, closure: Closure) -> None:
        await statements.state_again(site, desk, closure, now_ms=now_ms)

    async def pay(site: Site, closure: Closure) -> None:
        await late_payments.pay_again(site, desk, closure, now_ms=now_ms)

    await _all_at(shards, number, _not_stated, state)
    await _all_at(shards, number, _not_paid, pay)


Missing = Callable[[Connection, Connection, Sequence[Closure]], Awaitable[set[bytes]]]


async def _not_ended(head: Connection, there: Connection, page: Sequence[Closure]) -> set[bytes]:
    lacking = await kept.not_ended(there, [closure.place for closure in page])
    return {closure.closure_id for closure in page if closure.place in lacking}


async def _not_stated(head: Connection, there: Connection, page: Sequence[Closure]) -> set[bytes]:
    signed = await statements.signed_among(head, [closure.closure_id for closure in page])
    stated = [closure for closure in page if closure.closure_id in signed]
    lacking = await kept.not_stated(there, [closure.place for closure in stated])
    return {closure.closure_id for closure in stated if closure.place in lacking}


async def unposted(shards: Shards) -> list[bytes]:
    """Journals with a statement that is signed and not posted where they live: notes into them may
    be claimed by it. Raises: DatabaseError.
    """
    found: list[bytes] = []
    for number, _ in shards:
        after = b""
        while number != HEAD:
            async with shards.head.transaction() as head:
                page = await closures.closed_at(head, number, after=after)
                if not page:
                    break
                async with shards.beside(head, number) as there:
                    lacking = await _not_stated(head, there, page)
            found += [closure.journal for closure in page if closure.closure_id in lacking]
            after = page[-1].closure_id
    return found


async def _not_paid(head: Connection, there: Connection, page: Sequence[Closure]) -> set[bytes]:
    made = await late_payments.approved_at(head, [closure.closure_id for closure in page])
    paid = await late_payments.paid_among(there, list(made))
    return {closure_id for draft_id, closure_id in made.items() if draft_id not in paid}


async def _all_at(shards: Shards, number: int, missing: Missing, work: Work) -> None:
    """Do the work for closures of a shard's journals that it lacks, a page at a time."""
    if number == HEAD:
        return
    after = b""
    while True:
        try:
            async with shards.head.transaction() as head:
                page = await closures.closed_at(head, number, after=after)
                async with shards.beside(head, number) as there:
                    lacking = await missing(head, there, page) if page else set()
        except CloudError as error:
            _log.warning("endings.unknown", shard=number, code=error.code)
            return
        if not page:
            return
        after = page[-1].closure_id
        for closure_id in sorted(lacking):
            await _one(shards, closure_id, work)


async def _one(shards: Shards, closure_id: bytes, work: Work) -> None:
    """Do the work for one closure; what fails is logged, and tried again at the next turn."""
    try:
        async with shards.head.transaction() as connection:
            closure = await closures.find_closure(connection, closure_id)
            async with shards.site(connection, closure.journal) as site:
                if not site.here.is_head:
                    await work(site, closure)
    except (CloudError, ProtocolError) as error:
        _log.warning("ending.unknown", closure=closure_id.hex(), code=str(error.code))
    except Exception as error:  # noqa: BLE001 - other closures go on; the log has it
        _log.error("ending.broke", cause=error, closure=closure_id.hex())
