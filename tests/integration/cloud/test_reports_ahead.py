"""Reports of one journal that are applied while the one before them is stored."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

import pytest

from cloud.database import Connection, Database
from cloud.errors import DatabaseError
from cloud.reconciler.values import Ingested, Segment
from tests.integration.cloud.test_convictions import forged
from tests.support.issuer import Key
from tests.support.reporting import Branch, both, open_bank, reconciler, where
from tests.support.world import NOW_MS, picture
from wallet.protocol.entry import Entry
from wallet.protocol.refusals import Code
from wallet.protocol.rules import Proposal

ANNA, BERT = Key("anna"), Key("bert")


@pytest.fixture
async def north(database: Database) -> Branch:
    """A journal of Anna, who has 1,000, and Bert."""
    await open_bank(database)
    branch = Branch("north")
    branch.enrol(ANNA, BERT)
    await branch.fund(database, ANNA, 1_000)
    return branch


class BreaksOnce:
    """A database that is gone while one segment is being stored."""

    def __init__(self, first: int) -> None:
        self.first: int | None = first

    async def review(self, connection: Connection, segment: Segment) -> Mapping[int, str]:
        if segment.first == self.first:
            self.first = None
            raise DatabaseError("database-unavailable", "gone")
        return {}


async def test_a_segment_that_is_not_stored_takes_those_applied_behind_it_along(
    database: Database, north: Branch
) -> None:
    for _ in range(60):
        north.book.accept(north.book.pay(ANNA, BERT, 1))
    cuts = [0, 4, 14, 24, 34, 44, north.size]
    reconciling = reconciler(database, compliance=BreaksOnce(first=14))
    reports = [north.report(first, end) for first, end in itertools.pairwise(cuts)]
    work = [reconciling.ingest(up, now_ms=NOW_MS) for up in reports]
    answers = await asyncio.gather(*work, return_exceptions=True)
    assert isinstance(answers[2], DatabaseError)
    # What came before stands; what came behind learns that it is too early, and nothing is lost.
    held = [answer.acknowledged for answer in answers if isinstance(answer, Ingested)]
    assert held == [4, 14, 14, 14, 14]
    assert await north.sync(reconciling, first=14) == Ingested(acknowledged=north.size)
    assert picture(reconciling._replicas[north.book.journal, 1].state) == picture(north.book.state)
    await where(database)


def accept(branch: Branch, proposal: Proposal) -> Entry:
    """Write what the rules allow."""
    return branch.book.accept(proposal)


async def test_nothing_behind_a_violation_is_stored(database: Database, north: Branch) -> None:
    cuts = [0, north.size]
    for write, amount in [(accept, 1), (accept, 1), (forged, 5_000), (forged, 1), (forged, 1)]:
        write(north, north.book.pay(ANNA, BERT, amount))
        cuts.append(north.size)
    reconciling = reconciler(database)
    reports = [north.report(first, end) for first, end in itertools.pairwise(cuts)]
    answers = await both(*[reconciling.ingest(up, now_ms=NOW_MS) for up in reports])
    bad = cuts[4]
    assert [answer.acknowledged for answer in answers] == [*cuts[1:4], bad, bad, bad]
    assert [answer.problem for answer in answers] == [None] * 4 + [Code.FROZEN_BY_ISSUER] * 2
    found = await where(database)
    assert found.loss == -5_000
