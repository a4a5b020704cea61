"""A maker of TPMs, as far as its certificates go."""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hsm.attestation.endorsement import EK_CERTIFICATE

MADE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
YEARS = datetime.timedelta(days=3650)
NOW_MS = int((MADE + datetime.timedelta(days=100)).timestamp() * 1000)


class Maker:
    """A root, an intermediate, and leaves for endorsement keys."""

    def __init__(self, name: str = "maker") -> None:
        self._root_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self._root = _ca(f"{name} root", self._root_key, f"{name} root", self._root_key)
        self._above = _ca(f"{name} line", self._key, f"{name} root", self._root_key)
        self.root = self._root.public_bytes(Encoding.DER)
        self.above = self._above.public_bytes(Encoding.DER)

    def certify(
        self,
        key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        *,
        use: x509.ObjectIdentifier | None = EK_CERTIFICATE,
        days: int = 3650,
    ) -> bytes:
        """The certificate of an endorsement key, with an empty subject and a critical model."""
        model = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "id:54455354")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._above.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(MADE)
            .not_valid_after(MADE + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DirectoryName(model)]), critical=True)
        )
        if use is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)

    def revocation_list(
        self, *serials: int, reason: x509.ReasonFlags | None = None
    ) -> x509.CertificateRevocationList:
        """What the intermediate took back; `reason`: of the last one."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._above.subject)
            .last_update(MADE)
            .next_update(MADE + YEARS)
        )
        for serial in serials:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(MADE)
            if reason is not None and serial == serials[-1]:
                one = one.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(one.build())
        return builder.sign(self._key, hashes.SHA256())


def _ca(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
    return (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(MADE)
        .not_valid_after(MADE + YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
