"""Sealing by a key in the token: AES-GCM, or AES key wrap where the token has no AES-GCM.

AES-GCM: kind || iv (12) || ciphertext and tag; the label is the additional data (NIST SP 800-38D).
Key wrap: kind || RFC 3394 wrapping of SHA-256(label) || length (2) || secret || noughts to a
multiple of 8. It has no additional data, so the label is inside. RFC 5649's padding is not used:
SoftHSM 2.6 gives it back with the secret.
"""

import hashlib
import hmac
import secrets

from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import GCMParams, KeyType, Mechanism

from hsm.api import SECRET_BYTES_MAX, SealBroken, TokenRefused
from hsm.memory import wipe
from hsm.pkcs11.errors import NOT_OPENED
from hsm.pkcs11.keys import Keys

SEALED_BY_GCM = b"\x02"
SEALED_BY_WRAP = b"\x03"
IV_BYTES = 12
TAG_BITS = 128
LABEL_BYTES = 32
LENGTH_BYTES = 2
BLOCK_BYTES = 8
SECRET_AT = LABEL_BYTES + LENGTH_BYTES

# A secret is a key of the token for the moment of its wrapping, and of this session alone.
GUEST: dict[Attribute, object] = {
    Attribute.TOKEN: False,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: False,
    Attribute.EXTRACTABLE: True,
}


def seal(keys: Keys, secret: bytes, label: str) -> bytes:
    """Seal with a fresh IV, or by wrapping, as the key is made for.

    Raises:
        TokenRefused: the secret is too long.
    """
    if len(secret) > SECRET_BYTES_MAX:
        raise TokenRefused(f"at most {SECRET_BYTES_MAX} bytes are sealed")
    if keys.sealing[Attribute.ENCRYPT]:
        return SEALED_BY_GCM + _encrypt(keys, secret, label)
    return SEALED_BY_WRAP + _wrap(keys, secret, label)


def unseal(keys: Keys, sealed: bytes, label: str) -> bytes:
    """Open what was sealed.

    Raises:
        SealBroken: altered, of another token, or under another label.
        PKCS11Error: the token is lost.
    """
    by_gcm = keys.sealing[Attribute.DECRYPT]
    if not sealed.startswith(SEALED_BY_GCM if by_gcm else SEALED_BY_WRAP):
        raise SealBroken("this was not sealed by a token of this kind")
    try:
        return (_decrypt if by_gcm else _unwrap)(keys, sealed[1:], label)
    except NOT_OPENED as error:
        keys.prove()  # raises when it is the token that is lost, and not the seal that is broken
        raise SealBroken("the seal does not open under this label") from error


def _encrypt(keys: Keys, secret: bytes, label: str) -> bytes:
    iv = secrets.token_bytes(IV_BYTES)
    box = keys.sealing.encrypt(
        secret, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(iv, label.encode(), TAG_BITS)
    )
    return iv + box


def _decrypt(keys: Keys, sealed: bytes, label: str) -> bytes:
    iv, box = sealed[:IV_BYTES], sealed[IV_BYTES:]
    if len(box) * 8 < TAG_BITS:
        raise SealBroken("the seal is cut short")
    return keys.sealing.decrypt(
        box, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(iv, label.encode(), TAG_BITS)
    )


def _wrap(keys: Keys, secret: bytes, label: str) -> bytes:
    payload = _label_digest(label) + len(secret).to_bytes(LENGTH_BYTES) + secret
    guest = keys.session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
            Attribute.VALUE: payload + bytes(-len(payload) % BLOCK_BYTES),
            **GUEST,
        }
    )
    try:
        return keys.sealing.wrap_key(guest, mechanism=Mechanism.AES_KEY_WRAP)
    finally:
        guest.destroy()


def _unwrap(keys: Keys, sealed: bytes, label: str) -> bytes:
    guest = keys.sealing.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.GENERIC_SECRET,
        sealed,
        mechanism=Mechanism.AES_KEY_WRAP,
        capabilities=MechanismFlag(0),
        template=GUEST,
    )
    try:
        payload = bytes(guest[Attribute.VALUE])
    finally:
        guest.destroy()
    try:
        if not hmac.compare_digest(payload[:LABEL_BYTES], _label_digest(label)):
            raise SealBroken("the seal does not open under this label")
        length = int.from_bytes(payload[LABEL_BYTES:SECRET_AT])
        return payload[SECRET_AT : SECRET_AT + length]
    finally:
        wipe(payload)


def _label_digest(label: str) -> bytes:
    return hashlib.sha256(label.encode()).digest()
