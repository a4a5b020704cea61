"""Gateways: one-time tokens, enrolment, the certificates that they get and renew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.database import Connection, constraints_as
from cloud.errors import IssuerError
from cloud.issuer import audit, objects
from cloud.issuer.desk import Desk
from cloud.issuer.objects import policy_series
from cloud.issuer.officers import new_token, token_hash
from cloud.issuer.pki import certify_gateway, certify_journal
from cloud.issuer.profiles import DAY_MS
from cloud.issuer.proofs import requested_key
from cloud.issuer.succession import succeed, succession_of
from wallet.protocol.certificates import Chain, parse_certificate
from wallet.protocol.ids import journal_text
from wallet.protocol.keys import PublicKey, from_raw
from wallet.protocol.refusals import ProtocolError

PROOF_CONTEXT = b"cbdc-enrolment/1"
TOKEN_LIFE_MS = 7 * DAY_MS
FIRST_EPOCH = 1
HPKE_KEY_BYTES = 32
SUSPENDED, CLOSED = "suspended", "closed"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a new gateway shows: its token, keys, proofs. `csr_pem` is for its TLS certificate."""

    token: str
    algorithm: int
    public_key: bytes
    proof: bytes
    csr_pem: str
    hpke_key: bytes
    hosted_tier: int | None


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolled gateway."""

    journal: bytes
    name: str
    currency: str
    tiers: list[int]
    epoch: int
    cose_key: bytes
    hpke_key: bytes
    leaf: bytes
    authority: bytes
    transport_certificate: bytes
    hosted_tier: int | None
    state: str
    enrolled_ms: int
    seen_ms: int | None

    @property
    def chain(self) -> Chain:
        """The journal's certificates, leaf first."""
        return (self.leaf, self.authority)


_COLUMNS = ", ".join(Gateway.__struct_fields__)


async def add_gateway(
    connection: Connection,
    desk: Desk,
    *,
    name: str,
    currency: str,
    tiers: Sequence[int],
    actor: str,
    now_ms: int,
    closure_id: bytes | None = None,
) -> str:
    """A one-time token for a gateway that will enrol within a week; it is shown once.

    With a closure, it is for the gateway that goes on where another one ended.
    Raises: IssuerError `gateway-invalid`, `policy-unknown` for a currency without a policy.
    """
    if await objects.newest(connection, policy_series(currency)) is None:
        raise IssuerError("policy-unknown", currency)
    token, ordered = new_token(desk.random), sorted({int(tier) for tier in tiers})
    with constraints_as(IssuerError, "gateway-invalid"):
        await connection.execute(
            "INSERT INTO enrolment_token (token_hash, name, currency, tiers, made_by, created_ms,"
            " expires_ms, closure_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            *(token_hash(token), name, currency, ordered, actor, now_ms),
            *(now_ms + TOKEN_LIFE_MS, closure_id),
        )
    await audit.record(
        connection,
        actor=actor,
        action="gateway.add",
        subject=name,
        detail={"currency": currency, "tiers": [str(tier) for tier in ordered]},
        now_ms=now_ms,
    )
    return token


async def enrol(connection: Connection, desk: Desk, wanted: Wanted, *, now_ms: int) -> Gateway:
    """Certify a gateway. The same key with the same token gets the same answer again.

    Raises: IssuerError `token-unknown`, `token-used`, `token-expired`, `key-proof-invalid`; for a
    gateway that goes on where another one ended, `statement-pending` and `closure-used`.
    """
    row = await connection.fetchrow(
        "SELECT name, currency, tiers, expires_ms, journal, closure_id FROM enrolment_token"
        " WHERE token_hash = $1 FOR UPDATE",
        token_hash(wanted.token),
    )
    if row is None:
        raise IssuerError("token-unknown")
    key = _proven(wanted)
    if row["journal"] is not None:
        if row["journal"] != key.id:
            raise IssuerError("token-used", "another gateway enrolled with this token")
        return await find_gateway(connection, key.id)
    if now_ms > row["expires_ms"]:
        raise IssuerError("token-expired")
    epoch = FIRST_EPOCH
    if row["closure_id"] is not None:
        succession = await succession_of(connection, row["closure_id"])
        await succeed(connection, succession, key.id)
        epoch = succession.epoch + 1
    await _certify(connection, desk, wanted, key, row, epoch=epoch, now_ms=now_ms)
    await connection.execute(
        "UPDATE enrolment_token SET journal = $2 WHERE token_hash = $1",
        *(token_hash(wanted.token), key.id),
    )
    return await find_gateway(connection, key.id)


def _proven(wanted: Wanted) -> PublicKey:
    message = PROOF_CONTEXT + hashlib.sha256(wanted.token.encode()).digest()
    try:
        key = from_raw(wanted.algorithm, wanted.public_key)
        key.verify(wanted.proof, message)
    except ProtocolError as error:
        raise IssuerError("key-proof-invalid", "the journal's key did not sign this") from error
    if len(wanted.hpke_key) != HPKE_KEY_BYTES:
        raise IssuerError("key-proof-invalid", "an X25519 key has 32 bytes")
    return key


async def _certify(
    connection: Connection,
    desk: Desk,
    wanted: Wanted,
    key: PublicKey,
    row: Any,
    *,
    epoch: int,
    now_ms: int,
) -> None:
    workshop = desk.workshop(connection, now_ms=now_ms)
    try:
        csr = x509.load_pem_x509_csr(wanted.csr_pem.encode()).public_bytes(Encoding.DER)
    except ValueError as error:
        raise IssuerError("key-proof-invalid", "no readable request") from error
    leaf, authority = await certify_journal(
        workshop, desk.pki, journal=key.id, epoch=epoch, key=key
    )
    transport = await certify_gateway(workshop, desk.pki, journal=key.id, key=requested_key(csr))
    with constraints_as(IssuerError, "gateway-invalid"):
        made = await connection.fetchval(
            "INSERT INTO gateway (journal, name, currency, tiers, epoch, cose_key, hpke_key, leaf,"
            " authority, transport_certificate, hosted_tier, enrolled_ms)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
            # The same token again, in the epoch after the one that was closed.
            " ON CONFLICT (journal) DO UPDATE SET name = excluded.name, tiers = excluded.tiers,"
            " epoch = excluded.epoch, hpke_key = excluded.hpke_key, leaf = excluded.leaf,"
            " authority = excluded.authority, hosted_tier = excluded.hosted_tier,"
            " transport_certificate = excluded.transport_certificate, state = 'active',"
            " enrolled_ms = excluded.enrolled_ms, seen_ms = NULL"
            " WHERE gateway.state = 'closed' AND gateway.epoch < excluded.epoch RETURNING true",
            *(key.id, row["name"], row["currency"], row["tiers"], epoch, key.cose_key),
            *(wanted.hpke_key, leaf, authority, transport, wanted.hosted_tier, now_ms),
        )
    if not made:
        raise IssuerError("gateway-known", "this key belongs to an enrolled gateway")
    await audit.record(
        connection,
        actor="enrolment",
        action="gateway.enrol",
        subject=journal_text(key.id),
        detail={"name": row["name"]},
        now_ms=now_ms,
    )


async def find_gateway(connection: Connection, journal: bytes) -> Gateway:
    """Raises: IssuerError `gateway-unknown`."""
    row = await connection.fetchrow(f"SELECT {_COLUMNS} FROM gateway WHERE journal = $1", journal)
    if row is None:
        raise IssuerError("gateway-unknown")
    return Gateway(**dict(row))


async def held_size(at_home: Connection, journal: bytes, *, epoch: int) -> int:
    """How many entries of an epoch are held."""
    found = await at_home.fetchval(
        "SELECT size FROM journal_epoch WHERE journal = $1 AND epoch = $2", *(journal, epoch)
    )
    return found or 0


async def is_suspended(at_home: Connection, gateway: Gateway) -> bool:
    """Was its journal caught at what it must not do, or is its epoch over?

    It gets neither value nor certificates. `at_home`: where the journal lives.
    """
    found: bool = await at_home.fetchval(
        "SELECT EXISTS (SELECT FROM journal_epoch WHERE journal = $1 AND epoch = $2"
        " AND state = 'suspended')",
        *(gateway.journal, gateway.epoch),
    )
    return found or gateway.state in (SUSPENDED, CLOSED)


async def require_trusted(at_home: Connection, gateway: Gateway) -> None:
    """Raises: IssuerError `journal-suspended`, `journal-closed`."""
    if gateway.state == CLOSED:
        raise IssuerError("journal-closed", journal_text(gateway.journal))
    if await is_suspended(at_home, gateway):
        raise IssuerError("journal-suspended", journal_text(gateway.journal))


async def list_gateways(connection: Connection) -> list[Gateway]:
    """All gateways by name."""
    rows = await connection.fetch(f"SELECT {_COLUMNS} FROM gateway ORDER BY name, journal")
    return [Gateway(**dict(row)) for row in rows]


async def saw(connection: Connection, journal: bytes, *, now_ms: int) -> None:
    """A gateway has just synchronised."""
    await connection.execute("UPDATE gateway SET seen_ms = $2 WHERE journal = $1", journal, now_ms)


async def renewed(
    connection: Connection, desk: Desk, gateway: Gateway, *, shown_until_s: int, now_ms: int
) -> Chain | None:
    """What the journal's certificates should be, where it showed others.

    They are made anew once half of the newest one's life is gone. A journal that shows an older
    one has not received the newest: its answer was lost, and it gets it again.
    """
    leaf = parse_certificate(gateway.leaf)
    if now_ms < (leaf.not_before_s + leaf.not_after_s) * 500:
        return gateway.chain if shown_until_s < leaf.not_after_s else None
    chain = await certify_journal(
        desk.workshop(connection, now_ms=now_ms),
        desk.pki,
        journal=gateway.journal,
        epoch=gateway.epoch,
        key=leaf.key,
    )
    await connection.execute(
        "UPDATE gateway SET leaf = $2, authority = $3 WHERE journal = $1",
        *(gateway.journal, *chain),
    )
    return chain
