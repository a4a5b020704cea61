"""The secrets of the objects in a TPM: from a PIN, or from the sealed key.

The TPM strips trailing noughts off such a value, so none ends in one.
"""

import hashlib
import hmac

AUTH_BYTES = 32
_LAST = b"\x01"


def pin_auth(pin: bytes) -> bytes:
    """What opens the seal beside the measurements. The TPM counts wrong tries."""
    return hashlib.sha256(b"cbdc tpm pin\x00" + pin).digest()[: AUTH_BYTES - 1] + _LAST


def derived_auth(key: bytes, use: bytes) -> bytes:
    """What opens a key or the counter: without the sealed key nothing signs and nothing counts."""
    return hmac.digest(key, b"cbdc tpm " + use, "sha256")[: AUTH_BYTES - 1] + _LAST
