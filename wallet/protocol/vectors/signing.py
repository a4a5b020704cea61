"""The vectors' private keys: signing again what they signed."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wallet.protocol.keys import EDDSA, ES256, PublicKey, from_raw, low_s
from wallet.protocol.vectors.report import Case, unhex


class VectorKey:
    """A key of a vector file. Raises: KeyError, ValueError, ProtocolError when it is none."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.name = str(given.get("name", ""))
        private = unhex(given["private_key"])
        self.algorithm = given["cose_alg"]
        if self.algorithm == EDDSA:
            self._edwards = Ed25519PrivateKey.from_private_bytes(private)
            raw = self._edwards.public_key().public_bytes_raw()
        elif self.algorithm == ES256:
            self._weierstrass = derive_private_key(int.from_bytes(private, "big"), SECP256R1())
            point = self._weierstrass.public_key()
            raw = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
        else:
            raise ValueError(f"no key of algorithm {self.algorithm}")
        self.public: PublicKey = from_raw(self.algorithm, raw)

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same for the same message (RFC 8032, RFC 6979 with the low s)."""
        if self.algorithm == EDDSA:
            return self._edwards.sign(message)
        der = self._weierstrass.sign(message, ECDSA(SHA256(), deterministic_signing=True))
        r, s = decode_dss_signature(der)
        return low_s(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def check(self, case: Case, message: bytes, signature: bytes) -> None:
        """Ed25519 signatures come out as given; ES256 ones are checked, ours too."""
        made = self.sign(message)
        if self.algorithm == EDDSA:
            case.equal("signature", made, signature)
        self.public.verify(signature, message)
        self.public.verify(made, message)


def keys_by_name(listed: list[dict[str, Any]]) -> dict[str, VectorKey]:
    """Keys of a section. Raises: as VectorKey."""
    return {given["name"]: VectorKey(given) for given in listed}
