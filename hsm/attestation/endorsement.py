"""The maker's word that an endorsement key is in one of its TPMs.

TCG EK Credential Profile 2.5: the certificate names the key; its subject alternative name, which
names the TPM's model, is critical and unknown to X.509 libraries, so the path is checked here.
"""

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm.attestation.errors import AttestationInvalid
from hsm.attestation.structures import read_endorsement
from hsm.attestation.verification import endorsement_public_key

# tcg-kp-EKCertificate: the certificate is for an endorsement key, not for a web server.
EK_CERTIFICATE = x509.ObjectIdentifier("2.23.133.8.1")
CERTIFICATES_MAX = 6
# What it is met with that another certificate is not above this one, or is no authority.
_NO_ISSUER = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.ExtensionNotFound,
)


class Named(NamedTuple):
    """A certificate as makers' revocation lists name it: its issuer's name in DER, its serial."""

    issuer: bytes
    serial: int


def verify_endorsement(
    certificates: Sequence[bytes], *, endorsement_key: bytes, roots: Sequence[bytes], now_ms: int
) -> tuple[Named, ...]:
    """That a maker whose root is trusted certified this endorsement key; all of it DER.

    Gives the path, from the endorsement certificate to the one that the root issued.

    Raises:
        AttestationInvalid: nobody did, or a certificate does not hold now.
    """
    if not 0 < len(certificates) <= CERTIFICATES_MAX:
        raise AttestationInvalid(f"between 1 and {CERTIFICATES_MAX} certificates are looked at")
    leaf, *above = [_load(certificate) for certificate in certificates]
    trusted = [_load(root) for root in roots]
    # 1. The certificate is of this key, and for this use.
    _check_leaf(leaf, endorsement_key)
    # 2. Each one is signed by the next, up to a trusted root; all of them valid now.
    now = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    at, path = leaf, []
    for _ in range(CERTIFICATES_MAX):
        _check_valid(at, now)
        path.append(Named(at.issuer.public_bytes(), at.serial_number))
        root = _issuer(at, trusted)
        if root is not None:
            _check_valid(root, now)
            return tuple(path)
        issuer = _issuer(at, above)
        if issuer is None:
            break
        at = issuer
    raise AttestationInvalid("no trusted maker stands above the endorsement certificate")


def _load(der: bytes) -> x509.Certificate:
    # Where it is kept in NV, it is padded to the size of its index.
    content = der[: 4 + int.from_bytes(der[2:4])] if der[:2] == b"\x30\x82" else der
    try:
        return x509.load_der_x509_certificate(content)
    except ValueError as error:
        raise AttestationInvalid("an endorsement certificate is malformed") from error


def _check_leaf(leaf: x509.Certificate, endorsement_key: bytes) -> None:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        certified = leaf.public_key().public_bytes(*form)
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise AttestationInvalid("the endorsement certificate says not what it is for") from error
    if certified != endorsement_public_key(read_endorsement(endorsement_key)).public_bytes(*form):
        raise AttestationInvalid("the endorsement certificate is of another key")
    if EK_CERTIFICATE not in uses:
        raise AttestationInvalid("the certificate is not for an endorsement key")


def _check_valid(certificate: x509.Certificate, now: datetime.datetime) -> None:
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise AttestationInvalid("an endorsement certificate is not valid now")


def _issuer(
    certificate: x509.Certificate, candidates: Sequence[x509.Certificate]
) -> x509.Certificate | None:
    for candidate in candidates:
        try:
            certificate.verify_directly_issued_by(candidate)
            constraints = candidate.extensions.get_extension_for_class(x509.BasicConstraints)
        except _NO_ISSUER:
            continue
        if constraints.value.ca:
            return candidate
    return None
