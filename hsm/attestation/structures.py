"""TPM 2.0 structures as values: public areas, signatures, statements.

Layouts: TPM 2.0 Library, part 2, sections 10.12 (attestation), 11.2.2 (ECC), 12.2 (public areas),
13.5 (NV). Only P-256, SHA-256 and ECDSA are known: it is all that our driver makes. Endorsement
keys are the maker's, and may be of RSA.
"""

import enum
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hsm.attestation.errors import AttestationInvalid
from hsm.attestation.reading import Reader

ALG_ECC, ALG_SHA256, ALG_ECDSA, ALG_NULL = 0x0023, 0x000B, 0x0018, 0x0010
ALG_RSA, RSA_BITS, RSA_EXPONENT = 0x0001, 2048, 65537
ALG_AES, ALG_CFB = 0x0006, 0x0043
CURVE_P256 = 0x0003
COORDINATE_BYTES = 32
DIGEST_BYTES = 32
NAME_BYTES = 34
MAGIC = 0xFF544347
PCR_BANK_BYTES = 3  # 24 registers
NV_BYTES_MAX = 64


class Kind(enum.IntEnum):
    """What a statement is about (TPMI_ST_ATTEST)."""

    NV = 0x8014
    CERTIFY = 0x8017
    QUOTE = 0x8018


class Attribute(enum.IntFlag):
    """TPMA_OBJECT."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


class NvAttribute(enum.IntFlag):
    """TPMA_NV: the four bits of the type, and whether it was ever written."""

    TYPE_MASK = 0xF0
    COUNTER = 0x10
    WRITTEN = 1 << 29


@dataclass(frozen=True, slots=True, kw_only=True)
class EccPublic:
    """A TPMT_PUBLIC of a P-256 key; `point` is x || y."""

    attributes: int
    point: bytes
    encrypts: bool  # it has a symmetric algorithm: a key that keeps others
    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaPublic:
    """A TPMT_PUBLIC of an RSA-2048 key that keeps others: an endorsement key."""

    attributes: int
    modulus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NvPublic:
    """A TPMS_NV_PUBLIC."""

    index: int
    attributes: int
    size: int
    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """TPMS_QUOTE_INFO: which registers of the SHA-256 bank, and the digest over them."""

    pcrs: frozenset[int]
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """TPMS_CERTIFY_INFO: the name of the key."""

    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NvCertified:
    """TPMS_NV_CERTIFY_INFO: the index's name, and what stands at the offset."""

    name: bytes
    offset: int
    content: bytes


Body = Quoted | Certified | NvCertified


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A TPMS_ATTEST. `reset_count` and `restart_count` tell starts of the platform apart."""

    kind: Kind
    nonce: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware: int
    body: Body


def read_public(raw: bytes) -> EccPublic:
    """Read a TPMT_PUBLIC of a P-256 key. Raises: AttestationInvalid."""
    reader = Reader(raw)
    attributes = _attributes(reader, ALG_ECC)
    encrypts = _symmetric(reader)
    scheme = reader.integer(2)
    if scheme != ALG_NULL:
        reader.expect(2, ALG_SHA256, "the scheme's digest")
    reader.expect(2, CURVE_P256, "the curve")
    reader.expect(2, ALG_NULL, "the key derivation")
    point = _coordinate(reader) + _coordinate(reader)
    reader.end()
    return EccPublic(attributes=attributes, point=point, encrypts=encrypts, name=name_of(raw))


def read_endorsement(raw: bytes) -> EccPublic | RsaPublic:
    """Read the TPMT_PUBLIC of an endorsement key. Raises: AttestationInvalid."""
    if not raw.startswith(ALG_RSA.to_bytes(2)):
        return read_public(raw)
    reader = Reader(raw)
    attributes = _attributes(reader, ALG_RSA)
    if not _symmetric(reader):
        raise AttestationInvalid("the endorsement key has no cipher")
    reader.expect(2, ALG_NULL, "the scheme")
    reader.expect(2, RSA_BITS, "the size of the key")
    reader.expect(4, 0, "the exponent")  # nought stands for 65537
    modulus = int.from_bytes(reader.sized(RSA_BITS // 8))
    reader.end()
    return RsaPublic(attributes=attributes, modulus=modulus)


def read_nv_public(raw: bytes) -> NvPublic:
    """Read a TPMS_NV_PUBLIC. Raises: AttestationInvalid."""
    reader = Reader(raw)
    index = reader.integer(4)
    reader.expect(2, ALG_SHA256, "the digest of the index's name")
    attributes = reader.integer(4)
    reader.sized(DIGEST_BYTES)
    size = reader.integer(2)
    reader.end()
    return NvPublic(index=index, attributes=attributes, size=size, name=name_of(raw))


def name_of(public: bytes) -> bytes:
    """The name of what has this public area (part 1, section 16): the digest and its algorithm."""
    return ALG_SHA256.to_bytes(2) + hashlib.sha256(public).digest()


def read_signature(raw: bytes) -> tuple[int, int]:
    """Read a TPMT_SIGNATURE of ECDSA with SHA-256: (r, s). Raises: AttestationInvalid."""
    reader = Reader(raw)
    reader.expect(2, ALG_ECDSA, "the signature's algorithm")
    reader.expect(2, ALG_SHA256, "the signature's digest")
    r, s = reader.sized(COORDINATE_BYTES), reader.sized(COORDINATE_BYTES)
    reader.end()
    return int.from_bytes(r), int.from_bytes(s)


def read_statement(raw: bytes) -> Statement:
    """Read a TPMS_ATTEST. Raises: AttestationInvalid."""
    reader = Reader(raw)
    # Only a TPM signs what begins so: a restricted key refuses digests of foreign data that do.
    reader.expect(4, MAGIC, "the magic number")
    kind = _kind(reader)
    reader.sized(NAME_BYTES)  # the qualified name of the signer: its key is known by other means
    nonce = reader.sized(DIGEST_BYTES)
    clock_ms, resets, restarts = reader.integer(8), reader.integer(4), reader.integer(4)
    safe, firmware = reader.integer(1), reader.integer(8)
    if safe > 1:
        raise AttestationInvalid("the clock is neither safe nor unsafe")
    body = _BODIES[kind](reader)
    reader.end()
    return Statement(
        kind=kind,
        nonce=nonce,
        clock_ms=clock_ms,
        reset_count=resets,
        restart_count=restarts,
        safe=bool(safe),
        firmware=firmware,
        body=body,
    )


def _attributes(reader: Reader, algorithm: int) -> int:
    """The head of a public area."""
    reader.expect(2, algorithm, "the key's type")
    reader.expect(2, ALG_SHA256, "the digest of the key's name")
    attributes = reader.integer(4)
    reader.sized(DIGEST_BYTES)  # the policy, which the name covers
    return attributes


def _symmetric(reader: Reader) -> bool:
    algorithm = reader.integer(2)
    if algorithm == ALG_NULL:
        return False
    if algorithm != ALG_AES:
        raise AttestationInvalid("the key's cipher is not the expected one")
    reader.expect(2, 128, "the cipher's key size")
    reader.expect(2, ALG_CFB, "the cipher's mode")
    return True


def _coordinate(reader: Reader) -> bytes:
    return reader.sized(COORDINATE_BYTES).rjust(COORDINATE_BYTES, b"\x00")


def _kind(reader: Reader) -> Kind:
    try:
        return Kind(reader.integer(2))
    except ValueError as error:
        raise AttestationInvalid("a statement of a kind that is not known") from error


def _quoted(reader: Reader) -> Quoted:
    reader.expect(4, 1, "the number of PCR banks")
    reader.expect(2, ALG_SHA256, "the PCR bank")
    reader.expect(1, PCR_BANK_BYTES, "the size of the PCR bank")
    chosen = int.from_bytes(reader.take(PCR_BANK_BYTES), "little")
    pcrs = frozenset(pcr for pcr in range(8 * PCR_BANK_BYTES) if chosen >> pcr & 1)
    return Quoted(pcrs=pcrs, digest=reader.sized(DIGEST_BYTES))


def _certified(reader: Reader) -> Certified:
    name = reader.sized(NAME_BYTES)
    reader.sized(NAME_BYTES)  # the qualified name: the path to the key from its hierarchy
    return Certified(name=name)


def _nv_certified(reader: Reader) -> NvCertified:
    name, offset = reader.sized(NAME_BYTES), reader.integer(2)
    return NvCertified(name=name, offset=offset, content=reader.sized(NV_BYTES_MAX))


_BODIES: Mapping[Kind, Callable[[Reader], Body]] = {
    Kind.QUOTE: _quoted,
    Kind.CERTIFY: _certified,
    Kind.NV: _nv_certified,
}
