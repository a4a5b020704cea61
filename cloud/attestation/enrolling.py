"""Enrolment of a gateway that has to prove its hardware: a challenge, its answer, what is kept.

The gateway shows the public side of its TPM and is sent a nonce and a credential, which only that
TPM opens. Asking uses up no token. A nonce is good once, for ten minutes, for the token that asked.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from cloud.attestation import trust_drafts
from cloud.attestation.checks import (
    Challenged,
    Flaw,
    NotProven,
    Proof,
    Proven,
    Trusted,
    check_proof,
)
from cloud.attestation.levels import Demand, Level, demand_of
from cloud.attestation.questions import ask
from cloud.attestation.revocations import revoked_certificates
from cloud.database import Connection, Database
from cloud.errors import IssuerError
from cloud.issuer import audit
from cloud.issuer.desk import Desk
from cloud.issuer.gateways import Gateway, Wanted, enrol
from hsm.attestation import AttestationInvalid, make_challenge
from hsm.pcr_policies import PCR_POLICIES
from sync.attestation import enrolment_data
from wallet.protocol.keys import PublicKey, from_raw
from wallet.protocol.refusals import ProtocolError

NONCE_BYTES = ANSWER_BYTES = 32
CHALLENGE_MS = 10 * 60_000
# Of one token at a time: who asks more often has lost the answers.
CHALLENGES_MAX = 8
# A token that was refused so often is no gateway's that is being set up.
REFUSED_MAX = 50
CERTIFICATES_MAX, CERTIFICATE_BYTES_MAX, KEY_BYTES_MAX = 6, 8_192, 1_024


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The public side of a TPM: TPMT_PUBLIC of both keys, and certificates in DER."""

    attestation_key: bytes
    endorsement_key: bytes
    certificates: list[bytes]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway has to answer; nothing but the level where nothing can be proven."""

    level: Level
    nonce: bytes = b""
    registers: tuple[int, ...] = ()
    credential: bytes = b""
    secret: bytes = b""


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway brings for its level: the driver that it says to have, and its proof."""

    driver: str | None
    proof: Proof | None


async def challenge(
    connection: Connection, desk: Desk, token: str, shown: Shown, *, now_ms: int
) -> Asked:
    """Ask the TPM that is shown.

    Raises: IssuerError `token-unknown`, `token-expired`, `token-exhausted`; NotProven.
    """
    demand = await demand_of(connection, token)
    _check_usable(demand, now_ms=now_ms)
    if demand.level is not Level.TPM:
        return Asked(level=demand.level)
    nonce, answer = desk.random(NONCE_BYTES), desk.random(ANSWER_BYTES)
    made = _credential(shown, answer)
    await connection.execute(
        "INSERT INTO enrolment_challenge (nonce, token_hash, answer_hash, attestation_key,"
        " endorsement_key, certificates, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        *(nonce, demand.token_hash, hashlib.sha256(answer).digest()),
        *(shown.attestation_key, shown.endorsement_key, list(shown.certificates)),
        now_ms + CHALLENGE_MS,
    )
    await connection.execute(
        "DELETE FROM enrolment_challenge WHERE expires_ms < $2 OR challenge_id IN (SELECT"
        "  challenge_id FROM enrolment_challenge WHERE token_hash = $1"
        "  ORDER BY challenge_id DESC OFFSET $3)",
        *(demand.token_hash, now_ms, CHALLENGES_MAX),
    )
    return Asked(
        level=demand.level,
        nonce=nonce,
        registers=PCR_POLICIES[demand.pcr_policy],
        credential=made.credential,
        secret=made.secret,
    )


@contextlib.asynccontextmanager
async def refusals_noted(database: Database, token: str, *, now_ms: int) -> AsyncIterator[None]:
    """Have the audit log tell of what was not proven: the refused transaction leaves nothing."""
    try:
        yield
    except NotProven as error:
        async with database.transaction() as connection:
            await _note_refusal(connection, token, error, now_ms=now_ms)
        raise


async def use_challenge(
    database: Database, token: str, claimed: Claimed, *, now_ms: int
) -> Challenged | None:
    """What a proof has to answer. Its nonce is used up, whatever comes of the enrolment.

    Raises: IssuerError `token-unknown`.
    """
    if claimed.proof is None:
        return None
    async with database.transaction() as connection:
        demand = await demand_of(connection, token)
        row = await connection.fetchrow(
            "DELETE FROM enrolment_challenge WHERE nonce = $1 AND token_hash = $2"
            " AND expires_ms >= $3"
            " RETURNING answer_hash, attestation_key, endorsement_key, certificates",
            *(claimed.proof.nonce, demand.token_hash, now_ms),
        )
    return None if row is None else msgspec.convert(dict(row), Challenged)


async def enrol_attested(
    connection: Connection,
    desk: Desk,
    wanted: Wanted,
    claimed: Claimed,
    challenged: Challenged | None,
    *,
    now_ms: int,
) -> Gateway:
    """Certify a gateway that proves what its token demands. Raises: as `enrol`; NotProven."""
    demand = await demand_of(connection, wanted.token)
    fresh = demand.journal is None and now_ms <= demand.expires_ms
    proven = None
    if fresh:
        _check_usable(demand, now_ms=now_ms)
        proven = await _prove(connection, demand, wanted, claimed, challenged, now_ms=now_ms)
    # A token that is used or out of date enrols nobody: this answers, or raises.
    gateway = await enrol(connection, desk, wanted, now_ms=now_ms)
    if fresh:
        await _keep(connection, desk, gateway, demand, proven, now_ms=now_ms)
    return gateway


async def _prove(
    connection: Connection,
    demand: Demand,
    wanted: Wanted,
    claimed: Claimed,
    challenged: Challenged | None,
    *,
    now_ms: int,
) -> Proven | None:
    if demand.level is not Level.TPM:
        # Nothing is proven: a mistake is found by the gateway's own word, a lie is not.
        if demand.level is Level.PKCS11 and claimed.driver not in ("pkcs11", "tpm"):
            raise NotProven(Flaw.LEVEL, "a PKCS#11 token is asked for, the keys are in software")
        return None
    if claimed.proof is None:
        raise NotProven(Flaw.MISSING, "keys in a TPM are asked for, and nothing proves them")
    if challenged is None:
        raise NotProven(Flaw.STALE, "the nonce is unknown, used or too old: ask for another one")
    key = _key(wanted)
    return check_proof(
        claimed.proof,
        challenged,
        Trusted(
            roots=await trust_drafts.maker_roots(connection),
            revoked=await revoked_certificates(connection),
            images=await trust_drafts.images_of(connection),
        ),
        policy=demand.pcr_policy,
        data=enrolment_data(
            claimed.proof.nonce,
            cose_key=key.cose_key,
            tls_csr=wanted.csr_pem,
            hpke_key=wanted.hpke_key,
        ),
        key=key.raw,
        now_ms=now_ms,
    )


async def _keep(
    connection: Connection,
    desk: Desk,
    gateway: Gateway,
    demand: Demand,
    proven: Proven | None,
    *,
    now_ms: int,
) -> None:
    """Remember what the gateway is held to, in the place of what it was in an earlier epoch."""
    values: dict[str, Any] = {"journal": gateway.journal, "level": demand.level.value}
    if proven is not None:
        values |= {**msgspec.structs.asdict(proven), "pcr_policy": demand.pcr_policy}
        asked = await ask(desk, gateway.journal, demand.pcr_policy, now_ms=now_ms)
        values |= {"nonce": asked.nonce, "question": asked.question, "checked_ms": now_ms}
    await connection.execute("DELETE FROM gateway_attestation WHERE journal = $1", gateway.journal)
    places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
    await connection.execute(
        f"INSERT INTO gateway_attestation ({', '.join(values)}) VALUES ({places})",
        *values.values(),
    )


async def _note_refusal(
    connection: Connection, token: str, error: NotProven, *, now_ms: int
) -> None:
    demand = await demand_of(connection, token)
    await connection.execute(
        "UPDATE enrolment_token SET refused = refused + 1 WHERE token_hash = $1",
        demand.token_hash,
    )
    await audit.record(
        connection,
        actor="enrolment",
        action="gateway.refuse",
        subject=demand.name,
        detail={"code": error.code, "detail": error.detail, "level": demand.level.value},
        now_ms=now_ms,
    )


def _check_usable(demand: Demand, *, now_ms: int) -> None:
    # Who enrolled with it and lost the answer may ask again whenever that is.
    if demand.journal is None and now_ms > demand.expires_ms:
        raise IssuerError("token-expired")
    if demand.refused >= REFUSED_MAX:
        raise IssuerError("token-exhausted", "refused too often: ask for another token")


def _credential(shown: Shown, answer: bytes) -> Any:
    keys = (shown.attestation_key, shown.endorsement_key)
    many = len(shown.certificates) > CERTIFICATES_MAX
    if many or any(len(part) > CERTIFICATE_BYTES_MAX for part in shown.certificates):
        raise NotProven(Flaw.MALFORMED, f"at most {CERTIFICATES_MAX} certificates are looked at")
    try:
        if any(len(key) > KEY_BYTES_MAX for key in keys):
            raise AttestationInvalid("a public area is too long")
        return make_challenge(
            answer, endorsement_key=shown.endorsement_key, attestation_key=shown.attestation_key
        )
    except AttestationInvalid as error:
        raise NotProven(Flaw.MALFORMED, str(error)) from error


def _key(wanted: Wanted) -> PublicKey:
    try:
        return from_raw(wanted.algorithm, wanted.public_key)
    except ProtocolError as error:
        raise IssuerError("key-proof-invalid", "no key of a journal") from error
