"""What officers see of gateways' audit logs: the head that was told last, and contradictions."""

from __future__ import annotations

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.trails.following import Breach


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Two reports that contradict; `row` and `told` are of their heads."""

    finding_id: int
    code: Breach
    row: int
    told: int | None
    found_ms: int

    @property
    def sentence(self) -> str:
        """For people: what it means."""
        return _SENTENCES[self.code].format(row=self.row, told=self.told)


class Trail(msgspec.Struct, frozen=True, kw_only=True):
    """The audit log of one epoch of a gateway, as it was told."""

    journal: bytes
    epoch: int
    name: str
    row: int
    hash: bytes
    told_ms: int
    findings: list[Finding]


class Reports(msgspec.Struct, frozen=True, kw_only=True):
    """Both signed reports of a finding: envelopes `up`."""

    earlier: bytes
    later: bytes


_SENTENCES = {
    Breach.REWRITTEN: "row {row} was told, and is another one in the log that goes up to {told}",
    Breach.SHORTENED: "row {row} was told, and a later report's log ends at {told}",
    Breach.GAP: "the rows after {row} were never told, and the log goes up to {told}: they were"
    " taken out, or the issuer was restored from a backup",
    Breach.UNTOLD: "row {row} was told, and a report tells of no log that can be read",
}
_FINDING = ", ".join(Finding.__struct_fields__)


async def trails(connection: Connection) -> list[Trail]:
    """All that were told, by the gateway's name."""
    rows = await connection.fetch(
        "SELECT journal, gateway_trail.epoch, name, row, hash, told_ms FROM gateway_trail"
        " JOIN gateway USING (journal) ORDER BY name, journal, gateway_trail.epoch"
    )
    return [
        Trail(**dict(row), findings=await _findings(connection, row["journal"], row["epoch"]))
        for row in rows
    ]


async def _findings(connection: Connection, journal: bytes, epoch: int) -> list[Finding]:
    rows = await connection.fetch(
        f"SELECT {_FINDING} FROM trail_finding WHERE journal = $1 AND epoch = $2"
        " ORDER BY finding_id",
        *(journal, epoch),
    )
    return [msgspec.convert(dict(row), Finding) for row in rows]


async def reports_of(connection: Connection, finding_id: int) -> Reports:
    """The evidence of a finding. Raises: IssuerError `finding-unknown`."""
    row = await connection.fetchrow(
        "SELECT earlier, later FROM trail_finding WHERE finding_id = $1", finding_id
    )
    if row is None:
        raise IssuerError("finding-unknown", str(finding_id))
    return Reports(**dict(row))
