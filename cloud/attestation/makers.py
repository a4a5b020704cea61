"""Roots of the makers of TPMs, and what they took back, as officers bring them in files."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.errors import IssuerError
from hsm.attestation import Named

_PEM = b"-----BEGIN "
CRL_BYTES_MAX = 16 * 1024 * 1024


def read_root(content: bytes) -> tuple[str, bytes]:
    """(its name for people, DER) of a certificate in PEM or DER.

    It may be an intermediate authority of a maker: what an officer trusts is where a path ends.
    Raises: IssuerError `maker-invalid`.
    """
    try:
        certificate = _read_certificate(content)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        subject = certificate.subject.rfc4514_string()
    except (ValueError, x509.ExtensionNotFound) as error:
        raise IssuerError("maker-invalid", "not one certificate of an authority") from error
    if not constraints.value.ca:
        raise IssuerError("maker-invalid", "the certificate is not an authority's")
    print_ = certificate.fingerprint(hashes.SHA256()).hex()
    return f"{subject[:300]} SHA-256 {print_}", certificate.public_bytes(Encoding.DER)


def read_revoked(content: bytes) -> list[Named]:
    """What a revocation list names, or one certificate; PEM or DER.

    Raises: IssuerError `revocations-invalid`.
    """
    if len(content) > CRL_BYTES_MAX:
        raise IssuerError("revocations-invalid", f"larger than {CRL_BYTES_MAX} bytes")
    try:
        revoked = _read_list(content)
        if revoked is not None:
            issuer = revoked.issuer.public_bytes()
            return [Named(issuer, entry.serial_number) for entry in revoked if _is_revoked(entry)]
        certificate = _read_certificate(content)
    except ValueError as error:
        raise IssuerError("revocations-invalid", "no revocation list, no certificate") from error
    return [Named(certificate.issuer.public_bytes(), certificate.serial_number)]


def _read_list(content: bytes) -> x509.CertificateRevocationList | None:
    if content.lstrip().startswith(_PEM + b"X509 CRL"):
        return x509.load_pem_x509_crl(content)
    try:
        return x509.load_der_x509_crl(content)
    except ValueError:
        return None


def _is_revoked(entry: x509.RevokedCertificate) -> bool:
    """Whether it is taken back, not let go again. Raises: ValueError for another maker's."""
    try:
        entry.extensions.get_extension_for_class(x509.CertificateIssuer)
    except x509.ExtensionNotFound:
        pass
    else:
        raise ValueError("an indirect list")
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return True
    return reason is not x509.ReasonFlags.remove_from_crl


def _read_certificate(content: bytes) -> x509.Certificate:
    if content.lstrip().startswith(_PEM):
        (certificate,) = x509.load_pem_x509_certificates(content)
        return certificate
    return x509.load_der_x509_certificate(content)
