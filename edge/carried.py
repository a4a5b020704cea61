"""Reports that left in files: what is remembered of each until its answer comes, and after."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from wallet.store.connection import Connection
from wallet.store.objects import (
    HeldObject,
    delete_object,
    list_objects,
    newest_object,
    put_object,
)
from wallet.trail import AuditHead

KIND = "courier-report"
CARRIED_MAX = 2_000


class Stage(enum.StrEnum):
    """How far it came. Only what is `written` is known to lie on a stick, whole, and to be needed.

    A report that came too early to the issuer stays `written`: it is to be brought there again.
    """

    MADE = "made"
    WRITTEN = "written"
    ANSWERED = "answered"
    REFUSED = "refused"


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """One report: entries `first` up to, not with, `end`.

    `acknowledged`: what the issuer had said it holds when the report was made. `leaves`: receipts
    of other journals that travel with it.
    """

    number: int
    exchange: bytes
    acknowledged: int
    first: int
    end: int
    made_ms: int
    leaves: list[bytes]
    audit_rows: int
    audit_head: bytes
    stage: Stage = Stage.MADE

    @property
    def told(self) -> AuditHead:
        """The head of the audit log that it tells."""
        return AuditHead(self.audit_rows, self.audit_head)


def keep_carried(connection: Connection, carried: Carried) -> None:
    """Remember it, or how far it came."""
    value = msgspec.msgpack.encode(carried)
    held = HeldObject(kind=KIND, sequence=carried.number, object=value)
    put_object(connection, held)


def next_number(connection: Connection, *, most: int = CARRIED_MAX) -> int:
    """The number of the next one. Where too many are remembered, the least needed is forgotten."""
    known = list_carried(connection)
    if len(known) >= most:
        spare = [carried for carried in known if carried.stage is not Stage.WRITTEN]
        delete_object(connection, KIND, (spare or known)[0].number)
    newest = newest_object(connection, KIND)
    return 0 if newest is None else newest.sequence + 1


def list_carried(connection: Connection) -> list[Carried]:
    """All that is remembered, the oldest first."""
    found = list_objects(connection, KIND, -1, CARRIED_MAX + 1)
    return [msgspec.msgpack.decode(held.object, type=Carried) for held in found]


def find_carried(connection: Connection, exchange: bytes) -> Carried | None:
    """The report with this exchange."""
    return next((held for held in list_carried(connection) if held.exchange == exchange), None)


def covered_size(carried: Sequence[Carried], acknowledged: int) -> int:
    """How far the files on sticks reach without a gap, from what the issuer holds on."""
    reached = acknowledged
    for one in sorted(carried, key=lambda held: held.first):
        if one.stage is Stage.WRITTEN and one.first <= reached:
            reached = max(reached, one.end)
    return reached


def carried_leaves(carried: Sequence[Carried]) -> set[bytes]:
    """Receipts of other journals that lie on sticks."""
    return {leaf for one in carried if one.stage is Stage.WRITTEN for leaf in one.leaves}
