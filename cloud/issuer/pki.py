"""The issuer's certificates in use: made at the first start, renewed in time, kept sealed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from nacl.signing import SigningKey

from cloud.database import Connection
from cloud.issuer import profiles
from cloud.issuer.profiles import Authority, CertifiedKey, Random
from cloud.issuer.vault import StoredKey, Vault
from hsm.api import Algorithm, Signer
from hsm.software import SoftwareSigner
from wallet.protocol.certificates import ROLES, Chain
from wallet.protocol.keys import PublicKey

ROOT = "root"
JOURNALS = "journals"
TRANSPORT = "transport"
SERVER = "server"
# A certificate is replaced once this part of its time is left: one in so many.
_RENEWED_AT = 4
_KEY_BYTES = 32
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleKey:
    """The key of an issuer's role; `chain` is its leaf, which the root has issued."""

    role: str
    signer: Signer
    chain: Chain
    not_after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """The authorities and roles, open."""

    root: Authority
    journals: Authority
    transport: Authority
    roles: Mapping[str, RoleKey]


class ServerCredentials(msgspec.Struct, frozen=True, kw_only=True):
    """What the TLS server shows and holds, in PEM."""

    certificate_pem: bytes
    key_pem: bytes
    not_after_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Where certificates are made: a transaction, the vault, the time and the randomness."""

    connection: Connection
    vault: Vault
    now_ms: int
    random: Random


async def open_pki(workshop: Workshop, *, organisation: str) -> Pki:
    """Load the keys, and make those that are missing or near their end. Raises: HsmError."""
    await workshop.vault.lock(workshop.connection)
    root = await _authority(
        workshop,
        ROOT,
        lambda key: _root(workshop, "Issuer Root", organisation, key),
        renewed_ms=None,
    )
    journals = await _authority(
        workshop,
        JOURNALS,
        lambda key: profiles.make_journal_authority(
            root, key=key, now_ms=workshop.now_ms, random=workshop.random
        ),
        renewed_ms=profiles.SUB_AUTHORITY_MS // _RENEWED_AT,
    )
    transport = await _authority(
        workshop,
        TRANSPORT,
        lambda key: _root(workshop, "Transport CA", organisation, key),
        renewed_ms=None,
    )
    roles = {role: await _role(workshop, root, role) for role in sorted(ROLES)}
    return Pki(root=root, journals=journals, transport=transport, roles=roles)


async def certify_journal(
    workshop: Workshop, pki: Pki, *, journal: bytes, epoch: int, key: PublicKey
) -> Chain:
    """A journal's new certificate: leaf and sub-CA. Its holder has proven the key before."""
    certificate = profiles.make_journal(
        pki.journals,
        journal=journal,
        epoch=epoch,
        key=key,
        now_ms=workshop.now_ms,
        random=workshop.random,
    )
    return await _record(workshop, "journal", certificate), pki.journals.der


async def certify_gateway(
    workshop: Workshop, pki: Pki, *, journal: bytes, key: CertifiedKey
) -> bytes:
    """A gateway's TLS client certificate; its holder has proven the key before."""
    certificate = profiles.make_gateway(
        pki.transport, journal=journal, key=key, now_ms=workshop.now_ms, random=workshop.random
    )
    return await _record(workshop, "gateway", certificate)


async def server_credentials(
    workshop: Workshop, pki: Pki, *, hosts: Sequence[str]
) -> ServerCredentials:
    """The server's certificate for these hosts, new where the names changed or time runs out."""
    stored = await workshop.vault.load(workshop.connection, SERVER)
    if stored is None or not _serves(stored, hosts, workshop.now_ms):
        private = _scalar(workshop.random)
        certificate = profiles.make_server(
            pki.transport,
            hosts=hosts,
            key=private.public_key(),
            now_ms=workshop.now_ms,
            random=workshop.random,
        )
        number = private.private_numbers().private_value
        stored = await _keep(workshop, SERVER, number.to_bytes(_KEY_BYTES, "big"), certificate)
    held = ec.derive_private_key(int.from_bytes(stored.private, "big"), ec.SECP256R1())
    return ServerCredentials(
        certificate_pem=_certificate(stored).public_bytes(Encoding.PEM),
        key_pem=held.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        not_after_ms=stored.not_after_ms,
    )


def _root(workshop: Workshop, name: str, organisation: str, key: Ed25519PrivateKey) -> Authority:
    return profiles.make_root(
        name=name,
        organisation=organisation,
        key=key,
        now_ms=workshop.now_ms,
        random=workshop.random,
    )


async def _authority(
    workshop: Workshop,
    name: str,
    make: Callable[[Ed25519PrivateKey], Authority],
    *,
    renewed_ms: int | None,
) -> Authority:
    """The authority in use; a new one where there is none, or no more than `renewed_ms` is left.

    A root is never replaced by itself: others hold it, and trust it by hand.
    """
    stored = await workshop.vault.load(workshop.connection, name)
    if stored is not None and (
        renewed_ms is None or stored.not_after_ms - workshop.now_ms > renewed_ms
    ):
        key = Ed25519PrivateKey.from_private_bytes(stored.private)
        return Authority(certificate=_certificate(stored), key=key)
    seed = workshop.random(_KEY_BYTES)
    made = make(Ed25519PrivateKey.from_private_bytes(seed))
    await _keep(workshop, name, seed, made.certificate)
    return made


async def _role(workshop: Workshop, root: Authority, role: str) -> RoleKey:
    name = f"role/{role}"
    stored = await workshop.vault.load(workshop.connection, name)
    left_min_ms = profiles.ROLE_MS // _RENEWED_AT
    if stored is None or stored.not_after_ms - workshop.now_ms <= left_min_ms:
        seed = workshop.random(_KEY_BYTES)
        key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
        certificate = profiles.make_role(
            root, role, key=key, now_ms=workshop.now_ms, random=workshop.random
        )
        stored = await _keep(workshop, name, seed, certificate)
    return RoleKey(
        role=role,
        signer=_signer(stored.private),
        chain=(_certificate(stored).public_bytes(Encoding.DER),),
        not_after_ms=stored.not_after_ms,
    )


def _signer(seed: bytes) -> Signer:
    key = SigningKey(seed)
    return SoftwareSigner(
        Algorithm.EDDSA, bytes(key.verify_key), lambda message: key.sign(message).signature
    )


def _scalar(random: Random) -> ec.EllipticCurvePrivateKey:
    """A P-256 key of 64 random bits more than needed, so that the remainder is even enough."""
    number = int.from_bytes(random(_KEY_BYTES + 8), "big") % (_P256_ORDER - 1) + 1
    return ec.derive_private_key(number, ec.SECP256R1())


async def _keep(
    workshop: Workshop, name: str, private: bytes, certificate: x509.Certificate
) -> StoredKey:
    key = StoredKey(
        name=name,
        private=private,
        certificate=await _record(workshop, name, certificate),
        not_after_ms=profiles.not_after_ms(certificate),
    )
    await workshop.vault.store(workshop.connection, key, now_ms=workshop.now_ms)
    return key


async def _record(workshop: Workshop, purpose: str, certificate: x509.Certificate) -> bytes:
    """Note that a certificate was issued, and answer its bytes."""
    der = certificate.public_bytes(Encoding.DER)
    await workshop.connection.execute(
        "INSERT INTO issued_certificate VALUES ($1, $2, $3, $4, $5, $6)",
        *(profiles.serial_bytes(certificate), purpose, _common_name(certificate), der),
        *(profiles.not_after_ms(certificate), workshop.now_ms),
    )
    return der


def _serves(stored: StoredKey, hosts: Sequence[str], now_ms: int) -> bool:
    names = _certificate(stored).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    same = [str(name.value) for name in names.value] == list(hosts)
    return same and stored.not_after_ms - now_ms > profiles.SERVER_MS // _RENEWED_AT


def _certificate(stored: StoredKey) -> x509.Certificate:
    return x509.load_der_x509_certificate(stored.certificate or b"")


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
