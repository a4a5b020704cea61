"""One exchange at the cloud: the envelope opened, the segment reconciled, the answer sealed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from cloud.attestation.questions import open_question
from cloud.attestation.reports import judge
from cloud.database import Connection, Database
from cloud.errors import CloudError
from cloud.ingest.held import held_of
from cloud.ingest.intake import Directly, Intake, Reconciling, Taken
from cloud.issuer.desk import Desk
from cloud.issuer.enrolments import (
    carry_wallets,
    enrolments_for,
    grants_for,
    set_enrolled,
    take_wishes,
)
from cloud.issuer.gateways import (
    CLOSED,
    FIRST_EPOCH,
    Gateway,
    find_gateway,
    held_size,
    is_suspended,
    renewed,
    saw,
)
from cloud.issuer.lacking import lacking
from cloud.issuer.restored import merge_lists, take_back
from cloud.issuer.succession import followed_by
from cloud.issuer.suspensions import list_suspended
from cloud.log import Log
from cloud.recovery.closures import keep_place_closed
from cloud.shards.homes import Site
from cloud.shards.shards import Shards
from cloud.trails.following import follow
from sync.exchange import OBJECTS_BYTES_MAX, build_down, first_objects, open_report, takes
from wallet.protocol.entry import EntryKind, decode_entry
from wallet.protocol.envelope import NEWEST_GRANTS, Up, VerifiedUp
from wallet.protocol.issued import Enrolment
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.sealed import seal

# An entry begins with a map of five and its kind: few are decoded here.
_OWN = (bytes((0xA5, 0x01, EntryKind.ENROL)), bytes((0xA5, 0x01, EntryKind.POLICY)))
_log = Log("sync")


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A report, its sealed answer, and what was held of the journal before and after."""

    up: Up
    gateway: str
    before: int
    acknowledged: int
    problem: str | None
    sealed: bytes


class Exchange:
    """Answers reports of gateways. `intake` has them reconciled: at once, or through the stream."""

    def __init__(
        self,
        *,
        database: Database,
        desk: Desk,
        reconciler: Reconciling,
        shards: Shards | None = None,
    ) -> None:
        self._database = database
        self._shards = shards or Shards([database])
        self._desk = desk
        self.intake: Intake = Directly(reconciler)

    async def answer(self, sealed: bytes, *, caller: bytes, now_ms: int) -> bytes:
        """The sealed answer to a sealed report.

        `caller` is the journal that the connection's certificate names.
        Raises: ProtocolError for an envelope that does not hold, CloudError.
        """
        envelope, verified = await self._open(sealed)
        if verified.claims.journal != caller:
            raise CloudError("wrong-gateway", "the connection is another gateway's")
        made = await self._answer(sealed, envelope, verified, now_ms=now_ms, carried=False)
        return made.sealed

    async def answer_carried(self, sealed: bytes, *, now_ms: int) -> Answered:
        """The same for a report that somebody carried here: whoever it was, the gateway signed it.

        Raises: ProtocolError for an envelope that does not hold, CloudError.
        """
        envelope, verified = await self._open(sealed)
        return await self._answer(sealed, envelope, verified, now_ms=now_ms, carried=True)

    async def _open(self, sealed: bytes) -> tuple[bytes, VerifiedUp]:
        # A report may be large: other gateways are answered while it is opened.
        return await asyncio.to_thread(
            open_report, sealed, keys=self._desk.hpke, root=self._desk.anchor
        )

    async def _answer(
        self, sealed: bytes, envelope: bytes, verified: VerifiedUp, *, now_ms: int, carried: bool
    ) -> Answered:
        up = verified.claims
        async with self._site(up.journal) as site:
            connection, at_home = site.head, site.home
            gateway = await find_gateway(connection, up.journal)
            if gateway.state == CLOSED or up.epoch < gateway.epoch:
                # Where its journal lives may have been restored to before that.
                await keep_place_closed(site, (up.journal, up.epoch), now_ms=now_ms)
            before = await held_size(at_home, up.journal, epoch=up.epoch)
            given: Any = {"now_ms": now_ms, "carried": carried, "at_home": at_home}
            proven = await judge(connection, self._desk, gateway, up, **given)
            await follow(connection, gateway, up, envelope, **given)
        # It may be large, and nobody looks at it again.
        del envelope
        taken = await self.intake.take(sealed, verified, now_ms=now_ms)
        async with self._site(up.journal) as site:
            connection, at_home = site.head, site.home
            held = await self._held(at_home, up, taken)
            kept = taken.problem is None and held >= up.acknowledged_size + len(up.entries)
            suspended = await is_suspended(at_home, gateway)
            first, later, left = await self._objects(
                connection,
                gateway,
                verified,
                kept=kept,
                suspended=suspended,
                proven=proven,
                now_ms=now_ms,
            )
        bytes_max = min(takes(up) or OBJECTS_BYTES_MAX, OBJECTS_BYTES_MAX)
        objects, cut = first_objects([*first, *taken.settlements, *later], bytes_max=bytes_max)
        _log.info(
            "exchange",
            gateway=gateway.name,
            entries=len(up.entries),
            acknowledged=held,
            problem=taken.problem,
            carried=carried,
        )
        payload = build_down(
            up,
            acknowledged=held,
            objects=objects,
            problem=taken.problem,
            waiting=left + cut,
        )
        signed = await self._desk.sign_down(payload)
        return Answered(
            up=up,
            gateway=gateway.name,
            before=before,
            acknowledged=held,
            problem=taken.problem,
            sealed=await asyncio.to_thread(seal, signed, recipient=gateway.hpke_key),
        )

    async def _held(self, connection: Connection, up: Up, taken: Taken) -> int:
        """What the gateway is told: nothing that is not stored, whoever says so."""
        if taken.acknowledged is None:
            return await held_of(connection, self._desk.anchor, up)
        if not taken.heard:
            return taken.acknowledged
        stored = await held_size(connection, up.journal, epoch=up.epoch)
        return min(taken.acknowledged, stored)

    async def _objects(
        self,
        connection: Connection,
        gateway: Gateway,
        verified: VerifiedUp,
        *,
        kept: bool,
        suspended: bool,
        proven: bool,
        now_ms: int,
    ) -> tuple[list[bytes], list[bytes], int]:
        """Before and after the settlement, and the bytes of what was not even read."""
        desk, up = self._desk, verified.claims
        entered = _entered(up)
        # What this report convicted others learn by the list, and this gateway by this answer.
        await list_suspended(connection, desk, now_ms=now_ms)
        await saw(connection, gateway.journal, now_ms=now_ms)
        enrolments = [body for body in entered if isinstance(body, Enrolment)]
        await set_enrolled(connection, gateway, enrolments)
        if not suspended and kept:
            await take_back(connection, entered, now_ms=now_ms)
            await merge_lists(connection, desk, now_ms=now_ms)
        common = await lacking(
            connection,
            gateway.currency,
            up.newest,
            bytes_max=min(takes(up) or OBJECTS_BYTES_MAX, OBJECTS_BYTES_MAX),
        )
        first = [*await open_question(connection, gateway.journal), *common.first]
        if suspended or not proven:
            return first, common.later, common.left_bytes
        await self._carry_on(connection, gateway, now_ms=now_ms)
        wishes = (up.health or {}).get("enrol")
        await take_wishes(connection, desk, gateway, wishes, now_ms=now_ms)
        chain = await renewed(
            connection,
            desk,
            gateway,
            shown_until_s=verified.certificate.not_after_s,
            now_ms=now_ms,
        )
        value = await enrolments_for(connection, gateway)
        value += await grants_for(
            connection, desk, gateway, held=up.newest.get(NEWEST_GRANTS), now_ms=now_ms
        )
        return [*(chain or ()), *first], [*value, *common.later], common.left_bytes

    @contextlib.asynccontextmanager
    async def _site(self, journal: bytes) -> AsyncIterator[Site]:
        """Transactions at the head, and where a journal lives."""
        async with (
            self._database.transaction() as connection,
            self._shards.site(connection, journal) as site,
        ):
            yield site

    async def _carry_on(self, connection: Connection, gateway: Gateway, *, now_ms: int) -> None:
        """More of the wallets of the epoch before, where this one goes on."""
        if gateway.epoch == FIRST_EPOCH:
            return
        before = await followed_by(connection, gateway.journal, epoch=gateway.epoch)
        if before is not None:
            await carry_wallets(connection, self._desk, gateway, before, now_ms=now_ms)


def _entered(up: Up) -> list[Enrolment | Policy]:
    """Enrolments and policies that the journal has entered."""
    found: list[Enrolment | Policy] = []
    for raw in up.entries:
        if not raw.startswith(_OWN):
            continue
        try:
            body = decode_entry(raw).body
        except ProtocolError:
            # The reconciler has judged it already.
            continue
        if isinstance(body, Enrolment | Policy):
            found.append(body)
    return found
