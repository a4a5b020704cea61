"""libsodium called directly does what PyNaCl makes it do, and refuses what does not hold."""

import secrets

import hypothesis.strategies as st
import nacl.pwhash.argon2id
import nacl.secret
import nacl.signing
import pytest
from hypothesis import given

from hsm.memory import Secret
from hsm.sodium import NotAuthentic, decrypt, derive, encrypt, seed_keypair, sign

KEY = bytes(range(32))
SALT = bytes(16)
FEEBLE = {"passes": 1, "memory": 8192}


@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=300))
def test_signatures_are_those_of_pynacl(seed: bytes, message: bytes) -> None:
    public, pair = seed_keypair(seed)
    other = nacl.signing.SigningKey(seed)
    assert public == bytes(other.verify_key)
    assert sign(pair, message) == other.sign(message).signature


@given(message=st.binary(max_size=300), additional=st.binary(max_size=50))
def test_pynacl_opens_what_is_sealed_here_and_the_other_way_round(
    message: bytes, additional: bytes
) -> None:
    key, other = Secret(KEY), nacl.secret.Aead(KEY)
    assert other.decrypt(encrypt(key, message, additional), additional) == message
    assert decrypt(key, bytes(other.encrypt(message, additional)), additional) == message


def test_a_box_that_was_altered_or_cut_does_not_open() -> None:
    key = Secret(KEY)
    box = encrypt(key, b"message", b"label")
    assert encrypt(key, b"message", b"label") != box
    for place in range(len(box)):
        changed = bytearray(box)
        changed[place] ^= 1
        with pytest.raises(NotAuthentic):
            decrypt(key, bytes(changed), b"label")
    for end in range(len(box)):
        with pytest.raises(NotAuthentic):
            decrypt(key, box[:end], b"label")
    for other, label in ((Secret(secrets.token_bytes(32)), b"label"), (key, b"other")):
        with pytest.raises(NotAuthentic):
            decrypt(other, box, label)


def test_a_passphrase_gives_the_key_that_pynacl_derives() -> None:
    derived = derive(b"correct horse", SALT, length=64, **FEEBLE)
    expected = nacl.pwhash.argon2id.kdf(64, b"correct horse", SALT, opslimit=1, memlimit=8192)
    assert derived.copy() == expected


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        seed_keypair(bytes(31))
    with pytest.raises(ValueError, match="16 bytes"):
        derive(b"p", bytes(15), length=32, **FEEBLE)
    with pytest.raises(MemoryError):
        derive(b"p", SALT, length=32, passes=1, memory=1)
