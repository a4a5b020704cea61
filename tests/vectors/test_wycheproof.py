"""Wycheproof: signatures with known traps, and what HPKE stands on."""

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.vectors.files import wycheproof
from wallet.protocol.keys import EDDSA, ES256, PublicKey, from_raw, low_s
from wallet.protocol.refusals import Code, ProtocolError

HALF_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 // 2


def holds(key: PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except ProtocolError as error:
        assert error.code == Code.BAD_SIGNATURE
        return False
    return True


def p256_key(group: dict[str, dict[str, str]]) -> PublicKey:
    return from_raw(ES256, bytes.fromhex(group["publicKey"]["uncompressed"])[1:])


def is_low(signature: bytes) -> bool:
    return int.from_bytes(signature[32:]) <= HALF_ORDER


def test_ed25519_signatures_hold_exactly_where_they_are_valid() -> None:
    cases = wycheproof("ed25519")
    for group, test in cases:
        key = from_raw(EDDSA, bytes.fromhex(group["publicKey"]["pk"]))
        held = holds(key, bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"]))
        assert held is (test["result"] == "valid"), test
    assert len(cases) == 151


def test_p256_signatures_of_64_bytes_hold_where_they_are_valid_and_low() -> None:
    cases = wycheproof("ecdsa_secp256r1_sha256_p1363")
    high = 0
    for group, test in cases:
        key, message = p256_key(group), bytes.fromhex(test["msg"])
        signature, valid = bytes.fromhex(test["sig"]), test["result"] == "valid"
        assert holds(key, signature, message) is (valid and is_low(signature)), test
        if valid:
            assert holds(key, low_s(signature), message), test
            high += not is_low(signature)
    assert len(cases) == 262
    assert high > 10


def test_p256_signatures_in_der_hold_where_they_are_valid_once_they_are_low() -> None:
    cases = wycheproof("ecdsa_secp256r1_sha256")
    for group, test in cases:
        try:
            r, s = decode_dss_signature(bytes.fromhex(test["sig"]))
            signature = low_s(r.to_bytes(32) + s.to_bytes(32))
        except (ValueError, OverflowError):
            assert test["result"] == "invalid", test
            continue
        held = holds(p256_key(group), signature, bytes.fromhex(test["msg"]))
        assert held is (test["result"] == "valid"), test
    assert len(cases) == 484


def test_x25519_agrees_and_refuses_a_secret_of_zeroes() -> None:
    for _, test in wycheproof("x25519"):
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(test["private"]))
        public = X25519PublicKey.from_public_bytes(bytes.fromhex(test["public"]))
        if not int(test["shared"], 16):
            with pytest.raises(ValueError, match="shared key"):
                private.exchange(public)
        else:
            assert private.exchange(public).hex() == test["shared"], test


def test_hkdf_agrees() -> None:
    for _, test in wycheproof("hkdf_sha256"):
        given = {name: bytes.fromhex(test[name]) for name in ("ikm", "salt", "info", "okm")}
        if test["result"] == "invalid":
            with pytest.raises(ValueError, match="derive keys"):
                HKDF(SHA256(), test["size"], given["salt"], given["info"])
            continue
        kdf = HKDF(SHA256(), test["size"], given["salt"], given["info"])
        assert kdf.derive(given["ikm"]) == given["okm"], test


def test_chacha20_poly1305_opens_exactly_what_is_valid() -> None:
    for _, test in wycheproof("chacha20_poly1305"):
        given = {name: bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg")}
        sealed = bytes.fromhex(test["ct"] + test["tag"])
        cipher = ChaCha20Poly1305(given["key"])
        if test["result"] == "valid":
            assert cipher.decrypt(given["iv"], sealed, given["aad"]) == given["msg"], test
        else:
            with pytest.raises((InvalidTag, ValueError)):
                cipher.decrypt(given["iv"], sealed, given["aad"])
