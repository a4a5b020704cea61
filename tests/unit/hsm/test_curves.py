"""The arithmetic around signatures."""

import nacl.signing
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from hsm.api import Algorithm, TokenRefused
from hsm.curves import P256_ORDER, check_signature, low_s, raw_signature

KEY = ec.derive_private_key(7, ec.SECP256R1())
POINT = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
ED_KEY = nacl.signing.SigningKey(bytes(32))


@given(r=st.integers(1, P256_ORDER - 1), s=st.integers(1, P256_ORDER - 1))
def test_s_and_its_negative_become_one(r: int, s: int) -> None:
    signature = r.to_bytes(32) + s.to_bytes(32)
    mirrored = r.to_bytes(32) + (P256_ORDER - s).to_bytes(32)
    assert low_s(signature) == low_s(mirrored)
    assert low_s(signature) in (signature, mirrored)
    assert int.from_bytes(low_s(signature)[32:]) <= P256_ORDER // 2


@given(r=st.integers(1, P256_ORDER - 1), s=st.integers(1, P256_ORDER // 2))
def test_a_der_signature_becomes_64_bytes(r: int, s: int) -> None:
    raw = raw_signature(utils.encode_dss_signature(r, s))
    assert raw == r.to_bytes(32) + s.to_bytes(32)


def test_the_key_that_signed_is_recognised() -> None:
    es256 = raw_signature(KEY.sign(b"message", ec.ECDSA(hashes.SHA256())))
    check_signature(Algorithm.ES256, POINT, message=b"message", signature=es256)
    eddsa = ED_KEY.sign(b"message").signature
    public_key = bytes(ED_KEY.verify_key)
    check_signature(Algorithm.EDDSA, public_key, message=b"message", signature=eddsa)


@pytest.mark.parametrize(
    ("algorithm", "public_key"),
    [
        (Algorithm.ES256, POINT),
        (Algorithm.ES256, bytes(64)),
        (Algorithm.EDDSA, bytes(ED_KEY.verify_key)),
        (Algorithm.EDDSA, bytes(31)),
    ],
)
def test_any_other_key_or_signature_is_refused(algorithm: Algorithm, public_key: bytes) -> None:
    with pytest.raises(TokenRefused):
        check_signature(algorithm, public_key, message=b"message", signature=b"\x01" * 64)
