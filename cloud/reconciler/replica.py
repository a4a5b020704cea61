"""Replicas: the state of a journal as the issuer computes it, kept in memory, rebuilt at need."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from cloud.database import Connection
from cloud.ledger.accounts import ensure_accounts, offline
from cloud.reconciler.applying import apply_entries
from cloud.reconciler.context import ReplayContext
from cloud.reconciler.facts import facts_for, replay_facts, replayed_roots
from cloud.reconciler.lists import lists_for, share
from cloud.reconciler.values import ReconcilerError
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import decode_entry
from wallet.protocol.ids import JournalId, WalletId, journal_text, wallet_text
from wallet.protocol.keys import PublicKey
from wallet.protocol.merkle import Batch, Frontier
from wallet.protocol.policy import JournalLimit
from wallet.protocol.snapshot import read_snapshot, write_snapshot
from wallet.protocol.state import State
from wallet.protocol.trust import ENDLESS_S

# A start reads a snapshot and applies the entries after it: so many at least, and so many at most.
SNAPSHOT_ENTRIES = 20_000
SNAPSHOT_ENTRIES_MAX = 100_000
# What snapshots may cost for each entry. After a month offline a state is large with arrivals that
# no settlement has named yet, and grows with every report.
SNAPSHOT_BYTES_PER_ENTRY = 64


class WalletKeys:
    """The enrolled keys of a state, looked up as a mapping is."""

    def __init__(self, state: State) -> None:
        self._wallets = state.wallets

    def get(self, wallet: WalletId) -> PublicKey | None:
        """The key, or None of a wallet that has none."""
        found = self._wallets.get(wallet)
        return None if found is None else found.key


class Replica:
    """One epoch of a journal. Only its turn changes it; after a failure it is thrown away."""

    def __init__(self, *, epoch_id: int, state: State, frontier: Frontier) -> None:
        self.epoch_id = epoch_id
        self.state = state
        self.frontier = frontier
        # The row's `size`: more than the state's after a violation.
        self.size = frontier.size
        self.counter = 0
        self.snapshot_size = frontier.size
        self.snapshot_bytes = 0
        self.snapshot_entries = SNAPSHOT_ENTRIES
        # Account numbers by the wallets' numbers in the state.
        self.accounts: list[int] = []
        self.enrolling: dict[WalletId, PublicKey] = {}
        self.keys = WalletKeys(state)

    @property
    def snapshot_due(self) -> bool:
        """Whether the entries since the last snapshot are worth another one."""
        worth = min(self.snapshot_bytes // SNAPSHOT_BYTES_PER_ENTRY, SNAPSHOT_ENTRIES_MAX)
        return self.size - self.snapshot_size >= max(self.snapshot_entries, worth)

    def snapshot(self) -> bytes:
        """The state as it is now; what is due next counts from here."""
        made = write_snapshot(self.state, self.frontier)
        self.snapshot_size, self.snapshot_bytes = self.size, len(made)
        return made

    @property
    def grace_s(self) -> int:
        """How long after its end a certificate still vouches for a checkpoint."""
        grace_s = self.state.journal_limit(JournalLimit.CERTIFICATE_GRACE_S)
        return ENDLESS_S if grace_s is None else grace_s

    async def open_accounts(self, connection: Connection) -> None:
        """Accounts for the wallets that are new in the state."""
        state = self.state
        fresh = range(len(self.accounts), len(state.numbers))
        if not fresh:
            return
        text = journal_text(state.journal)
        made = [
            offline(
                wallet_text(state.numbers[number]),
                journal=text,
                epoch=state.epoch,
                currency=state.currency,
            )
            for number in fresh
        ]
        numbers = await ensure_accounts(connection, made)
        self.accounts += [numbers[account.name] for account in made]


async def open_epoch(
    connection: Connection, *, journal: bytes, epoch: int, now_ms: int
) -> int | None:
    """The row of an epoch, opened where it is new; None where another epoch is in its place.

    The issuer certified the epoch: a later one than all before closes those.
    """
    found = await connection.fetchval(
        "SELECT epoch_id FROM journal_epoch WHERE journal = $1 AND epoch = $2",
        *(journal, epoch),
    )
    if found is not None:
        return int(found)
    newest = await connection.fetchval(
        "SELECT max(epoch) FROM journal_epoch WHERE journal = $1", journal
    )
    if newest is not None and newest > epoch:
        return None
    await connection.execute(
        "UPDATE journal_epoch SET state = 'closed', changed_ms = $2"
        " WHERE journal = $1 AND state = 'open'",
        *(journal, now_ms),
    )
    try:
        async with connection.transaction():
            made: int = await connection.fetchval(
                "INSERT INTO journal_epoch (journal, epoch, opened_ms, changed_ms)"
                " VALUES ($1, $2, $3, $3) RETURNING epoch_id",
                *(journal, epoch, now_ms),
            )
    except asyncpg.UniqueViolationError:
        return await open_epoch(connection, journal=journal, epoch=epoch, now_ms=now_ms)
    return made


async def load(
    connection: Connection, anchor: TrustAnchor, *, epoch_id: int, journal: bytes, epoch: int
) -> Replica:
    """Snapshot, then the entries after it. Raises: ReconcilerError `replica-broken`."""
    row = await connection.fetchrow(
        "SELECT size, applied, root, counter FROM journal_epoch WHERE epoch_id = $1", epoch_id
    )
    stored = await connection.fetchval(
        "SELECT snapshot FROM journal_snapshot WHERE epoch_id = $1", epoch_id
    )
    state, frontier = State(JournalId(journal), epoch), Frontier()
    if stored is not None:
        state, frontier = read_snapshot(stored, await lists_for(connection, stored))
        share(state)
    replica = Replica(epoch_id=epoch_id, state=state, frontier=frontier)
    replica.snapshot_bytes = 0 if stored is None else len(stored)
    segments = await connection.fetch(
        "SELECT first, entries, leaves FROM journal_segment"
        " WHERE epoch_id = $1 AND size > $2 ORDER BY first",
        *(epoch_id, frontier.size),
    )
    for segment in segments:
        await _replay(connection, anchor, replica, segment, applied=row["applied"])
    if replica.frontier.size != row["size"] or state.size != row["applied"]:
        raise ReconcilerError("replica-broken", "segments are missing")
    if row["size"] and replica.frontier.root() != row["root"]:
        raise ReconcilerError("replica-broken", "the entries do not give the root")
    replica.size, replica.counter = row["size"], row["counter"]
    await replica.open_accounts(connection)
    return replica


async def _replay(
    connection: Connection,
    anchor: TrustAnchor,
    replica: Replica,
    segment: Sequence[object],
    *,
    applied: int,
) -> None:
    first, raws, joined = segment
    assert isinstance(first, int) and isinstance(raws, list) and isinstance(joined, bytes)
    leaves = [joined[at : at + 32] for at in range(0, len(joined), 32)]
    skipped = replica.frontier.size - first
    entries = [decode_entry(raw) for raw in raws[skipped : max(applied - first, 0)]]
    facts = await facts_for(
        connection,
        replica.epoch_id,
        entries,
        known=replay_facts(entries),
        roots=replayed_roots(entries),
    )
    outcome = apply_entries(
        replica.state, entries, leaves[skipped:], ReplayContext(anchor, facts), facts
    )
    if outcome.refusal is not None:
        index = replica.state.size
        raise ReconcilerError("replica-broken", f"entry {index}: {outcome.refusal.code}")
    replica.frontier = Batch(replica.frontier, leaves[skipped:]).frontier
