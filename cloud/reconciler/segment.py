"""Steps 3 and 4: the tree and the counter. What convicts a journal is returned as evidence."""

from __future__ import annotations

from typing import Any

import msgspec

from cloud.database import Connection
from cloud.reconciler import forks
from cloud.reconciler.evidence import Evidence
from cloud.reconciler.facts import asks
from cloud.reconciler.reading import Reading
from cloud.reconciler.replica import Replica
from cloud.reconciler.stored import held_entry, stored_leaves
from cloud.reconciler.values import Ingested
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import Up, VerifiedUp
from wallet.protocol.merkle import Batch, Frontier
from wallet.protocol.refusals import Code


class New(msgspec.Struct, frozen=True, kw_only=True):
    """What a report adds: from `skipped` on of its entries, and the frontier after them."""

    skipped: int
    frontier: Frontier


def next_segment(replica: Replica, up: Up, reading: Reading) -> New | None:
    """What is new where all is as it should be, and nothing has to be asked of the database."""
    if up.acknowledged_size != replica.size or not reading.entries or asks(reading.entries):
        return None
    fresh = Batch(replica.frontier, reading.leaves)
    sound = fresh.root == reading.checkpoint.root and reading.problem is None
    if not sound or reading.checkpoint.counter < replica.counter:
        return None
    return New(skipped=0, frontier=fresh.frontier)


async def check_segment(
    connection: Connection,
    anchor: TrustAnchor,
    replica: Replica,
    row: Any,
    report: VerifiedUp,
    reading: Reading,
) -> New | Ingested | Evidence:
    """What is new, the answer where nothing can be kept, or what convicts the journal."""
    up = report.claims
    first, end, size = up.acknowledged_size, reading.checkpoint.size, row["size"]
    if first > size:
        # It believes that more is held than is: it learns the size, and sends again from there.
        return Ingested(acknowledged=size)
    overlap = min(size, end) - first
    before: list[bytes] = []
    if overlap or end < size:
        before = await stored_leaves(connection, replica.epoch_id, end=min(size, end))
        different = _first_difference(before[first:], reading.leaves)
        if different is not None:
            return await _other_entry(connection, anchor, replica, up, reading, first + different)
    # 3. The root recomputed from the kept frontier and the new entries; of an older size, from all.
    fresh = Batch(replica.frontier, reading.leaves[overlap:])
    root = fresh.root if end >= size else Batch(Frontier(), before).root
    if reading.checkpoint.root != root:
        return await _other_root(connection, anchor, replica, row, report, reading)
    # 4. The counter never falls.
    if end > size and reading.checkpoint.counter < row["counter"]:
        return Evidence(
            kind="fork",
            code=Code.FROZEN_ROLLBACK,
            index=None,
            parts=forks.of_counter(row["checkpoint"], up.checkpoint),
        )
    return New(skipped=overlap, frontier=fresh.frontier)


def _first_difference(known: list[bytes], given: list[bytes]) -> int | None:
    for place, (one, other) in enumerate(zip(known, given, strict=False)):
        if one != other:
            return place
    return None


async def _other_entry(
    connection: Connection,
    anchor: TrustAnchor,
    replica: Replica,
    up: Up,
    reading: Reading,
    index: int,
) -> Evidence:
    """Another entry at an index that is held, under a signed checkpoint."""
    before = await stored_leaves(connection, replica.epoch_id, end=up.acknowledged_size)
    given = (
        up.entries[index - up.acknowledged_size],
        forks.receipt_under(up.checkpoint, before + reading.leaves, index),
    )
    held = await held_entry(connection, replica.epoch_id, index)
    parts = (*given, up.checkpoint) if held is None else forks.of_index(anchor, held, given)
    return Evidence(kind="fork", code=Code.PROOF_INVALID, index=index, parts=parts)


async def _other_root(
    connection: Connection,
    anchor: TrustAnchor,
    replica: Replica,
    row: Any,
    report: VerifiedUp,
    reading: Reading,
) -> Evidence:
    """A signed root that the entries do not give."""
    up, size = report.claims, row["size"]
    if reading.checkpoint.size <= size:
        leaves = await stored_leaves(connection, replica.epoch_id, end=size)
        parts = forks.of_roots(anchor, up.checkpoint, row["checkpoint"], leaves)
    else:
        before = await stored_leaves(connection, replica.epoch_id, end=up.acknowledged_size)
        bare = (row["checkpoint"] or b"", up.checkpoint, *up.entries)
        parts = forks.of_report(anchor, report.raw, row["checkpoint"], before=before, bare=bare)
    return Evidence(kind="fork", code=Code.PROOF_INVALID, index=None, parts=parts)
