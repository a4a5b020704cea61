"""Statements as a TPM makes them, by a key that is in memory: any of them, true or forged."""

import hashlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

from hsm.api import Attested

MAGIC = 0xFF544347
CAPTIVE = 1 << 1 | 1 << 4 | 1 << 5
WITH_AUTH, NO_LOCK_OUT = 1 << 6, 1 << 10
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
ATTESTATION = CAPTIVE | WITH_AUTH | NO_LOCK_OUT | RESTRICTED | SIGN
SIGNING = CAPTIVE | WITH_AUTH | NO_LOCK_OUT | SIGN
ENDORSEMENT = CAPTIVE | 1 << 7 | RESTRICTED | DECRYPT
COUNTER_WRITTEN = 0x22040014


def sized(content: bytes) -> bytes:
    """A TPM2B."""
    return len(content).to_bytes(2) + content


def name_of(public: bytes) -> bytes:
    """The name of a public area."""
    return b"\x00\x0b" + hashlib.sha256(public).digest()


@dataclass
class PretendedKey:
    """A P-256 key that says of itself what a test wants."""

    attributes: int = ATTESTATION
    scheme: bytes = bytes.fromhex("0018000b")
    cipher: bytes = bytes.fromhex("0010")
    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def point(self) -> bytes:
        """x || y."""
        numbers = self.private.public_key().public_numbers()
        return numbers.x.to_bytes(32) + numbers.y.to_bytes(32)

    @property
    def public(self) -> bytes:
        """TPMT_PUBLIC."""
        x, y = self.point[:32], self.point[32:]
        head = b"\x00\x23\x00\x0b" + self.attributes.to_bytes(4) + sized(b"")
        tail = b"\x00\x03\x00\x10" + sized(x) + sized(y)
        return head + self.cipher + self.scheme + tail

    def attest(self, statement: bytes) -> Attested:
        """Sign a statement, whatever it says."""
        der = self.private.sign(statement, ec.ECDSA(hashes.SHA256()))
        r, s = (value.to_bytes(32) for value in utils.decode_dss_signature(der))
        return Attested(statement=statement, signature=b"\x00\x18\x00\x0b" + sized(r) + sized(s))


def endorsement_key() -> PretendedKey:
    """A key that keeps others, as the endorsement key does."""
    return PretendedKey(
        attributes=ENDORSEMENT, scheme=b"\x00\x10", cipher=bytes.fromhex("000600800043")
    )


def rsa_endorsement(modulus: int, *, exponent: int = 0, cipher: str = "000600800043") -> bytes:
    """TPMT_PUBLIC of an endorsement key of RSA-2048."""
    head = b"\x00\x01\x00\x0b" + ENDORSEMENT.to_bytes(4) + sized(b"")
    tail = b"\x00\x10" + (2048).to_bytes(2) + exponent.to_bytes(4) + sized(modulus.to_bytes(256))
    return head + bytes.fromhex(cipher) + tail


def statement(kind: int, body: bytes, *, nonce: bytes, magic: int = MAGIC, safe: int = 1) -> bytes:
    """TPMS_ATTEST."""
    clock = (123_456).to_bytes(8) + (7).to_bytes(4) + (3).to_bytes(4) + safe.to_bytes(1)
    head = magic.to_bytes(4) + kind.to_bytes(2) + sized(b"\x00\x0b" + bytes(32)) + sized(nonce)
    return head + clock + bytes(8) + body


def quote_body(pcrs: dict[int, bytes], *, bank: int = 0x000B) -> bytes:
    """TPMS_QUOTE_INFO."""
    chosen = sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
    digest = hashlib.sha256(b"".join(pcrs[pcr] for pcr in sorted(pcrs))).digest()
    return (1).to_bytes(4) + bank.to_bytes(2) + b"\x03" + chosen + sized(digest)


def certify_body(public: bytes) -> bytes:
    """TPMS_CERTIFY_INFO."""
    return sized(name_of(public)) + sized(b"\x00\x0b" + bytes(32))


def nv_public(attributes: int = COUNTER_WRITTEN) -> bytes:
    """TPMS_NV_PUBLIC of a counter."""
    head = (0x01800001).to_bytes(4) + b"\x00\x0b" + attributes.to_bytes(4)
    return head + sized(b"") + (8).to_bytes(2)


def counter_body(public: bytes, content: bytes, *, offset: int = 0) -> bytes:
    """TPMS_NV_CERTIFY_INFO."""
    return sized(name_of(public)) + offset.to_bytes(2) + sized(content)
