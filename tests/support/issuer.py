"""An issuer and journals with keys of fixed seeds, for tests of certificates and receipts."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from wallet.protocol.cose import assemble
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.keys import EDDSA, ES256, PublicKey, from_raw, low_s
from wallet.protocol.messages import to_sign

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
START_S = 1_772_437_800
DAY_S = 86_400
NOW_S = START_S + DAY_S


class Key:
    """A private key of a seed, as a token would hold it."""

    def __init__(self, seed: str, algorithm: int = EDDSA) -> None:
        secret = hashlib.sha256(seed.encode()).digest()
        self.algorithm = algorithm
        self.private: PrivateKey
        if algorithm == EDDSA:
            self.private = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
            raw = self.private.public_key().public_bytes_raw()
        else:
            self.private = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
            point = self.private.public_key()
            raw = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        self.public: PublicKey = from_raw(algorithm, raw)

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(message)
        r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
        return low_s(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def sign_object(self, type_: str, payload: bytes, chain: tuple[bytes, ...] = ()) -> bytes:
        """A COSE_Sign1 as it travels."""
        protected, message = to_sign(self.public, type_, payload)
        return assemble(protected, payload, self.sign(message), chain)

    def pem(self) -> bytes:
        """The public key for other people's libraries."""
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )


def certificate(
    key: Key,
    *,
    subject: str,
    signer: Key,
    issuer: str,
    authority: bool = False,
    path_length: int | None = None,
    uris: Sequence[str] = (),
    start_s: int = START_S,
    end_s: int = START_S + 14 * DAY_S,
    serial: int | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    usage: x509.KeyUsage | None = None,
    constrained: bool = True,
    used: bool = True,
) -> bytes:
    """A certificate in DER; what is given beside the names makes it a wrong one."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.private.public_key())
        .serial_number(serial or 1 + int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8]))
        .not_valid_before(datetime.datetime.fromtimestamp(start_s, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(end_s, datetime.UTC))
    )
    if constrained:
        constraints = x509.BasicConstraints(ca=authority, path_length=path_length)
        builder = builder.add_extension(constraints, critical=True)
    if used:
        builder = builder.add_extension(usage or key_usage(authority=authority), critical=True)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    algorithm = None if signer.algorithm == EDDSA else hashes.SHA256()
    return builder.sign(signer.private, algorithm).public_bytes(Encoding.DER)


def key_usage(*, authority: bool, data: bool | None = None) -> x509.KeyUsage:
    """What a key may sign: certificates, or data."""
    return x509.KeyUsage(
        digital_signature=not authority if data is None else data,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Issuer:
    """A root, its sub-CA for journals, and its roles."""

    def __init__(self, name: str = "issuer", *, algorithm: int = EDDSA) -> None:
        self.name = name
        self.key = Key(f"{name}-root", algorithm)
        self.sub_key = Key(f"{name}-sub", algorithm)
        self.root = certificate(
            self.key,
            subject=f"{name} root",
            signer=self.key,
            issuer=f"{name} root",
            authority=True,
        )
        self.sub = certificate(
            self.sub_key,
            subject=f"{name} sub",
            signer=self.key,
            issuer=f"{name} root",
            authority=True,
            path_length=0,
            end_s=START_S + 700 * DAY_S,
        )

    def role(self, role: str) -> tuple[Key, tuple[bytes, ...]]:
        """The key of a role, and its chain."""
        key = Key(f"{self.name}-{role}")
        leaf = certificate(
            key,
            subject=f"role {role}",
            signer=self.key,
            issuer=f"{self.name} root",
            uris=[f"urn:cbdc:role:{role}"],
            end_s=START_S + 365 * DAY_S,
        )
        return key, (leaf,)


class Journal:
    """A journal under an issuer: its key, identifier, epoch and chain."""

    def __init__(self, issuer: Issuer, name: str, *, epoch: int = 1, algorithm: int = EDDSA):
        self.key = Key(f"journal-{name}", algorithm)
        self.journal = JournalId(self.key.public.id)
        self.epoch = epoch
        self.leaf = journal_leaf(issuer, self.key, uris=journal_uris(self.journal, epoch))
        self.chain = (self.leaf, issuer.sub)


def journal_uris(journal: bytes, epoch: int) -> list[str]:
    """The two names of a journal's leaf."""
    return [f"urn:cbdc:journal:{journal_text(journal)}", f"urn:cbdc:epoch:{epoch}"]


def journal_leaf(issuer: Issuer, key: Key, *, uris: Sequence[str]) -> bytes:
    """A leaf under the sub-CA."""
    return certificate(
        key, subject="journal", signer=issuer.sub_key, issuer=f"{issuer.name} sub", uris=uris
    )


__all__ = [
    "DAY_S",
    "ES256",
    "NOW_S",
    "START_S",
    "Issuer",
    "Journal",
    "Key",
    "certificate",
    "journal_leaf",
    "journal_uris",
    "key_usage",
]
