"""What a gateway has to prove of its keys, as the officer said who made its enrolment token.

A TPM proves itself. What a PKCS#11 token could prove differs from maker to maker, and nothing of
it is checked: that such keys are in hardware is the officer's word alone.
"""

from __future__ import annotations

import enum

import msgspec

from cloud.attestation.manifests import PcrPolicyName
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.officers import token_hash


class Level(enum.StrEnum):
    """Where the keys have to be; those of a higher level do as well."""

    TPM = "tpm"
    PKCS11 = "pkcs11"
    SOFTWARE = "software"


_ORDER = (Level.SOFTWARE, Level.PKCS11, Level.TPM)


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the gateway of one token; `journal`: who has used it."""

    token_hash: bytes
    name: str
    level: Level
    pcr_policy: PcrPolicyName
    refused: int
    journal: bytes | None
    expires_ms: int


_COLUMNS = ", ".join(Demand.__struct_fields__)


async def set_demand(
    connection: Connection,
    token: str,
    *,
    level: Level,
    pcr_policy: PcrPolicyName,
    actor: str,
    now_ms: int,
) -> None:
    """Say what the gateway of a new token has to prove; tokens of which nothing is said need a TPM.

    Raises: IssuerError `token-unknown`.
    """
    name = await connection.fetchval(
        "UPDATE enrolment_token SET level = $2, pcr_policy = $3 WHERE token_hash = $1"
        " RETURNING name",
        *(token_hash(token), level.value, pcr_policy),
    )
    if name is None:
        raise IssuerError("token-unknown")
    await audit.record(
        connection,
        actor=actor,
        action="gateway.level",
        subject=name,
        detail={"level": level.value, "pcr_policy": pcr_policy},
        now_ms=now_ms,
    )


async def inherit_demand(
    connection: Connection,
    token: str,
    before: bytes,
    *,
    level: Level | None = None,
    pcr_policy: PcrPolicyName | None = None,
    actor: str,
    now_ms: int,
) -> None:
    """Ask of a gateway that goes on where another one ended what was asked of that one, or more.

    `before`: the journal of the one that ended. A key stays where it was made: more can be asked
    of a new one alone.
    Raises: IssuerError `token-unknown`, `gateway-unknown`, `level-lowered`.
    """
    row = await connection.fetchrow(
        "SELECT level, pcr_policy FROM gateway_attestation WHERE journal = $1", before
    )
    if row is None:
        raise IssuerError("gateway-unknown", "nothing was asked of its hardware")
    asked = Level(row["level"])
    if level is not None and _ORDER.index(level) < _ORDER.index(asked):
        raise IssuerError("level-lowered", f"its keys had to be in {asked.value}")
    await set_demand(
        connection,
        token,
        level=level or asked,
        # Without a TPM there are no registers; the name of a policy stands there all the same.
        pcr_policy=pcr_policy or row["pcr_policy"] or "firmware",
        actor=actor,
        now_ms=now_ms,
    )


async def demand_of(connection: Connection, token: str) -> Demand:
    """The demand, locked for this transaction. Raises: IssuerError `token-unknown`."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM enrolment_token WHERE token_hash = $1 FOR UPDATE",
        token_hash(token),
    )
    if row is None:
        raise IssuerError("token-unknown")
    return msgspec.convert(dict(row), Demand)
