"""The journal as the synchronisation sees it: what to send, what is held, what came back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge.attesting import answer_question
from edge.folder import Folder
from edge.gateway import Opened
from edge.intake import Intake, held_keys, take_objects
from edge.log import Log
from edge.version import version
from edge.wishes import Wish, read_wishes
from hsm.api import attester_of
from sync.exchange import TAKES
from sync.ports import WHOLE, Load, Position
from sync.trail import HEALTH as TRAIL
from sync.trail import ROWS_MAX, Told, ToldRow, fitting_rows, to_health
from wallet.clock import Clock
from wallet.journal import stored_list
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.cose import assemble
from wallet.protocol.entry import EntryKind, ListUpdate, decode_entry
from wallet.protocol.envelope import (
    NEWEST_GRANTS,
    NEWEST_KEYS,
    NEWEST_LISTS,
    NEWEST_POLICY,
    Down,
    Up,
)
from wallet.protocol.keys import from_raw
from wallet.protocol.messages import to_sign
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code
from wallet.protocol.sealed import short_id
from wallet.store.audit import anchor_audit, audit_anchor, audit_head, page_audit
from wallet.store.connection import Connection
from wallet.store.meta import get_meta, put_meta
from wallet.store.objects import delete_receipts, oldest_receipts
from wallet.trail import AuditHead

SEGMENT_ENTRIES_MAX = 5_000
SEGMENT_BYTES_MAX = 4 * 1024 * 1024
# Whatever the policy says, an envelope holds 64 MiB, with all that travels beside the entries.
SEGMENT_BYTES_CAP = 48 * 1024 * 1024
# Few entries are smaller: no more are read than could fit. Their true size decides.
ENTRY_BYTES_SMALL = 256
COLLECTED_MAX = 200
METER = "sync-meter"
# More entries than an answer of the issuer becomes are looked at no further.
ISSUED_MAX = 50
_ISSUED = frozenset((EntryKind.SETTLEMENT, EntryKind.POLICY, EntryKind.LIST))
TEXT_MAX = 64
# An entry begins with a map of five and its kind: only those that name lists are decoded here.
_LIST = bytes((0xA5, 0x01, EntryKind.LIST))
_log = Log("sync")


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Entries from the acknowledged size on, and the checkpoint that covers exactly those."""

    acknowledged: int
    entries: tuple[bytes, ...]
    checkpoint: bytes


class JournalPort:
    """One open gateway's side of an exchange: a `sync.ports.JournalPort`."""

    def __init__(self, opened: Opened, *, folder: Folder, clock: Clock) -> None:
        self._opened = opened
        self._folder = folder
        self._clock = clock
        # Below this size, reports show the lists that their entries name.
        self._shown_below = 0
        # The head of the audit log that the report under way tells, and that the last one told.
        self._telling = self._told = AuditHead()
        # Answers come over the line and in files: one is taken at a time.
        self._taking = asyncio.Lock()

    @property
    def anchor(self) -> TrustAnchor:
        """The issuer's root."""
        return self._opened.journal.anchor

    def position(self) -> Position:
        """Where the journal stands now."""
        journal = self._opened.journal
        return Position(
            journal=journal.state.journal,
            epoch=journal.state.epoch,
            acknowledged=journal.acknowledged,
            size=journal.state.size,
        )

    # ---- what to send ---------------------------------------------------------------------
    async def segment(self, first: int | None = None, *, most: int | None = None) -> Segment | None:
        """The next entries, by the policy's bounds; None before anything is signed.

        `first`: begin there, and not where the issuer is known to have stopped. `most`: bytes of
        entries that the line carries well.
        What one checkpoint alone covers goes whole, however large. Raises: StoreError.
        """
        begin = self._opened.journal.acknowledged if first is None else first
        entries_max, bytes_max = self._bounds(most)
        while True:
            segment = await self._segment(begin, entries_max)
            if segment is None:
                return None
            count = len(segment.entries)
            fit = fitting(segment.entries, bytes_max=bytes_max)
            if fit >= count or count > entries_max:
                return segment
            entries_max = fit

    async def _segment(self, first: int, entries_max: int) -> Segment | None:
        journal = self._opened.journal
        end = await journal.segment_end(entries_max=entries_max, above=first)
        if end is None:
            return None
        size, checkpoint = end
        entries: tuple[bytes, ...] = ()
        if size > first:
            entries = tuple(await journal.entries(first, size - first))
        return Segment(acknowledged=first, entries=entries, checkpoint=checkpoint)

    def _bounds(self, most: int | None) -> tuple[int, int]:
        """Entries and bytes that a segment may have, by the policy (limits.md 114 and 115)."""
        state = self._opened.journal.state
        entries = state.journal_limit(JournalLimit.SEGMENT_ENTRIES_MAX)
        size = state.journal_limit(JournalLimit.SEGMENT_BYTES_MAX)
        bytes_max = min(SEGMENT_BYTES_MAX if size is None else size, SEGMENT_BYTES_CAP)
        bytes_max = bytes_max if most is None else min(bytes_max, most)
        entries_max = min(
            entries or SEGMENT_ENTRIES_MAX, bytes_max // ENTRY_BYTES_SMALL, SEGMENT_ENTRIES_MAX
        )
        return max(1, entries_max), bytes_max

    async def held(self) -> dict[int, int]:
        """The newest sequence of everything that is held (wire.cddl, up, item 8)."""
        journal = self._opened.journal
        keys = await held_keys(self._opened.database)
        newest = {
            NEWEST_POLICY: journal.status().policy_sequence,
            NEWEST_GRANTS: journal.state.grants_next - 1,
            NEWEST_KEYS: -1 if keys is None else keys.sequence,
        }
        for number, listed in journal.state.lists.items():
            newest[NEWEST_LISTS + number] = listed.sequence
        return {kind: sequence for kind, sequence in newest.items() if sequence >= 0}

    async def collected(self) -> list[tuple[bytes, bytes, bytes]]:
        """(leaf, entry, receipt) of other journals, the oldest first. Raises: StoreError."""
        found = await self._opened.database.read(lambda c: oldest_receipts(c, COLLECTED_MAX))
        return [(kept.hash, kept.entry, kept.receipt) for kept in found]

    async def handed_over(self, leaves: Sequence[bytes]) -> None:
        """The issuer has these. Raises: StoreError."""
        await self._opened.database.write(lambda c: delete_receipts(c, leaves))

    async def health(self, *, lean: bool = False) -> dict[str, Any]:
        """The audit log, the wallets that wait to be enrolled; release, mode and disk.

        `lean`: without the last three, which tell of the box and carry no value.
        The report is signed by the journal's key: what the issuer keeps of it shows a log that was
        cut off or written anew.
        """
        wishes = await self._opened.database.read(read_wishes)
        told = await self._opened.database.read(told_log)
        health: dict[str, Any] = {TRAIL: to_health(told)}
        if not lean:
            health |= {
                "version": version()[:TEXT_MAX],
                "mode": str(self._opened.journal.mode),
                "disk_free_mib": shutil.disk_usage(self._folder.root).free // 1024 // 1024,
                "time_ms": self._clock.now_ms(),
            }
        if wishes:
            health["enrol"] = [_wanted(wish) for wish in wishes]
        return health

    async def up(
        self, exchange: bytes, *, load: Load = WHOLE, first: int | None = None
    ) -> tuple[Up, list[bytes]] | None:
        """The claims of the next report, and the leaves of the receipts that travel with it.

        `first`: where its entries begin, for one of several that a courier carries; receipts
        travel with the one that begins where the issuer is known to have stopped.
        """
        segment = await self.segment(first, most=load.bytes_max)
        if segment is None:
            return None
        state = self._opened.journal.state
        lean = load.lean and segment.acknowledged + len(segment.entries) < state.size
        leading = segment.acknowledged == self._opened.journal.acknowledged
        collected = await self.collected() if leading and not lean else []
        health = await self.health(lean=lean)
        if load.answer_bytes_max is not None:
            health[TAKES] = load.answer_bytes_max
        if first is None:
            self._telling = head_told(health)
        attestation = await answer_question(
            attester_of(self._opened.token),
            self._opened.database,
            journal=state.journal,
            exchange=exchange,
            head=segment.checkpoint,
        )
        claims = Up(
            journal=state.journal,
            epoch=state.epoch,
            exchange=exchange,
            acknowledged_size=segment.acknowledged,
            entries=segment.entries,
            checkpoint=segment.checkpoint,
            newest=await self.held(),
            collected=tuple([(entry, receipt) for _, entry, receipt in collected]),
            health={**health, **await self._shown(segment), **attestation},
        )
        return claims, [leaf for leaf, _, _ in collected]

    async def _shown(self, segment: Segment) -> dict[str, Any]:
        """The signed lists that a segment names, for an issuer that has forgotten them."""
        if segment.acknowledged >= self._shown_below:
            return {}
        bodies = [decode_entry(raw).body for raw in segment.entries if raw.startswith(_LIST)]
        named = [body for body in bodies if isinstance(body, ListUpdate)]
        lists = [await stored_list(self._opened.database, update) for update in named]
        return {"lists": [listed.signed.raw for listed in lists]}

    async def waits(self) -> bool:
        """Whether entries of this branch's own, or wallets, wait to be told. Raises: StoreError."""
        journal = self._opened.journal
        rest = journal.state.size - journal.acknowledged
        wishes = await self._opened.database.read(lambda c: read_wishes(c, 1))
        if rest > ISSUED_MAX or wishes:
            return True
        raws = await journal.entries(journal.acknowledged, rest) if rest else []
        return not all(decode_entry(raw).kind in _ISSUED for raw in raws)

    async def load_meter(self) -> bytes | None:
        """What links have cost, as it was kept. Raises: StoreError."""
        return await self._opened.database.read(lambda c: get_meta(c, METER))

    async def keep_meter(self, counted: bytes) -> None:
        """Keep what links have cost. Raises: StoreError."""
        await self._opened.database.write(lambda c: put_meta(c, METER, counted))

    async def sign(self, payload: bytes, type_: str) -> bytes:
        """A COSE_Sign1 by the journal's key, with its certificates. Raises: HsmError."""
        signer = self._opened.token.signer
        key = from_raw(int(signer.algorithm), signer.public_key)
        protected, message = to_sign(key, type_, payload)
        signature = await signer.sign(message)
        return assemble(protected, payload, signature, self._opened.journal.chain)

    # ---- keys of the envelopes ------------------------------------------------------------
    async def recipient(self) -> bytes | None:
        """The issuer's X25519 key that is good for longest; None when none is held.

        One that has run out is used all the same: the issuer keeps its old keys, and a box that was
        away for long, or whose clock is wrong, gets newer ones by this very exchange.
        """
        keys = await held_keys(self._opened.database)
        return None if keys is None else max(keys.keys, key=lambda key: key.not_after_ms).x25519

    def own_keys(self) -> dict[bytes, X25519PrivateKey]:
        """The key that answers are sealed to, by its short id."""
        key = X25519PrivateKey.from_private_bytes(self._opened.identity.hpke_private)
        return {short_id(key.public_key().public_bytes_raw()): key}

    # ---- what came back -------------------------------------------------------------------
    async def take(self, down: Down) -> None:
        """Take the objects, then record what the issuer holds. Raises: StoreError."""
        await self.take_since(down, self._opened.journal.acknowledged)
        await self._anchor_audit()

    async def take_unasked(self, down: Down) -> Intake:
        """The objects of an answer to no report. Raises: StoreError."""
        async with self._taking:
            return await take_objects(self._opened.journal, self._opened.database, down.objects)

    async def take_since(self, down: Down, acknowledged: int) -> Intake:
        """The same for an answer that may be old. Raises: StoreError.

        `acknowledged`: what the issuer had said it holds when the report was made. An answer that
        says less than that tells of an issuer that lost entries; one that says less than is known
        now may only have been on its way for long.
        """
        journal, database = self._opened.journal, self._opened.database
        async with self._taking:
            intake = await take_objects(journal, database, down.objects)
            forgotten = down.problem == Code.PARENT_MISSING
            if down.problem is None and down.acknowledged_size < acknowledged:
                await journal.go_back(down.acknowledged_size)
                # Of the audit log it may have forgotten as much: it is told from its beginning.
                self._telling = AuditHead()
                forgotten = True
            if forgotten:
                self._shown_below = journal.state.size
            await journal.acknowledge(down.acknowledged_size)
        _log.info(
            "sync.exchanged",
            acknowledged=down.acknowledged_size,
            taken=intake.taken,
            refused=intake.refused,
        )
        return intake

    async def _anchor_audit(self) -> None:
        """The issuer was told this head of the audit log. Raises: StoreError."""
        head = self._telling
        if head != self._told:
            await self._opened.database.write(lambda connection: anchor_audit(connection, head))
            self._told = head


def head_told(health: dict[str, Any]) -> AuditHead:
    """The head of the audit log that a report tells."""
    return AuditHead(health[TRAIL]["rows"], health[TRAIL]["head"])


def told_log(connection: Connection) -> Told:
    """The rows of the audit log that the issuer was not told, as many as one report takes.

    Hashes are reckoned anew: what is told is what stands in the rows.
    """
    page = page_audit(connection, audit_anchor(connection).seq, ROWS_MAX)
    if not page:
        head = audit_head(connection)
        return Told(since=head, rows=(), head=head)
    rows = [ToldRow(time_ms=r.time_ms, action=r.action, details=r.details) for r in page]
    told = Told(
        since=AuditHead(page[0].seq - 1, page[0].previous),
        rows=fitting_rows(rows),
        head=AuditHead(),
    )
    return msgspec.structs.replace(told, head=told.places[-1])


def fitting(entries: Sequence[bytes], *, bytes_max: int) -> int:
    """How many of these entries, from the first on, have that size together; one at least."""
    count = total = 0
    for entry in entries:
        total += len(entry)
        if total > bytes_max:
            break
        count += 1
    return max(1, count)


def _wanted(wish: Wish) -> dict[str, Any]:
    wanted: dict[str, Any] = {"key": wish.key, "tier": wish.tier, "hosted": wish.hosted}
    return wanted if wish.label is None else {**wanted, "label": wish.label}
