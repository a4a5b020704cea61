"""Each report's audit log is held against the one before: it has to go on where that one ended.

A contradiction suspends nobody: the log says what people did to the box, not what value did. It is
kept with both signed reports, which convict the gateway before anybody who has the issuer's root.
"""

from __future__ import annotations

import enum

import msgspec

from cloud.database import Connection
from cloud.issuer.gateways import Gateway, held_size
from cloud.log import Log
from cloud.reconciler.outbox import tell
from sync.trail import HEALTH, Told, from_health
from wallet.protocol.checkpoint import decode_checkpoint
from wallet.protocol.envelope import Up
from wallet.protocol.ids import journal_text
from wallet.protocol.refusals import ProtocolError
from wallet.trail import AuditHead

# Of one epoch: whoever contradicts himself so often fills nobody's disk.
FINDINGS_MAX = 16
_log = Log("trails")


class Breach(enum.StrEnum):
    """How two reports contradict. The codes are stable."""

    REWRITTEN = "audit-log-rewritten"
    SHORTENED = "audit-log-shortened"
    GAP = "audit-log-gap"
    UNTOLD = "audit-log-untold"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was told last: the log's head, and the journal's size then."""

    row: int
    hash: bytes
    size: int

    @property
    def head(self) -> AuditHead:
        """The log's head."""
        return AuditHead(self.row, self.hash)


async def follow(
    connection: Connection,
    gateway: Gateway,
    up: Up,
    report: bytes,
    *,
    now_ms: int,
    carried: bool = False,
    at_home: Connection | None = None,
) -> Breach | None:
    """Hold a report's audit log against the one before, and keep its head; what was found.

    `report`: the signed envelope; `carried`: it came in a file, as late as it may be; `at_home`: a
    transaction where the journal lives, unless that is `connection`. A report from
    before an issuer's backup is not judged: what it goes on from is forgotten, and the gateway
    tells it anew.
    """
    if up.acknowledged_size > await held_size(at_home or connection, up.journal, epoch=up.epoch):
        return None
    kept = await _kept(connection, up)
    told = _told(up)
    size = _size(up)
    breach = judge(kept, told, size=size, carried=carried)
    if breach is not None and kept is not None:
        await _note(connection, gateway, up, kept, told, breach, report=report, now_ms=now_ms)
    if told is not None and _moves(kept, told, breach):
        await _keep(connection, up, told, size=size, report=report, now_ms=now_ms)
    return breach


def judge(
    kept: Kept | None, told: Told | None, *, size: int, carried: bool = False
) -> Breach | None:
    """How a report contradicts the one that is kept; `size`: of its journal.

    Reports may come again, and late: one of which nothing says that it is later accuses nobody.
    """
    if kept is None:
        return None
    if told is None:
        return Breach.UNTOLD
    # 1. A log does not lose rows; a journal that has grown since says that this report is later,
    # unless somebody carried it: a slow line may have told less of the journal, and later.
    if told.head.seq < kept.row:
        return Breach.SHORTENED if size > kept.size and not carried else None
    # 2. What is told begins where the last report ended, or before.
    if told.since.seq > kept.row:
        return Breach.GAP
    # 3. It leads through the very row that was told.
    return None if kept.head in told.places else Breach.REWRITTEN


def _moves(kept: Kept | None, told: Told, breach: Breach | None) -> bool:
    """Is this the head to go on from? After a breach as well: the next one is to be seen."""
    return kept is None or breach is not None or told.head.seq > kept.row


def _told(up: Up) -> Told | None:
    value = (up.health or {}).get(HEALTH)
    try:
        return from_health(value)
    except ProtocolError:
        return None


def _size(up: Up) -> int:
    """Of the journal, as its checkpoint says; one that does not hold is the reconciler's matter."""
    try:
        return decode_checkpoint(up.checkpoint).head.size
    except ProtocolError:
        return 0


async def _kept(connection: Connection, up: Up) -> Kept | None:
    row = await connection.fetchrow(
        "SELECT row, hash, size FROM gateway_trail WHERE journal = $1 AND epoch = $2 FOR UPDATE",
        *(up.journal, up.epoch),
    )
    return None if row is None else Kept(**dict(row))


async def _keep(
    connection: Connection, up: Up, told: Told, *, size: int, report: bytes, now_ms: int
) -> None:
    await connection.execute(
        "INSERT INTO gateway_trail (journal, epoch, row, hash, size, report, told_ms)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (journal, epoch) DO UPDATE SET"
        " row = $3, hash = $4, size = $5, report = $6, told_ms = $7",
        *(up.journal, up.epoch, told.head.seq, told.head.hash, size, report, now_ms),
    )


async def _note(
    connection: Connection,
    gateway: Gateway,
    up: Up,
    kept: Kept,
    told: Told | None,
    breach: Breach,
    *,
    report: bytes,
    now_ms: int,
) -> None:
    """Keep both reports, once, and tell who acts on it."""
    made = await connection.fetchval(
        "INSERT INTO trail_finding (journal, epoch, code, row, told, earlier, later, found_ms)"
        " SELECT $1, $2, $3, $4, $5, report, $6, $7 FROM gateway_trail"
        " WHERE journal = $1 AND epoch = $2 AND $8 > (SELECT count(*) FROM trail_finding"
        "  WHERE journal = $1 AND epoch = $2) ON CONFLICT DO NOTHING RETURNING finding_id",
        *(up.journal, up.epoch, breach.value, kept.row),
        *(None if told is None else told.head.seq, report, now_ms, FINDINGS_MAX),
    )
    if made is None:
        return
    _log.warning("audit-log.contradiction", gateway=gateway.name, code=breach.value)
    body = {"journal": journal_text(up.journal), "epoch": up.epoch, "code": breach.value}
    await tell(connection, "gateway.audit-log", {**body, "finding": made}, now_ms=now_ms)
