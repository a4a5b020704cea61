"""The issuer's certificates in use: made at the first start, renewed in time, kept sealed.

A root whose key is kept elsewhere renews nothing here: see `cloud.issuer.root`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from nacl.signing import SigningKey

from cloud.database import Connection
from cloud.errors import IssuerError
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
ROLE_PREFIX = "role/"
# A certificate is replaced once this part of its time is left: one in so many.
RENEWED_AT = 4
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
class Root:
    """The issuer's root; its key may be kept elsewhere."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey | None

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(Encoding.DER)

    def authority(self) -> Authority:
        """What certifies. Raises: IssuerError `root-away`."""
        if self.key is None:
            raise IssuerError("root-away", "its key is kept elsewhere: `issuer root requests`")
        return Authority(certificate=self.certificate, key=self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """The authorities and roles, open."""

    root: Root
    journals: Authority
    transport: Authority
    roles: Mapping[str, RoleKey]

    @property
    def ends_ms(self) -> int:
        """When the first of those ends that the root has certified."""
        roles = [role.not_after_ms for role in self.roles.values()]
        return min(profiles.not_after_ms(self.journals.certificate), *roles)


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
    """Load the keys, and make those that are missing or near their end.

    Raises: HsmError; IssuerError `root-away` where one is missing and the root is elsewhere.
    """
    await workshop.vault.lock(workshop.connection)
    root = await _open_root(workshop, organisation)
    transport = await _top(workshop, TRANSPORT, "Transport CA", organisation)
    return Pki(
        root=root,
        journals=await _journals(workshop, root),
        transport=Authority(certificate=transport.certificate, key=transport.authority().key),
        roles={role: await _role(workshop, root, role) for role in sorted(ROLES)},
    )


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
    return await record(workshop, "journal", certificate), pki.journals.der


async def certify_gateway(
    workshop: Workshop, pki: Pki, *, journal: bytes, key: CertifiedKey
) -> bytes:
    """A gateway's TLS client certificate; its holder has proven the key before."""
    certificate = profiles.make_gateway(
        pki.transport, journal=journal, key=key, now_ms=workshop.now_ms, random=workshop.random
    )
    return await record(workshop, "gateway", certificate)


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


async def _open_root(workshop: Workshop, organisation: str) -> Root:
    return await _top(workshop, ROOT, "Issuer Root", organisation)


async def _top(workshop: Workshop, name: str, title: str, organisation: str) -> Root:
    """What certifies itself: made once, and never replaced, for others trust it by hand."""
    stored = await workshop.vault.load(workshop.connection, name)
    if stored is None:
        seed = workshop.random(_KEY_BYTES)
        made = profiles.make_root(
            name=title,
            organisation=organisation,
            key=Ed25519PrivateKey.from_private_bytes(seed),
            now_ms=workshop.now_ms,
            random=workshop.random,
        )
        stored = await _keep(workshop, name, seed, made.certificate)
    key = Ed25519PrivateKey.from_private_bytes(stored.private) if stored.private else None
    return Root(certificate=_certificate(stored), key=key)


async def _journals(workshop: Workshop, root: Root) -> Authority:
    stored = await workshop.vault.load(workshop.connection, JOURNALS)
    if stored is None or _is_due(stored, root, profiles.SUB_AUTHORITY_MS, workshop.now_ms):
        seed = workshop.random(_KEY_BYTES)
        certificate = profiles.make_journal_authority(
            root.authority(),
            key=Ed25519PrivateKey.from_private_bytes(seed).public_key(),
            now_ms=workshop.now_ms,
            random=workshop.random,
        )
        stored = await _keep(workshop, JOURNALS, seed, certificate)
    key = Ed25519PrivateKey.from_private_bytes(stored.private)
    return Authority(certificate=_certificate(stored), key=key)


async def _role(workshop: Workshop, root: Root, role: str) -> RoleKey:
    name = ROLE_PREFIX + role
    stored = await workshop.vault.load(workshop.connection, name)
    if stored is None or _is_due(stored, root, profiles.ROLE_MS, workshop.now_ms):
        seed = workshop.random(_KEY_BYTES)
        key = Ed25519PrivateKey.from_private_bytes(seed).public_key()
        certificate = profiles.make_role(
            root.authority(), role, key=key, now_ms=workshop.now_ms, random=workshop.random
        )
        stored = await _keep(workshop, name, seed, certificate)
    return RoleKey(
        role=role,
        signer=_signer(stored.private),
        chain=(_certificate(stored).public_bytes(Encoding.DER),),
        not_after_ms=stored.not_after_ms,
    )


def _is_due(stored: StoredKey, root: Root, valid_ms: int, now_ms: int) -> bool:
    """Whether its time runs out, and whoever renews it is here."""
    return root.key is not None and stored.not_after_ms - now_ms <= valid_ms // RENEWED_AT


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
        certificate=await record(workshop, name, certificate),
        not_after_ms=profiles.not_after_ms(certificate),
    )
    await workshop.vault.store(workshop.connection, key, now_ms=workshop.now_ms)
    return key


async def record(workshop: Workshop, purpose: str, certificate: x509.Certificate) -> bytes:
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
    return same and stored.not_after_ms - now_ms > profiles.SERVER_MS // RENEWED_AT


def _certificate(stored: StoredKey) -> x509.Certificate:
    return x509.load_der_x509_certificate(stored.certificate or b"")


def _common_name(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
