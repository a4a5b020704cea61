"""The issuer's keys in PostgreSQL: made once, sealed, renewed in time."""

import secrets
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.database import Connection, Database
from cloud.issuer import profiles
from cloud.issuer.pki import (
    Pki,
    ServerCredentials,
    Workshop,
    certify_gateway,
    certify_journal,
    open_pki,
    server_credentials,
)
from cloud.issuer.vault import Vault
from hsm import software
from hsm.api import SealBroken, Sealer
from wallet.protocol.certificates import ROLES, TrustAnchor, check_journal_chain, check_role_chain
from wallet.protocol.keys import EDDSA, from_raw

NOW_MS = 1_780_000_000_000
JOURNAL = bytes(range(20))


@pytest.fixture
async def sealer(tmp_path: Path) -> Sealer:
    """The sealer of a new software token."""
    return (await software.create(tmp_path / "token", passphrase=b"words")).sealer


def workshop(connection: Connection, sealer: Sealer, *, now_ms: int = NOW_MS) -> Workshop:
    """A workshop with real randomness."""
    return Workshop(
        connection=connection, vault=Vault(sealer), now_ms=now_ms, random=secrets.token_bytes
    )


async def opened(database: Database, sealer: Sealer, *, now_ms: int = NOW_MS) -> Pki:
    """The issuer's keys at a time."""
    async with database.transaction() as connection:
        return await open_pki(
            workshop(connection, sealer, now_ms=now_ms), organisation="A central bank"
        )


async def test_keys_are_made_once_and_every_role_signs_under_the_root(
    database: Database, sealer: Sealer
) -> None:
    first, again = await opened(database, sealer), await opened(database, sealer)
    assert (first.root.der, first.journals.der) == (again.root.der, again.journals.der)
    assert first.transport.der == again.transport.der
    assert set(first.roles) == ROLES
    for name, role in again.roles.items():
        assert role.chain == first.roles[name].chain
        found = check_role_chain(role.chain, TrustAnchor(again.root.der), name)
        found.key.verify(await role.signer.sign(b"message"), b"message")


async def test_private_keys_are_stored_sealed(
    database: Database, sealer: Sealer, tmp_path: Path
) -> None:
    pki = await opened(database, sealer)
    secret = pki.root.authority().key.private_bytes_raw()
    async with database.transaction() as connection:
        rows = await connection.fetch("SELECT sealed FROM issuer_key")
        assert len(rows) == 3 + len(ROLES)
        assert not any(secret in row["sealed"] for row in rows)
    stranger = await software.create(tmp_path / "other", passphrase=b"words")
    with pytest.raises(SealBroken):
        await opened(database, stranger.sealer)


async def test_authorities_and_roles_are_renewed_before_their_end_and_the_root_is_not(
    database: Database, sealer: Sealer
) -> None:
    first = await opened(database, sealer)
    later = await opened(database, sealer, now_ms=NOW_MS + profiles.SUB_AUTHORITY_MS)
    assert later.root.der == first.root.der
    assert later.journals.der != first.journals.der
    for role, key in later.roles.items():
        assert key.chain != first.roles[role].chain
        assert key.not_after_ms > first.roles[role].not_after_ms


async def test_a_certified_journal_has_a_chain_and_a_record(
    database: Database, sealer: Sealer
) -> None:
    pki = await opened(database, sealer)
    key = from_raw(EDDSA, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    async with database.transaction() as connection:
        chain = await certify_journal(
            workshop(connection, sealer), pki, journal=JOURNAL, epoch=2, key=key
        )
        found = check_journal_chain(chain, TrustAnchor(pki.root.der), NOW_MS // 1_000, 0)
        assert (found.journal, found.epoch, found.key) == (JOURNAL, 2, key)
        row = await connection.fetchrow(
            "SELECT * FROM issued_certificate WHERE serial = $1", found.serials[0]
        )
    assert (row["purpose"], row["certificate"]) == ("journal", chain[0])
    assert row["not_after_ms"] == found.not_after_s * 1_000


async def test_a_gateways_certificate_is_for_tls_alone(database: Database, sealer: Sealer) -> None:
    pki = await opened(database, sealer)
    async with database.transaction() as connection:
        der = await certify_gateway(
            workshop(connection, sealer),
            pki,
            journal=JOURNAL,
            key=Ed25519PrivateKey.generate().public_key(),
        )
    certificate = x509.load_der_x509_certificate(der)
    certificate.verify_directly_issued_by(pki.transport.certificate)


async def served(
    database: Database, sealer: Sealer, pki: Pki, *hosts: str, now_ms: int = NOW_MS
) -> ServerCredentials:
    """The server's certificate for the hosts."""
    async with database.transaction() as connection:
        return await server_credentials(
            workshop(connection, sealer, now_ms=now_ms), pki, hosts=hosts
        )


async def test_the_servers_certificate_changes_with_its_names_and_before_its_end(
    database: Database, sealer: Sealer, tmp_path: Path
) -> None:
    pki = await opened(database, sealer)
    first = await served(database, sealer, pki, "localhost", "127.0.0.1")
    assert await served(database, sealer, pki, "localhost", "127.0.0.1") == first
    renamed = await served(database, sealer, pki, "cloud.example")
    assert renamed.certificate_pem != first.certificate_pem
    late_ms = NOW_MS + profiles.SERVER_MS * 4 // 5
    renewed = await served(database, sealer, pki, "cloud.example", now_ms=late_ms)
    assert renewed.not_after_ms > renamed.not_after_ms
    file = tmp_path / "server.pem"
    file.write_bytes(renewed.certificate_pem + renewed.key_pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
