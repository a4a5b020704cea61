"""Roots of the makers of TPMs, as officers bring them: a file of one certificate."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.errors import IssuerError

_PEM = b"-----BEGIN "


def read_root(content: bytes) -> tuple[str, bytes]:
    """(its name for people, DER) of a certificate in PEM or DER.

    It may be an intermediate authority of a maker: what an officer trusts is where a path ends.
    Raises: IssuerError `maker-invalid`.
    """
    try:
        if content.lstrip().startswith(_PEM):
            (certificate,) = x509.load_pem_x509_certificates(content)
        else:
            certificate = x509.load_der_x509_certificate(content)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        subject = certificate.subject.rfc4514_string()
    except (ValueError, x509.ExtensionNotFound) as error:
        raise IssuerError("maker-invalid", "not one certificate of an authority") from error
    if not constraints.value.ca:
        raise IssuerError("maker-invalid", "the certificate is not an authority's")
    print_ = certificate.fingerprint(hashes.SHA256()).hex()
    return f"{subject[:300]} SHA-256 {print_}", certificate.public_bytes(Encoding.DER)
