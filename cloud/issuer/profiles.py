"""The shapes of the issuer's certificates (X.509, RFC 5280); pure: time and randomness come in.

Below the root: a sub-CA for journals, and a leaf for each role. Beside it stands a CA for transport
alone (TLS), whose certificates mean nothing to the protocol: no value is trusted to a connection.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wallet.protocol.certificates import EPOCH_URI, JOURNAL_URI, ROLE_URI
from wallet.protocol.ids import journal_text
from wallet.protocol.keys import EDDSA, PublicKey

Random: TypeAlias = Callable[[int], bytes]
CertifiedKey: TypeAlias = Ed25519PublicKey | ec.EllipticCurvePublicKey

GATEWAY_URI = "urn:cbdc:gateway:"
BACK_DATED_MS = 10 * 60_000
DAY_MS = 24 * 3_600_000
ROOT_MS = 3_652 * DAY_MS
SUB_AUTHORITY_MS = 731 * DAY_MS
ROLE_MS = 366 * DAY_MS
JOURNAL_MS = 14 * DAY_MS
# Longer than the claims window: a gateway that was cut off for long must still get through to us.
GATEWAY_MS = 397 * DAY_MS
SERVER_MS = 90 * DAY_MS
_SERIAL_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A CA: its certificate and its key."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey

    @property
    def der(self) -> bytes:
        """The certificate's bytes."""
        return self.certificate.public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What a certificate is to say, but for its issuer."""

    name: str
    organisation: str
    key: CertifiedKey
    now_ms: int
    valid_ms: int
    authority: x509.BasicConstraints
    names: Sequence[x509.GeneralName] = ()
    purposes: tuple[x509.ObjectIdentifier, ...] = ()


_LEAF = x509.BasicConstraints(ca=False, path_length=None)


def make_root(
    *, name: str, organisation: str, key: Ed25519PrivateKey, now_ms: int, random: Random
) -> Authority:
    """A root: the issuer's, or the one for transport."""
    request = _Request(
        name=name,
        organisation=organisation,
        key=key.public_key(),
        now_ms=now_ms,
        valid_ms=ROOT_MS,
        authority=x509.BasicConstraints(ca=True, path_length=None),
    )
    return Authority(certificate=_sign(request, None, key, random), key=key)


def make_journal_authority(
    root: Authority, *, key: CertifiedKey, now_ms: int, random: Random
) -> x509.Certificate:
    """The certificate of the sub-CA for journals: nothing but leaves below it."""
    request = _Request(
        name="Journals CA",
        organisation=_organisation(root),
        key=key,
        now_ms=now_ms,
        valid_ms=SUB_AUTHORITY_MS,
        authority=x509.BasicConstraints(ca=True, path_length=0),
    )
    return _sign(request, root.certificate, root.key, random)


def make_role(
    root: Authority, role: str, *, key: CertifiedKey, now_ms: int, random: Random
) -> x509.Certificate:
    """The leaf of an issuer's role, by the root itself; the name of a role is not checked here."""
    request = _Request(
        name=f"Role {role}",
        organisation=_organisation(root),
        key=key,
        now_ms=now_ms,
        valid_ms=ROLE_MS,
        authority=_LEAF,
        names=[_uri(ROLE_URI + role)],
    )
    return _sign(request, root.certificate, root.key, random)


def make_journal(
    authority: Authority,
    *,
    journal: bytes,
    epoch: int,
    key: PublicKey,
    now_ms: int,
    random: Random,
) -> x509.Certificate:
    """The leaf of a journal's key in an epoch."""
    text = journal_text(journal)
    request = _Request(
        name=text,
        organisation=_organisation(authority),
        key=certified_key(key),
        now_ms=now_ms,
        valid_ms=JOURNAL_MS,
        authority=_LEAF,
        names=[_uri(JOURNAL_URI + text), _uri(f"{EPOCH_URI}{epoch}")],
    )
    return _sign(request, authority.certificate, authority.key, random)


def make_gateway(
    transport: Authority, *, journal: bytes, key: CertifiedKey, now_ms: int, random: Random
) -> x509.Certificate:
    """The TLS certificate of the gateway that keeps a journal: the cloud's client, and a server of
    its lists to other gateways.
    """
    text = journal_text(journal)
    request = _Request(
        name=text,
        organisation=_organisation(transport),
        key=key,
        now_ms=now_ms,
        valid_ms=GATEWAY_MS,
        authority=_LEAF,
        names=[_uri(GATEWAY_URI + text)],
        purposes=(ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
    )
    return _sign(request, transport.certificate, transport.key, random)


def make_server(
    transport: Authority, *, hosts: Sequence[str], key: CertifiedKey, now_ms: int, random: Random
) -> x509.Certificate:
    """The cloud's TLS server certificate for host names and addresses."""
    request = _Request(
        name="Cloud",
        organisation=_organisation(transport),
        key=key,
        now_ms=now_ms,
        valid_ms=SERVER_MS,
        authority=_LEAF,
        names=[_host(host) for host in hosts],
        purposes=(ExtendedKeyUsageOID.SERVER_AUTH,),
    )
    return _sign(request, transport.certificate, transport.key, random)


def certified_key(key: PublicKey) -> CertifiedKey:
    """A checked key of the protocol, as X.509 takes it."""
    if key.algorithm == EDDSA:
        return Ed25519PublicKey.from_public_bytes(key.raw)
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.raw)


def serial_bytes(certificate: x509.Certificate) -> bytes:
    """The serial as revocation lists write it: no zero in front."""
    return certificate.serial_number.to_bytes(
        (certificate.serial_number.bit_length() + 7) // 8, "big"
    )


def not_after_ms(certificate: x509.Certificate) -> int:
    """The end of a certificate's time."""
    return int(certificate.not_valid_after_utc.timestamp()) * 1_000


def _sign(
    request: _Request, issuer: x509.Certificate | None, key: Ed25519PrivateKey, random: Random
) -> x509.Certificate:
    """Build and sign; without an issuer the certificate is its own."""
    subject = _name(request.organisation, request.name)
    from_ms = request.now_ms - BACK_DATED_MS
    until = _moment(from_ms + request.valid_ms)
    if issuer is not None:
        until = min(until, issuer.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(request.key)
        .serial_number(_serial(random))
        .not_valid_before(_moment(from_ms))
        .not_valid_after(until)
    )
    for extension, critical in _extensions(request, key.public_key()):
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key, None)


def _extensions(
    request: _Request, issuer_key: Ed25519PublicKey
) -> list[tuple[x509.ExtensionType, bool]]:
    """The extensions in their order, each with whether it is critical."""
    is_authority = request.authority.ca
    usage = x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (request.authority, True),
        (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(request.key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), False),
    ]
    if request.names:
        extensions.append((x509.SubjectAlternativeName(request.names), False))
    if request.purposes:
        extensions.append((x509.ExtendedKeyUsage(request.purposes), False))
    return extensions


def _name(organisation: str, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _organisation(authority: Authority) -> str:
    attribute = authority.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0]
    return str(attribute.value)


def _serial(random: Random) -> int:
    """16 random bytes that make a positive number of always 16 bytes (RFC 5280, 4.1.2.2)."""
    number = int.from_bytes(random(_SERIAL_BYTES), "big")
    top = 1 << (8 * _SERIAL_BYTES - 2)
    return number % top | top


def _moment(ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ms // 1_000, tz=datetime.UTC)


def _uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
