"""A courier's side of the synchronisation: reports for sticks, and the answers that come back.

The envelopes are those of the line, and several may be on their way at once: each begins where the
one before ends, and only the issuer's answers say what it holds.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

import msgspec

from edge.carried import (
    Carried,
    Stage,
    covered_size,
    find_carried,
    keep_carried,
    list_carried,
    next_number,
)
from edge.gateway import Opened
from edge.intake import Intake
from edge.journal_port import JournalPort, head_told
from sync.courier import Fate, Kind, Label, Outcome, explained
from sync.errors import Code, SyncError
from sync.exchange import EXCHANGE_BYTES, UNASKED, check_acknowledged, open_down
from sync.ports import Position
from wallet.clock import Clock
from wallet.protocol.envelope import UP_TYPE, Down, Up, up_payload
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.sealed import seal
from wallet.store.audit import anchor_audit, audit_anchor
from wallet.store.connection import Connection
from wallet.trail import AuditHead


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed report and what to call it; `size`: where the journal ends now."""

    label: Label
    exchange: bytes
    size: int
    sealed: bytes


class Courier:
    """Makes reports and takes answers of one open gateway."""

    def __init__(
        self,
        opened: Opened,
        port: JournalPort,
        *,
        clock: Clock,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._opened = opened
        self._port = port
        self._clock = clock
        self._random = random

    # ---- what leaves ----------------------------------------------------------------------
    async def export(self, first: int | None = None) -> Exported:
        """The next report for a stick, from an entry on, or from what the issuer holds.

        Raises: SyncError `exchange-not-ready`, StoreError, HsmError, ProtocolError.
        """
        recipient = await self._port.recipient()
        position = self._port.position()
        begin = min(max(first or 0, position.acknowledged), position.size)
        prepared = await self._port.up(self._random(EXCHANGE_BYTES), first=begin)
        if recipient is None or prepared is None:
            raise SyncError(Code.NOT_READY, "no key of the issuer for envelopes is held yet")
        up, leaves = prepared
        await self._remember(up, leaves, acknowledged=position.acknowledged)
        envelope = await self._port.sign(up_payload(up), UP_TYPE)
        sealed = await asyncio.to_thread(seal, envelope, recipient=recipient)
        label = Label(
            kind=Kind.REPORT,
            journal=up.journal,
            epoch=up.epoch,
            first=up.acknowledged_size,
            end=up.acknowledged_size + len(up.entries),
            exchange=up.exchange,
            size_bytes=len(sealed),
        )
        return Exported(
            label=label, exchange=up.exchange, size=self._port.position().size, sealed=sealed
        )

    async def _remember(self, up: Up, leaves: list[bytes], *, acknowledged: int) -> None:
        told = head_told(up.health or {})

        def write(connection: Connection) -> None:
            carried = Carried(
                number=next_number(connection),
                exchange=up.exchange,
                acknowledged=acknowledged,
                first=up.acknowledged_size,
                end=up.acknowledged_size + len(up.entries),
                made_ms=self._clock.now_ms(),
                leaves=leaves,
                audit_rows=told.seq,
                audit_head=told.hash,
            )
            keep_carried(connection, carried)

        await self._opened.database.write(write)

    async def written(self, exchange: bytes) -> bool:
        """The report lies on a stick, durably. False for one that is not known. Raises: StoreError.

        From now on it stands for its entries when somebody asks whether all is safe.
        """

        def write(connection: Connection) -> bool:
            carried = find_carried(connection, exchange)
            if carried is not None and carried.stage is Stage.MADE:
                keep_carried(connection, msgspec.structs.replace(carried, stage=Stage.WRITTEN))
            return carried is not None

        return await self._opened.database.write(write)

    async def reached(self) -> int:
        """How far sticks reach without a gap, from what the issuer holds on. Raises: StoreError."""
        carried = await self._opened.database.read(list_carried)
        return covered_size(carried, self._port.position().acknowledged)

    # ---- what comes back ------------------------------------------------------------------
    async def take(self, sealed: bytes) -> Outcome:
        """Take an answer, and say what came of it. Raises: StoreError."""
        try:
            keys, root = self._port.own_keys(), self._port.anchor
            down = await asyncio.to_thread(open_down, sealed, keys=keys, root=root)
            if down.exchange == UNASKED:
                return await self._take_unasked(down)
            carried = await self._answered(down)
        except (SyncError, ProtocolError) as error:
            return explained(error, Kind.ANSWER)
        return await self._take(down, carried)

    def _check_ours(self, down: Down) -> Position:
        position = self._port.position()
        if (down.journal, down.epoch) != (position.journal, position.epoch):
            raise SyncError(Code.FOREIGN_ANSWER, "another journal or epoch")
        return position

    async def _take_unasked(self, down: Down) -> Outcome:
        """Its objects, and nothing that it says of sizes. Raises: SyncError, StoreError."""
        self._check_ours(down)
        intake = await self._port.take_unasked(down)
        if intake.taken:
            return _fate(Fate.TAKEN, f"{intake.taken} objects of the issuer came, unasked")
        if intake.refused:
            return _fate(Fate.REFUSED, f"its objects were refused: {', '.join(intake.refused)}")
        return _fate(Fate.KNOWN, "nothing new: all that the issuer sent unasked is held")

    async def _answered(self, down: Down) -> Carried:
        """The report that it answers. Raises: SyncError."""
        position = self._check_ours(down)
        carried = await self._opened.database.read(lambda c: find_carried(c, down.exchange))
        if carried is None:
            detail = "it answers no report that this gateway made, or one that it has forgotten"
            raise SyncError(Code.UNKNOWN_REPORT, detail)
        check_acknowledged(down, size=position.size)
        return carried

    async def _take(self, down: Down, carried: Carried) -> Outcome:
        before = self._port.position().acknowledged
        # An answer that was taken before says nothing of an issuer that lost something since.
        since = 0 if carried.stage is Stage.ANSWERED else carried.acknowledged
        intake = await self._port.take_since(down, since)
        outcome = _outcome(down, carried, intake, before=before)
        stage = _STAGES.get(outcome.code, carried.stage)
        if outcome.well:
            await self._port.handed_over(carried.leaves)

        def write(connection: Connection) -> None:
            keep_carried(connection, msgspec.structs.replace(carried, stage=stage))
            if outcome.code == Fate.REWOUND:
                # Of the audit log the issuer may have lost as much: it is told from its beginning.
                anchor_audit(connection, AuditHead())
            elif outcome.code in _FOLLOWED and audit_anchor(connection) < carried.told:
                anchor_audit(connection, carried.told)

        await self._opened.database.write(write)
        return outcome


# The issuer has followed the audit log that the report told; of one that came too early it has not.
_FOLLOWED = (Fate.TAKEN, Fate.KNOWN)
_STAGES: dict[str, Stage] = {
    Fate.TAKEN: Stage.ANSWERED,
    Fate.KNOWN: Stage.ANSWERED,
    Fate.REWOUND: Stage.ANSWERED,
    Fate.REFUSED: Stage.REFUSED,
}


def _outcome(down: Down, carried: Carried, intake: Intake, *, before: int) -> Outcome:
    """What an answer came to. `before`: what the issuer was known to hold until now."""
    held, range_ = down.acknowledged_size, f"entries {carried.first} to {carried.end}"
    if down.problem is not None:
        return _fate(Fate.REFUSED, f"the issuer kept nothing of {range_}: {down.problem}")
    if carried.stage is Stage.ANSWERED and held <= before and not intake.taken:
        return _fate(Fate.KNOWN, f"nothing new: the issuer's answer to {range_} was taken before")
    if held < carried.acknowledged:
        sentence = f"the issuer lost what it had from entry {held} on: export once more"
        return _fate(Fate.REWOUND, sentence)
    if held < carried.end:
        sentence = (
            f"{range_} came before those from {held} on: bring the stick with these to the issuer,"
            " then this one once more"
        )
        return _fate(Fate.EARLY, sentence)
    if held <= before and not intake.taken:
        return _fate(Fate.KNOWN, f"nothing new: that the issuer holds {range_} was known")
    refused = f", {len(intake.refused)} were refused" if intake.refused else ""
    sentence = f"the issuer holds {held} entries; {intake.taken} objects of it came{refused}"
    return _fate(Fate.TAKEN, sentence)


def _fate(fate: Fate, sentence: str) -> Outcome:
    return Outcome(code=fate, sentence=sentence)
