"""How gateways stand, and how a suspension for their hardware ends: an officer lifts it.

Lifting trusts nobody: the next report is judged as ever, and suspends again unless its quote shows
an image that is approved by then. What else a journal was convicted of is never lifted here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cloud.attestation.levels import Level
from cloud.attestation.reports import EVIDENCE_KIND
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.gateways import find_gateway
from cloud.issuer.officers import Officer, Role
from cloud.reconciler.outbox import tell
from cloud.shards.homes import homes_of
from cloud.shards.messages import HEAD
from cloud.shards.shards import Shards
from wallet.protocol.codec import decode
from wallet.protocol.ids import journal_text
from wallet.protocol.issued import REGISTERS
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.shapes import choice, digest, mapping

PARTS_BYTES_MAX = 1 << 24
_VALUES = mapping(choice(*REGISTERS), digest)
_STANDING = (
    "SELECT journal, epoch, name, level, pcr_policy, image, checked_ms FROM gateway"
    " JOIN gateway_attestation USING (journal) ORDER BY name, journal"
)
# Where the journals live.
_SUSPENDED = (
    "SELECT gateway.journal, EXISTS (SELECT FROM journal_epoch AS held"
    "  WHERE held.journal = gateway.journal AND held.epoch = gateway.epoch"
    "  AND held.state = 'suspended') AS suspended, last.code, last.parts, last.found_ms"
    " FROM unnest($2::bytea[], $3::bigint[]) AS gateway (journal, epoch)"
    " LEFT JOIN LATERAL (SELECT code, parts, found_ms"
    "  FROM journal_evidence JOIN journal_epoch USING (epoch_id)"
    "  WHERE journal_epoch.journal = gateway.journal AND kind = $1"
    "  ORDER BY evidence_id DESC LIMIT 1) AS last ON true"
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway was suspended for last; values by register."""

    code: str
    found_ms: int
    found: dict[int, bytes]
    expected: list[tuple[str, dict[int, bytes]]]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is held to, and whether it is suspended, for whatever reason."""

    journal: bytes
    name: str
    level: Level
    pcr_policy: str | None
    image: str | None
    checked_ms: int | None
    suspended: bool
    finding: Finding | None


async def standings(connection: Connection, shards: Shards) -> list[Standing]:
    """All gateways by name. `connection`: at the head."""
    rows = await connection.fetch(_STANDING)
    homes = await homes_of(connection, [row["journal"] for row in rows])
    suspended: dict[bytes, Any] = {}
    for number, _ in shards:
        living = [row for row in rows if homes.get(row["journal"], HEAD) == number]
        places = [row["journal"] for row in living], [row["epoch"] for row in living]
        async with shards.beside(connection, number) as there:
            found = await there.fetch(_SUSPENDED, EVIDENCE_KIND, *places)
        suspended |= {row["journal"]: row for row in found}
    return [_standing({**row, **suspended[row["journal"]]}) for row in rows]


async def lift(
    connection: Connection,
    journal: bytes,
    *,
    officer: Officer,
    now_ms: int,
    at_home: Connection | None = None,
) -> int:
    """Let a journal report again that was suspended for its hardware; gives its epoch.

    `at_home`: a transaction where the journal lives, unless that is `connection`.
    Raises: IssuerError `role-missing`, `gateway-unknown`, `journal-not-suspended`,
    `suspension-kept` where it was convicted of something else as well.
    """
    officer.require(Role.ENROLMENT)
    gateway = await find_gateway(connection, journal)
    there = at_home or connection
    row = await there.fetchrow(
        "SELECT epoch_id, state, reason, (SELECT array_agg(DISTINCT code) FROM journal_evidence"
        "  WHERE journal_evidence.epoch_id = made.epoch_id AND kind <> $3) AS others"
        " FROM journal_epoch AS made WHERE journal = $1 AND epoch = $2 FOR UPDATE",
        *(journal, gateway.epoch, EVIDENCE_KIND),
    )
    if row is None or row["state"] != "suspended":
        raise IssuerError("journal-not-suspended", journal_text(journal))
    if row["others"]:
        raise IssuerError("suspension-kept", f"it was convicted of {', '.join(row['others'])}")
    await there.execute(
        "UPDATE journal_epoch SET state = 'open', reason = NULL, changed_ms = $2"
        " WHERE epoch_id = $1",
        *(row["epoch_id"], now_ms),
    )
    body = {"journal": journal_text(journal), "epoch": gateway.epoch, "code": row["reason"]}
    await tell(connection, "journal.lifted", body, now_ms=now_ms)
    await audit.record(
        connection,
        actor=officer.name,
        action="journal.lift",
        subject=journal_text(journal),
        detail={"epoch": gateway.epoch, "code": row["reason"]},
        now_ms=now_ms,
    )
    return gateway.epoch


def _standing(row: Any) -> Standing:
    values = {name: row[name] for name in Standing.__struct_fields__ if name != "finding"}
    finding = None if row["code"] is None else _finding(row)
    return msgspec.convert({**values, "finding": finding}, Standing)


def _finding(row: Any) -> Finding:
    given, _, expected = row["parts"]
    return Finding(
        code=row["code"],
        found_ms=row["found_ms"],
        found=_registers(given),
        expected=[tuple(pair) for pair in decode(expected, bytes_max=PARTS_BYTES_MAX)],
    )


def _registers(given: bytes) -> dict[int, bytes]:
    """The values beside a quote, whatever the gateway put there."""
    try:
        answer = decode(given, bytes_max=PARTS_BYTES_MAX)
        found: dict[int, bytes] = _VALUES(
            answer.get("registers") if isinstance(answer, dict) else None
        )
    except ProtocolError:
        return {}
    return found
