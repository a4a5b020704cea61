"""Refunded payments are found by an index, however many entries a journal has."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from cloud.database import Connection, Database
from cloud.reconciler import leaves
from cloud.reconciler.facts import find_payment
from tests.support.issuer import Key
from tests.support.reporting import Branch, open_bank, reconciler
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import OrderKind

EACH = 1_000
JOURNAL = b"j" * 20


def entry_of(number: int) -> bytes:
    """What stands at an index."""
    return f"entry {number}".encode()


async def told(connection: Connection, *, segments: int, first: int = 0) -> int:
    """An epoch of that many segments, each of a thousand entries; its number."""
    epoch_id: int = await connection.fetchval(
        "INSERT INTO journal_epoch (journal, epoch, opened_ms, changed_ms) VALUES ($1, 1, 0, 0)"
        " ON CONFLICT (journal, epoch) DO UPDATE SET changed_ms = 0 RETURNING epoch_id",
        JOURNAL,
    )
    for number in range(first, first + segments):
        entries = [entry_of(number * EACH + place) for place in range(EACH)]
        await connection.execute(
            "INSERT INTO journal_segment VALUES ($1, $2, $3, $4, $5, '', 0)",
            *(epoch_id, number * EACH, (number + 1) * EACH, entries),
            b"".join(leaf_hash(entry) for entry in entries),
        )
    await connection.execute(
        "UPDATE journal_epoch SET size = $2 WHERE epoch_id = $1",
        *(epoch_id, (first + segments) * EACH),
    )
    return epoch_id


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan and all below it."""
    return [plan, *(node for part in plan.get("Plans", []) for node in nodes(part))]


async def test_an_entry_is_found_by_the_index_and_nothing_is_looked_through(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(leaves), "SEGMENTS_MAX", 30)
    async with database.transaction() as connection:
        epoch_id = await told(connection, segments=100)
    # 30, 30, 30 and 10 segments; then there is nothing more to do.
    assert [await leaves.fill_all(database) for _ in range(2)] == [4, 0]
    async with database.transaction() as connection:
        await connection.execute("ANALYZE journal_leaf, journal_segment")
        for index in (0, 31_337, 99_999):
            leaf = leaf_hash(entry_of(index))
            assert await leaves.find_entry(connection, epoch_id, leaf) == entry_of(index)
        assert await leaves.find_entry(connection, epoch_id, bytes(32)) is None
        assert await leaves.find_entry(connection, epoch_id + 1, leaf) is None
        explained = await connection.fetchval(
            f"EXPLAIN (FORMAT json) {leaves.INDEXED}", epoch_id, leaf
        )
    used = {
        (node.get("Relation Name"), node["Node Type"]): node.get("Index Name")
        for node in nodes(json.loads(explained)[0]["Plan"])
        if "Relation Name" in node
    }
    assert {relation for relation, _ in used} == {"journal_leaf", "journal_segment"}
    assert set(used.values()) == {"journal_leaf_pkey", "journal_segment_pkey"}
    assert all("Seq" not in kind for _, kind in used)


async def test_what_is_not_in_the_index_yet_is_found_all_the_same(database: Database) -> None:
    async with database.transaction() as connection:
        epoch_id = await told(connection, segments=2)
        assert await leaves.fill(connection, epoch_id) == 2 * EACH
        await told(connection, segments=1, first=2)
        for index in (1_500, 2_500):
            leaf = leaf_hash(entry_of(index))
            assert await leaves.find_entry(connection, epoch_id, leaf) == entry_of(index)
        # While somebody else fills it, nobody waits.
        async with database.transaction() as other:
            await other.execute("SELECT FROM journal_leaf_end")
        assert await leaves.fill(connection, epoch_id) == 3 * EACH
    async with database.transaction() as busy:
        await busy.execute("SELECT FROM journal_leaf_end FOR UPDATE")
        async with database.transaction() as connection:
            await told(connection, segments=1, first=3)
            assert await leaves.fill(connection, epoch_id) == 3 * EACH
    assert await leaves.fill_all(database) == 1


async def test_neighbours_that_look_like_a_leaf_are_none(database: Database) -> None:
    async with database.transaction() as connection:
        epoch_id = await told(connection, segments=1)
        one, other = (leaf_hash(entry_of(index)) for index in (6, 7))
        between = one[16:] + other[:16]
        # The same first bytes as a leaf, and another end.
        alike = one[:8] + hashlib.sha256(one).digest()[:24]
        for _ in range(2):
            for leaf in (between, alike):
                assert await leaves.find_entry(connection, epoch_id, leaf) is None
            assert await leaves.find_entry(connection, epoch_id, one) == entry_of(6)
            await leaves.fill(connection, epoch_id)


async def test_a_refund_of_a_payment_long_ago_is_accepted_by_the_index(
    database: Database,
) -> None:
    anna, bert = Key("anna"), Key("bert")
    await open_bank(database)
    north, reconciling = Branch("north"), reconciler(database)
    north.enrol(anna, bert)
    await north.fund(database, anna, 1_000)
    paid = north.book.accept(north.book.pay(anna, bert, 300))
    await north.sync(reconciling)
    leaf = leaf_hash(paid.raw)
    for amount in (100, 150):
        refund = north.book.pay(bert, anna, amount, kind=OrderKind.REFUND, refunded=leaf)
        north.book.accept(refund)
        assert (await north.sync(reconciling)).problem is None
    async with database.transaction() as connection:
        row = await connection.fetchrow("SELECT epoch_id, size FROM journal_leaf_end")
        # All that had been told when the last refund was looked at.
        assert row["size"] == north.size - 1
        found = await find_payment(connection, row["epoch_id"], leaf)
    assert found is not None and found.amount_minor == 300
