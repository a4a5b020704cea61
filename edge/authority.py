"""The branch's own certificate authority: it knows terminals, and is known to this gateway alone.

Path length 0, ECDSA P-256 (every TLS library has it), not under the issuer's root. Its key is
sealed by the token and opened to sign only; the server's key is a file, so that a gateway whose
token is gone can still say so.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.errors import FileUnreadable, PairingRefused
from edge.folder import Folder
from edge.secret_input import read_file
from hsm.api import Sealer
from hsm.files import replace_durably
from hsm.memory import wipe

TERMINAL_URI = "urn:cbdc:terminal:"
KEY_LABEL = "terminal-authority"
NEXT = "authority.next"
AUTHORITY_DAYS = 3650
SERVER_DAYS = 3650
TERMINAL_DAYS = 730
BACKDATED = datetime.timedelta(minutes=10)
PEM_BYTES_MAX = 64 * 1024
_HASH = hashes.SHA256()


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A terminal's new certificate."""

    pem: str
    serial: bytes


class Authority:
    """Signs certificates of terminals and of this gateway's server."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    def sign_terminal(self, csr: x509.CertificateSigningRequest, *, terminal: str) -> Issued:
        """A TLS client certificate for the key of a request; nothing else is taken from it."""
        uri = x509.UniformResourceIdentifier(TERMINAL_URI + terminal)
        certificate = _sign(
            self._key,
            issuer=self.certificate.subject,
            subject=f"terminal {terminal}",
            key=csr.public_key(),
            days=TERMINAL_DAYS,
            extensions=[
                (x509.SubjectAlternativeName([uri]), False),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                *_leaf_extensions(),
            ],
        )
        serial = certificate.serial_number
        return Issued(
            pem=certificate.public_bytes(Encoding.PEM).decode(),
            serial=serial.to_bytes((serial.bit_length() + 7) // 8, "big"),
        )

    def sign_server(self, key: ec.EllipticCurvePublicKey, names: Sequence[str]) -> x509.Certificate:
        """The certificate of the gateway's own server."""
        return _sign(
            self._key,
            issuer=self.certificate.subject,
            subject="gateway",
            key=key,
            days=SERVER_DAYS,
            extensions=[
                (x509.SubjectAlternativeName([_general_name(name) for name in names]), False),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                *_leaf_extensions(),
            ],
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _leaf_extensions() -> list[tuple[x509.ExtensionType, bool]]:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return [(x509.BasicConstraints(ca=False, path_length=None), True), (usage, True)]


def _sign(
    signer: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Name,
    subject: str,
    key: CertificatePublicKeyTypes,
    days: int,
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, _HASH)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _authority_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # The name tells authorities of two gateways apart.
    tag = hashlib.sha256(spki(key.public_key())).hexdigest()[:16]
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    subject = f"terminals of gateway {tag}"
    return _sign(
        key,
        issuer=_name(subject),
        subject=subject,
        key=key.public_key(),
        days=AUTHORITY_DAYS,
        extensions=[(x509.BasicConstraints(ca=True, path_length=0), True), (usage, True)],
    )


def spki(key: CertificatePublicKeyTypes) -> bytes:
    """SubjectPublicKeyInfo in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# ---- files --------------------------------------------------------------------------------


def has_authority(folder: Folder) -> bool:
    """Whether the folder holds a complete branch identity: the certificate is written last."""
    return server_files(folder)[0].is_file()


async def make_authority(folder: Folder, sealer: Sealer, *, names: Sequence[str]) -> None:
    """Make authority and server certificate, once; a half-made one is made anew.

    Raises: HsmError, OSError.
    """
    if has_authority(folder):
        return
    authority = await new_authority(folder, sealer, name="authority")
    key, certificate = new_server(authority, names)
    replace_durably(folder.tls / "server.key", key)
    replace_durably(folder.tls / "server.crt", certificate)


async def new_authority(folder: Folder, sealer: Sealer, *, name: str) -> Authority:
    """Make an authority in the folder, its certificate last. Raises: HsmError, OSError."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = Authority(key, _authority_certificate(key))
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = await sealer.seal(secret, label=KEY_LABEL)
    wipe(secret)
    replace_durably(folder.tls / f"{name}.key.sealed", sealed)
    replace_durably(folder.tls / f"{name}.crt", _pem(authority.certificate))
    return authority


def new_server(authority: Authority, names: Sequence[str]) -> tuple[bytes, bytes]:
    """A server's key and certificate, PEM."""
    server = ec.generate_private_key(ec.SECP256R1())
    key = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key, _pem(authority.sign_server(server.public_key(), names))


async def open_authority(folder: Folder, sealer: Sealer, *, name: str = "authority") -> Authority:
    """The authority, to sign with. Raises: HsmError, FileUnreadable."""
    sealed = read_file(folder.tls / f"{name}.key.sealed", bytes_max=PEM_BYTES_MAX)
    secret = await sealer.unseal(sealed, label=KEY_LABEL)
    key = load_der_private_key(secret, None)
    wipe(secret)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FileUnreadable("the terminals' authority has no P-256 key")
    return Authority(key, _load(folder, f"{name}.crt"))


def authority_certificate(folder: Folder) -> x509.Certificate:
    """The certificate of the authority that signed the server's. Raises: FileUnreadable."""
    return _load(folder, "authority.crt")


def server_certificate(folder: Folder) -> x509.Certificate:
    """The server's certificate. Raises: FileUnreadable."""
    return _load(folder, server_files(folder)[0].name)


def server_files(folder: Folder) -> tuple[Path, Path]:
    """Where the server's certificate and its key are: in one file once they were exchanged."""
    both = folder.tls / "server.pem"
    if both.is_file():
        return both, both
    return folder.tls / "server.crt", folder.tls / "server.key"


def has_next_authority(folder: Folder) -> bool:
    """Whether terminals are on their way to another authority: its certificate comes last."""
    return (folder.tls / f"{NEXT}.crt").is_file()


def authority_bundle(folder: Folder) -> bytes:
    """All authorities that vouch for this branch now, PEM. Raises: FileUnreadable."""
    names = ["authority", *([NEXT] if has_next_authority(folder) else [])]
    return b"".join([_pem(_load(folder, f"{name}.crt")) for name in names])


def _load(folder: Folder, name: str) -> x509.Certificate:
    content = read_file(folder.tls / name, bytes_max=PEM_BYTES_MAX)
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise FileUnreadable(f"{name}: no certificate") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def server_context(folder: Folder, *, clients: bool) -> ssl.SSLContext:
    """TLS 1.3 with the server's certificate; with `clients` a terminal's certificate is needed.

    Raises: FileUnreadable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A resumed session would skip the certificate; a full handshake is what we want to see.
    context.num_tickets = 0
    try:
        context.load_cert_chain(*server_files(folder))
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=authority_bundle(folder).decode())
    except (OSError, ssl.SSLError) as error:
        raise FileUnreadable(f"the branch's certificates: {error}") from error
    return context


# ---- certificate requests -----------------------------------------------------------------


def read_csr(pem: str) -> x509.CertificateSigningRequest:
    """A terminal's request, its own signature checked: P-256 or Ed25519. Raises: PairingRefused."""
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        key = csr.public_key()
        sound = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature, TypeError) as error:
        raise PairingRefused("no certificate request") from error
    curve = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    if not sound or not (curve or isinstance(key, ed25519.Ed25519PublicKey)):
        raise PairingRefused("the request is not signed by its own P-256 or Ed25519 key")
    return csr
