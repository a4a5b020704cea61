"""Settlements that name many entries: each has room in its mebibyte, and the order is kept."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from cloud.database import Connection, Database
from cloud.reconciler import settling
from cloud.reconciler.values import Segment
from tests.support.issuer import Key
from tests.support.reporting import Branch, open_bank, reconciler
from tests.support.world import NOW_MS
from wallet.protocol.entry import Payment
from wallet.protocol.issued import VerdictState
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.refusals import Code

ANNA, BERT = Key("anna"), Key("bert")
MANY = 50_000
# So long that a settlement names two of them.
CODE = "suspicious" * 40_000
SETTLEMENT_BYTES_MAX = 1024 * 1024


class HoldPayments:
    """Compliance that holds every payment."""

    async def review(self, connection: Connection, segment: Segment) -> Mapping[int, str]:
        """See `Compliance`."""
        return {e.index: CODE for e in segment.entries if isinstance(e.body, Payment)}


@pytest.fixture
async def north(database: Database) -> Branch:
    """A journal of Anna, who has 1,000, and Bert."""
    await open_bank(database)
    branch = Branch("north")
    branch.enrol(ANNA, BERT)
    await branch.fund(database, ANNA, 1_000)
    return branch


async def test_a_settlement_of_50_000_held_entries_ends_before_what_it_cannot_name(
    database: Database, north: Branch
) -> None:
    reconciling, sound = reconciler(database), north.size
    context = north.book.context
    for number in range(MANY + 1):
        context.entries.append(number.to_bytes(4, "big"))
        context.leaves.append(leaf_hash(context.entries[-1]))
    await north.sync(reconciling)
    settlement = await north.settlement(reconciling)
    assert settlement is not None
    assert len(settlement.signed.raw) <= SETTLEMENT_BYTES_MAX
    named = [(verdict.index, verdict.state) for verdict in settlement.verdicts]
    assert named[0] == (sound, VerdictState.REJECTED)
    assert named[1:] == [(n, VerdictState.HELD) for n in range(sound + 1, settlement.size)]
    assert sound + 30_000 < settlement.size < north.size
    checkpoint = north.report(0, settlement.size).claims.checkpoint
    assert settlement.root in checkpoint
    async with database.transaction() as connection:
        held = await connection.fetchval("SELECT count(*) FROM verdict WHERE state = 'held'")
    assert held == MANY


async def test_what_there_is_no_room_for_is_settled_once_it_is_decided(
    database: Database, north: Branch
) -> None:
    reconciling = reconciler(database, compliance=HoldPayments())
    first = north.size
    for _ in range(4):
        north.book.accept(north.book.pay(ANNA, BERT, 10))
    await north.sync(reconciling)
    settlement = await north.settle(reconciling)
    assert (settlement.size, [v.index for v in settlement.verdicts]) == (
        first + 2,
        [first, first + 1],
    )
    assert north.book.balance(BERT)[:2] == (40, 0)
    # Nothing more can be said: no word is said twice.
    north.book.accept(north.book.pay(ANNA, BERT, 1))
    await north.sync(reconciling)
    await north.sync(reconciling, now_ms=NOW_MS + 10 * settling.RESETTLED_MS)
    assert await north.settlement(reconciling) is None
    # One is rejected, which is told although the size stays; one released, which makes room.
    for index, state in ((first, "rejected"), (first + 1, "settled")):
        async with database.transaction() as connection:
            await connection.execute(
                "UPDATE verdict SET state = $2, told = false WHERE index = $1", index, state
            )
        await north.sync(reconciling)
        north.acknowledged = north.size
        later = await north.settle(reconciling)
        assert later.verdicts[0].index == first
        await north.sync(reconciling)
    assert (later.size, [(v.index, v.state) for v in later.verdicts]) == (
        first + 3,
        [(first, VerdictState.REJECTED), (first + 2, VerdictState.HELD)],
    )
    assert Code.FROZEN_BY_ISSUER not in {v.code for v in later.verdicts}
