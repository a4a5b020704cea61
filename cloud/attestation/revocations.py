"""Certificates of TPMs that their makers took back, as officers bring them: never taken off again.

One officer is enough: a revocation can only make fewer proofs pass. Whoever enrols with such a
certificate on its path is refused, and who had enrolled is suspended at the next report.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloud.attestation.checks import certificate_id
from cloud.database import Connection
from cloud.issuer import audit
from cloud.issuer.officers import Officer, Role
from hsm.attestation import Named


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """One certificate: its issuer's name in DER, its serial in hex."""

    issuer: bytes
    serial: str
    revoked_ms: int


async def revoke(
    connection: Connection, revoked: Sequence[Named], *, officer: Officer, now_ms: int
) -> int:
    """Take certificates back; how many were not before. Raises: IssuerError `role-missing`."""
    officer.require(Role.POLICY)
    made = await connection.fetch(
        "INSERT INTO endorsement_revocation (certificate, issuer, serial, revoked_by, revoked_ms)"
        " SELECT *, $4, $5 FROM unnest($1::bytea[], $2::bytea[], $3::text[])"
        " ON CONFLICT DO NOTHING RETURNING certificate",
        *([certificate_id(named) for named in revoked], [named.issuer for named in revoked]),
        [f"{named.serial:x}" for named in revoked],
        *(officer.officer_id, now_ms),
    )
    if made:
        await audit.record(
            connection,
            actor=officer.name,
            action="endorsement.revoke",
            subject=made[0]["certificate"].hex(),
            detail={"certificates": len(made)},
            now_ms=now_ms,
        )
    return len(made)


async def revoked_certificates(connection: Connection) -> frozenset[bytes]:
    """Identities of all that are revoked."""
    rows = await connection.fetch("SELECT certificate FROM endorsement_revocation")
    return frozenset(row["certificate"] for row in rows)


async def revoked_among(connection: Connection, certificates: Sequence[bytes]) -> frozenset[bytes]:
    """Identities of those of them that are revoked."""
    rows = await connection.fetch(
        "SELECT certificate FROM endorsement_revocation WHERE certificate = ANY ($1)",
        list(certificates),
    )
    return frozenset(row["certificate"] for row in rows)


async def list_revocations(connection: Connection, *, limit: int = 500) -> list[Revocation]:
    """The newest ones."""
    rows = await connection.fetch(
        "SELECT issuer, serial, revoked_ms FROM endorsement_revocation"
        " ORDER BY revoked_ms DESC, certificate LIMIT $1",
        limit,
    )
    return [Revocation(**dict(row)) for row in rows]
