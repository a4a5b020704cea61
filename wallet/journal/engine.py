"""Group commit: what arrives while a commit runs shares the next one; alone waits for nobody.

One task takes what waits, decides it on the state in memory, commits it in one transaction, signs
one checkpoint and answers everybody. Nothing is answered before the commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hsm.api import HsmError
from wallet.clock import FlooredClock
from wallet.faults import NO_FAULTS, Faults, Point
from wallet.journal.batches import BATCH_BYTES_MAX, entries_max, gather, is_slow, let_arrive
from wallet.journal.head import Head, SignedHead
from wallet.journal.index import names_of, payment_names, payment_wallets
from wallet.journal.names import Names
from wallet.journal.trust import NO_FACTS, Facts, TrustContext
from wallet.journal.values import Mode, Receipted
from wallet.protocol.checkpoint import PATH_LEAD
from wallet.protocol.entry import Payment, decode_entry
from wallet.protocol.merkle import Batch, Frontier, leaf_hash
from wallet.protocol.refusals import Code, Refusal, refuse
from wallet.protocol.rules import Proposal, decide, entry_bytes
from wallet.protocol.snapshot import write_snapshot
from wallet.protocol.state import Decision, State
from wallet.store.checkpoints import replace_checkpoint
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.errors import StoreError
from wallet.store.journal import append_entries, put_nodes

WAITING_MAX = 16_384
CHECKPOINT_SPACING = 64
BUSY_RETRY_MS = 1_000
UNRECEIPTED = "recorded; its receipt follows when the token is back"
# Modes in which what still waits in the queue is not decided any more.
_STOPPED = (Mode.SEALED, Mode.FROZEN_ROLLBACK, Mode.FROZEN_TAMPER)

Work = Callable[[Connection], None]


class Waiting(msgspec.Struct):
    """A proposal in the queue, and who waits for its outcome.

    `with_commit` writes in the same transaction as the entry, so that both stand or neither.
    """

    proposal: Proposal
    future: asyncio.Future[Receipted | Refusal]
    facts: Facts = NO_FACTS
    with_commit: Work | None = None


class Decided(msgspec.Struct, gc=False):
    """An accepted proposal on its way into the store."""

    waiting: Waiting
    decision: Decision
    entry: bytes
    leaf: bytes
    index: int


class Engine:
    """The one writer of a journal's state."""

    def __init__(
        self,
        *,
        database: Database,
        state: State,
        frontier: Frontier,
        names: Names,
        head: Head,
        signed: SignedHead | None,
        stored_size: int | None,
        clock: FlooredClock,
        context: TrustContext,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self.database = database
        self.state = state
        self.frontier = frontier
        self.names = names
        self._moving: asyncio.Task[bool] | None = None
        self.head = head
        self.signed = signed
        self.clock = clock
        self.context = context
        self.faults = faults
        self.mode = Mode.OPEN
        self.on_entries: Callable[[Sequence[Receipted]], None] = lambda receipted: None
        self.on_mode: Callable[[Mode], None] = lambda mode: None
        self.batch_bytes_max = BATCH_BYTES_MAX
        self._stored_size = stored_size
        self._kept_size = stored_size or 0
        self._unsaved: SignedHead | None = None
        self._queue: deque[Waiting] = deque()
        self._current: list[Waiting] = []
        self._arrived = asyncio.Event()
        # State, frontier and head change together: whoever signs or commits takes the turn.
        self.turn = asyncio.Lock()
        self._closing = False
        self._task: asyncio.Task[None]
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """Begin to serve the queue."""
        self.database.on_tampered = self._tampered
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A broken invariant: nobody may wait for ever, and the daemon has to stop."""
        self._closing = True
        for waiting in (*self._current, *self._queue):
            _answer(waiting, refuse(Code.BUSY, "the journal stopped"))
        self._queue.clear()
        self._report(task)

    def _report(self, task: asyncio.Task[Any]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not self.failed.done():
            self.failed.set_exception(failure)

    async def close(self) -> None:
        """Finish what waits, then leave a snapshot for a quick start."""
        self._closing = True
        self._arrived.set()
        await self._task
        if self._moving is not None:
            await asyncio.wait([self._moving])
        if self.mode is not Mode.FROZEN_TAMPER:
            async with self.turn:
                self.names.begin()
                snapshot = write_snapshot(self.state, self.frontier)
                if await self._flush(snapshot, self.state.size, self._store_checkpoint):
                    self._checkpoint_stored()

    def submit(self, waiting: Waiting) -> None:
        """Queue a proposal. A full queue refuses at once: `busy`."""
        if self._closing or len(self._queue) >= WAITING_MAX:
            refusal = Refusal(code=Code.BUSY, retry_after_ms=BUSY_RETRY_MS)
            _answer(waiting, refusal)
            return
        self._queue.append(waiting)
        self._arrived.set()

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                await let_arrive(self._queue)
                size = min(len(self._queue), entries_max(self.head.signing_ms))
                self._current = [self._queue.popleft() for _ in range(size)]
                async with self.turn:
                    await self.process(self._current)
                if is_slow(signing_ms := self.head.signing_ms) and not self._closing:
                    answered = len(self._current)
                    await gather(
                        self._queue, self._arrived, answered=answered, signing_ms=signing_ms
                    )
            self._current = []
            if self.names.due:
                async with self.turn:
                    self._begin_flush()
            if self._closing:
                return

    async def process(self, batch: list[Waiting]) -> None:
        """Decide, commit, sign, answer. The caller has the turn."""
        if self.mode in _STOPPED:
            # It was queued before the mode changed; nothing more may be recorded unsigned.
            for waiting in batch:
                _answer(waiting, refuse(Code(self.mode.value)))
            return
        mark = self.state.mark()
        decided, refused = self._decide(batch)
        if decided:
            tree = Batch(self.frontier, [item.leaf for item in decided])
            window = self.head.window_is_due(self.state)
            if not await self._commit(decided, tree, window=window):
                # Refusals too: they were decided on a state that did not come to be.
                self.state.rollback(mark)
                self._answer_busy(batch)
                return
            self.state.release()
            self.frontier = tree.frontier
            self.clock.raise_floor(self.state.time_ms)
            self._file(decided)
            self.follow_issuer()
            await self._receipt(decided, tree, window=window)
        else:
            self.state.release()
        for waiting, refusal in refused:
            _answer(waiting, refusal)

    # ---- deciding -----------------------------------------------------------------------
    def _decide(self, batch: list[Waiting]) -> tuple[list[Decided], list[tuple[Waiting, Refusal]]]:
        state, context = self.state, self.context
        now_ms, certainty = self.clock.read()
        now_ms = max(now_ms, state.time_ms)
        decided: list[Decided] = []
        refused: list[tuple[Waiting, Refusal]] = []
        bytes_left = self.batch_bytes_max
        for place, waiting in enumerate(batch):
            if bytes_left <= 0:
                # What is left is the next batch's, before what came later.
                self._queue.extendleft(reversed(batch[place:]))
                del batch[place:]
                break
            context.facts = waiting.facts
            outcome = decide(state, waiting.proposal, context, now_ms=now_ms, clock=certainty)
            if isinstance(outcome, Refusal):
                refused.append((waiting, outcome))
                continue
            entry = entry_bytes(state, outcome, time_ms=now_ms, clock=certainty)
            decided.append(Decided(waiting, outcome, entry, leaf_hash(entry), state.size))
            bytes_left -= len(entry)
            state.advance(outcome, time_ms=now_ms)
        return decided, refused

    # ---- committing ---------------------------------------------------------------------
    async def _commit(self, decided: list[Decided], tree: Batch, *, window: bool) -> bool:
        first = decided[0].index
        entries = [item.entry for item in decided]
        works = [item.waiting.with_commit for item in decided if item.waiting.with_commit]
        nodes = [(node.level, node.index, node.hash) for node in tree.completed()]
        at = self.faults.at

        def store(connection: Connection) -> None:
            append_entries(connection, first, entries)
            at(Point.ENTRIES_WRITTEN)
            if nodes:
                put_nodes(connection, nodes)
                at(Point.NODES_WRITTEN)
            self._store_checkpoint(connection)
            at(Point.CHECKPOINT_WRITTEN)
            if window:
                self.write_intent(connection)
            for work in works:
                work(connection)
            at(Point.WORKS_WRITTEN)

        at(Point.BEFORE_COMMIT)
        try:
            await self.database.write(store)
        except StoreError:
            return False
        at(Point.COMMITTED)
        self._checkpoint_stored()
        return True

    def write_intent(self, connection: Connection) -> None:
        """The counter's next value, in the transaction before it moves."""
        self.faults.at(Point.BEFORE_INTENT)
        self.head.write_intent(connection, size=self.state.size)
        self.faults.at(Point.INTENT_WRITTEN)

    def _store_checkpoint(self, connection: Connection) -> None:
        if self._unsaved is None:
            return
        apart = self._unsaved.size - self._kept_size >= CHECKPOINT_SPACING
        replaced = None if self._stored_size in (None, self._kept_size) else self._stored_size
        replace_checkpoint(
            connection,
            size=self._unsaved.size,
            checkpoint=self._unsaved.checkpoint,
            replaced=None if apart else replaced,
        )

    def _checkpoint_stored(self) -> None:
        if self._unsaved is None:
            return
        # The one before stays when this one is far from the last that was kept.
        if self._unsaved.size - self._kept_size >= CHECKPOINT_SPACING:
            self._kept_size = self._stored_size or 0
        self._stored_size = self._unsaved.size
        self._unsaved = None

    def _answer_busy(self, batch: list[Waiting]) -> None:
        code = Code.FROZEN_TAMPER if self.mode is Mode.FROZEN_TAMPER else Code.BUSY
        refusal = Refusal(code=code, detail="not stored", retry_after_ms=BUSY_RETRY_MS)
        for waiting in batch:
            _answer(waiting, refusal)

    def _file(self, decided: list[Decided]) -> None:
        for item in decided:
            proposal = item.waiting.proposal
            if isinstance(proposal, Payment):
                names = payment_names(proposal, item.leaf)
                wallets = payment_wallets(proposal)
            else:
                names, wallets = names_of(decode_entry(item.entry), item.leaf)
            self.names.add(item.index, names, wallets)

    # ---- signing and answering ----------------------------------------------------------
    async def _receipt(self, decided: list[Decided], tree: Batch, *, window: bool) -> None:
        signed = await self.sign(tree.root, window=window)
        if signed is None:
            refusal = refuse(Code.SEALED, UNRECEIPTED)
            for item in decided:
                _answer(item.waiting, refusal)
            return
        receipted = self._receipts(decided, tree, signed)
        self.on_entries(receipted)
        for item, made in zip(decided, receipted, strict=True):
            _answer(item.waiting, made)
        self.faults.at(Point.ANSWERED)

    async def sign(self, root: bytes, *, window: bool) -> SignedHead | None:
        """Sign the state's size; None, and `sealed`, when the token does not.

        With `window` the counter moves first: its intent must be durable by now.
        """
        at = self.faults.at
        try:
            if window:
                at(Point.INTENT_DURABLE)
                await self.head.move(self.state.size)
                at(Point.COUNTER_MOVED)
            at(Point.BEFORE_SIGNATURE)
            signed = await self.head.sign(self.state, root=root)
            at(Point.SIGNED)
        except HsmError:
            self.set_mode(Mode.SEALED)
            return None
        self.signed = self._unsaved = signed
        return signed

    def _receipts(self, decided: list[Decided], tree: Batch, signed: SignedHead) -> list[Receipted]:
        maker = self.head.maker(signed)
        time_ms = self.state.time_ms
        return [
            Receipted(
                index=item.index,
                kind=item.decision.kind,
                time_ms=time_ms,
                entry=item.entry,
                receipt=maker.receipt(item.index, path),
                leaf=item.leaf,
                soft=item.decision.soft,
            )
            for item, path in zip(decided, tree.joined_paths(PATH_LEAD), strict=True)
        ]

    def set_mode(self, mode: Mode) -> None:
        """Change what the journal can do, and tell. A journal that was tampered with stays so."""
        if mode is not self.mode and self.mode is not Mode.FROZEN_TAMPER:
            self.mode = mode
            self.on_mode(mode)

    def _tampered(self) -> int:
        """A page failed. What was released is not to be forgotten by the next start either."""
        self.set_mode(Mode.FROZEN_TAMPER)
        return 0 if self.signed is None else self.signed.size

    def follow_issuer(self) -> None:
        """Freeze when a list of the issuer revokes this journal, thaw when a newer one does not."""
        if self.mode is Mode.OPEN and self.state.revoked_here:
            self.set_mode(Mode.FROZEN_BY_ISSUER)
        elif self.mode is Mode.FROZEN_BY_ISSUER and not self.state.revoked_here:
            self.set_mode(Mode.OPEN)

    # ---- snapshots ----------------------------------------------------------------------
    def _begin_flush(self) -> None:
        """Names and a snapshot go into the store while payments go on. The caller has the turn."""
        snapshot, signed = write_snapshot(self.state, self.frontier), self.signed
        self.names.begin()

        def store(connection: Connection) -> None:
            # No snapshot without a checkpoint as new: a start holds one against the other.
            if signed is not None:
                size, checkpoint = signed.size, signed.checkpoint
                replace_checkpoint(connection, size=size, checkpoint=checkpoint, replaced=None)

        work = self._flush(snapshot, self.state.size, store)
        self._moving = asyncio.get_running_loop().create_task(work)
        self._moving.add_done_callback(self._report)

    async def _flush(self, snapshot: bytes, size: int, last: Work) -> bool:
        """Whether it is stored; a disk that is full is tried again later."""
        try:
            await self.names.move(self.database, size=size, snapshot=snapshot, last=last)
        except StoreError:
            return False
        return True


def _answer(waiting: Waiting, outcome: Receipted | Refusal) -> None:
    # Whoever gave up waiting asks again by the order's identity.
    if not waiting.future.done():
        waiting.future.set_result(outcome)
