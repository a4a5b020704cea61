"""X.509 chains (RFC 5280) as protocol.md narrows them: journals by a sub-CA, roles by the root.

Whatever is wrong with a certificate is `certificate-invalid`; a sound chain of the wrong kind
where a role is asked for is `wrong-role`. The root's own dates do not matter: it is trusted by
hand, and a receipt outlives it.
"""

from __future__ import annotations

import calendar
import datetime
import functools
import re
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from wallet.protocol.cose import CERTIFICATE_BYTES_MAX
from wallet.protocol.ids import JournalId, journal_text, parse_journal
from wallet.protocol.keys import EDDSA, ES256, PublicKey, from_raw, low_s
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.shapes import COUNT_MAX

Chain = tuple[bytes, ...]
"""Certificates in DER, leaf first, the root left out."""

JOURNAL_URI = "urn:cbdc:journal:"
EPOCH_URI = "urn:cbdc:epoch:"
ROLE_URI = "urn:cbdc:role:"
ROLES = frozenset({"grants", "policy", "lists", "enrolment", "settlement", "sync"})
_EPOCH = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    }
)
_CHECKED_CHAINS_MAX = 512
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
# What cryptography raises on certificates that it cannot read; found by fuzzing, held by a test.
_UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UserWarning,  # what it deprecates, such as a negative serial, where warnings are errors
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a chain needs of one certificate; its signature has not been checked."""

    subject: bytes
    issuer: bytes
    serial: bytes
    key: PublicKey
    not_before_s: int
    not_after_s: int
    authority: bool
    path_length: int | None
    signs_certificates: bool
    signs_data: bool
    uris: tuple[str, ...]
    signed_bytes: bytes
    signature: bytes


class JournalCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A journal's leaf under the root. `serials`: leaf and sub-CA, without leading zeroes.

    `from_s` and `until_s` are when the whole chain is valid, the others when the leaf is.
    """

    journal: JournalId
    epoch: int
    key: PublicKey
    not_before_s: int
    not_after_s: int
    from_s: int
    until_s: int
    serials: tuple[bytes, ...]

    def check_time(self, at_s: int, *, grace_s: int) -> None:
        """Both ends count in, and the grace at the end. Raises: `certificate-invalid`."""
        if not self.from_s <= at_s <= self.until_s + grace_s:
            raise _invalid(f"not valid at {at_s}")


class RoleCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """A role's leaf under the root itself."""

    role: str
    key: PublicKey
    not_before_s: int
    not_after_s: int
    serials: tuple[bytes, ...]


class TrustAnchor:
    """The issuer's root. Raises: ProtocolError `certificate-invalid`."""

    __slots__ = ("certificate", "der")

    def __init__(self, der: bytes) -> None:
        self.der = der
        self.certificate = parse_certificate(der)
        _check_authority(self.certificate, below=0)
        _check_signature(self.certificate, self.certificate)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrustAnchor) and other.der == self.der

    def __hash__(self) -> int:
        return hash(self.der)

    @property
    def key(self) -> PublicKey:
        """The root's key."""
        return self.certificate.key


def check_journal_chain(
    chain: Chain, root: TrustAnchor, at_s: int, grace_s: int
) -> JournalCertificate:
    """The journal that a chain certifies at a time. Raises: `certificate-invalid`."""
    certificate = journal_chain(chain, root)
    certificate.check_time(at_s, grace_s=grace_s)
    return certificate


@functools.lru_cache(maxsize=_CHECKED_CHAINS_MAX)
def journal_chain(chain: Chain, root: TrustAnchor) -> JournalCertificate:
    """The journal that a chain certifies, whenever that is. Raises: `certificate-invalid`."""
    if len(chain) != 2:
        raise _invalid("a journal's chain is its leaf and the sub-CA")
    leaf, authority = _check_chain(chain, root)
    journal, epoch = _journal_names(leaf.uris)
    return JournalCertificate(
        journal=journal,
        epoch=epoch,
        key=leaf.key,
        not_before_s=leaf.not_before_s,
        not_after_s=leaf.not_after_s,
        from_s=max(leaf.not_before_s, authority.not_before_s),
        until_s=min(leaf.not_after_s, authority.not_after_s),
        serials=(leaf.serial, authority.serial),
    )


@functools.lru_cache(maxsize=_CHECKED_CHAINS_MAX)
def check_role_chain(chain: Chain, root: TrustAnchor, role: str) -> RoleCertificate:
    """The key of a role: its leaf is issued by the root itself and names this role alone.

    The time is the caller's to judge. Raises: ProtocolError `certificate-invalid`, `wrong-role`.
    """
    if not 1 <= len(chain) <= 2:
        raise _invalid("no chain of a role")
    leaf = _check_chain(chain, root)[0]
    if len(chain) != 1 or leaf.uris != (ROLE_URI + role,):
        raise ProtocolError(Code.WRONG_ROLE, f"not the key of the role {role}")
    return RoleCertificate(
        role=role,
        key=leaf.key,
        not_before_s=leaf.not_before_s,
        not_after_s=leaf.not_after_s,
        serials=(leaf.serial,),
    )


def parse_certificate(der: bytes) -> Certificate:
    """One certificate by shape. Raises: ProtocolError `certificate-invalid`, nothing else."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise _invalid("too large")
    try:
        return _read(x509.load_der_x509_certificate(der))
    except _UNREADABLE as error:
        # The library's own words name its insides, and this reaches clients.
        raise _invalid("no certificate that can be read") from error


def _read(certificate: x509.Certificate) -> Certificate:
    if certificate.version != x509.Version.v3 or certificate.serial_number <= 0:
        raise _invalid("not version 3, or a serial that is not positive")
    extensions = certificate.extensions
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise _invalid(f"critical extension {extension.oid.dotted_string}")
    constraints = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    serial = certificate.serial_number
    return Certificate(
        subject=certificate.subject.public_bytes(),
        issuer=certificate.issuer.public_bytes(),
        serial=serial.to_bytes((serial.bit_length() + 7) // 8, "big"),
        key=_public_key(certificate),
        not_before_s=_seconds(certificate.not_valid_before_utc),
        not_after_s=_seconds(certificate.not_valid_after_utc),
        authority=constraints is not None and constraints.ca,
        path_length=None if constraints is None else constraints.path_length,
        signs_certificates=usage is not None and usage.key_cert_sign,
        signs_data=usage is not None and usage.digital_signature,
        uris=_uris(extensions),
        signed_bytes=certificate.tbs_certificate_bytes,
        signature=_signature(certificate),
    )


def _extension(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _uris(extensions: x509.Extensions) -> tuple[str, ...]:
    names = _extension(extensions, x509.SubjectAlternativeName)
    if names is None:
        return ()
    if not all(isinstance(name, x509.UniformResourceIdentifier) for name in names):
        raise _invalid("an alternative name that is no URI")
    return tuple(names.get_values_for_type(x509.UniformResourceIdentifier))


def _public_key(certificate: x509.Certificate) -> PublicKey:
    key = certificate.public_key()
    if isinstance(key, Ed25519PublicKey):
        algorithm, raw = EDDSA, key.public_bytes_raw()
    elif isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        algorithm, raw = ES256, point[1:]
    else:
        raise _invalid("neither an Ed25519 nor a P-256 key")
    try:
        return from_raw(algorithm, raw)
    except ProtocolError as error:
        raise _invalid(error.detail) from error


def _signature(certificate: x509.Certificate) -> bytes:
    """The signature as COSE writes it: 64 bytes. CAs may give ES256 with a high s (RFC 5758)."""
    if certificate.signature_algorithm_oid == SignatureAlgorithmOID.ED25519:
        return certificate.signature
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise _invalid("signed by another algorithm")
    r, s = decode_dss_signature(certificate.signature)
    return low_s(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def _seconds(moment: datetime.datetime) -> int:
    return calendar.timegm(moment.utctimetuple())


def _check_chain(chain: Chain, root: TrustAnchor) -> list[Certificate]:
    """RFC 5280 section 6.1, but for times and revocation, which the callers judge."""
    certificates = [parse_certificate(der) for der in chain]
    issuers = [*certificates[1:], root.certificate]
    for below, (certificate, issuer) in enumerate(zip(certificates, issuers, strict=True)):
        _check_authority(issuer, below=below)
        if certificate.issuer != issuer.subject:
            raise _invalid("the issuer's name is another")
        _check_signature(certificate, issuer)
    leaf = certificates[0]
    if leaf.authority or leaf.signs_certificates or not leaf.signs_data:
        raise _invalid("the leaf is no certificate for signatures alone")
    return certificates


def _check_authority(certificate: Certificate, *, below: int) -> None:
    if not (certificate.authority and certificate.signs_certificates):
        raise _invalid("an issuer that is no authority")
    if certificate.path_length is not None and certificate.path_length < below:
        raise _invalid("more authorities than the path length allows")


def _check_signature(certificate: Certificate, issuer: Certificate) -> None:
    try:
        issuer.key.verify(certificate.signature, certificate.signed_bytes)
    except ProtocolError as error:
        raise _invalid("the issuer did not sign it") from error


def _journal_names(uris: tuple[str, ...]) -> tuple[JournalId, int]:
    """Journal and epoch of exactly the two URIs of a journal's leaf."""
    names = sorted(uris)
    if len(names) == 2:
        epoch, journal = names[0].removeprefix(EPOCH_URI), names[1].removeprefix(JOURNAL_URI)
        made = [f"{EPOCH_URI}{epoch}", f"{JOURNAL_URI}{journal}"]
        if names == made and _EPOCH.fullmatch(epoch) and int(epoch) <= COUNT_MAX:
            return _journal(journal), int(epoch)
    raise _invalid("not the two names of a journal's leaf")


def _journal(text: str) -> JournalId:
    try:
        journal = parse_journal(text)
    except ProtocolError as error:
        raise _invalid(error.detail) from error
    if journal_text(journal) != text:
        raise _invalid("a journal that is not written in lower case")
    return journal


def _invalid(detail: str) -> ProtocolError:
    return ProtocolError(Code.CERTIFICATE_INVALID, detail)
