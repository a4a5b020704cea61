"""Pairing of a terminal: one at a time, by a short code and a string that both sides show.

1. The technician opens a pairing: a code of 8 characters, good for 5 minutes and few tries.
2. The terminal sends the code and a certificate request to the port without client certificates.
3. Both sides show the same short string: it covers the code and both public keys, so that who
   sits between them shows another one. It is slow to compute: nobody finds keys that collide.
4. The technician compares and confirms; the certificate is made and the terminal fetches it.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets

import msgspec

from edge.errors import PairingRefused

CODE_LENGTH = 8
# Digits and letters without 0, O, 1, I, L and U: 30 signs, 39 bits.
ALPHABET = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
LIFETIME_MS = 5 * 60 * 1000
TRIES_MAX = 5
_CONTEXT = b"cbdc-pairing/1"
_SAS_BYTES = 5


class PairingState(enum.StrEnum):
    """How far a pairing is."""

    OPEN = "open"
    MET = "met"
    WAITING = "waiting"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


class Pairing(msgspec.Struct, kw_only=True):
    """The one pairing of this moment. Times are milliseconds of the monotonic clock."""

    id: str
    code: str
    expires_ms: int
    state: PairingState = PairingState.OPEN
    tries_left: int = TRIES_MAX
    name: str = ""
    csr: str = ""
    sas: str = ""
    certificate: str = ""
    terminal: str = ""


def short_string(code: str, *, server_key: bytes, terminal_key: bytes) -> str:
    """The short authentication string: 8 characters in two groups, as both sides show it.

    The keys are SubjectPublicKeyInfo in DER. Takes some 50 ms: finding a second pair of keys
    with the same string within the code's lifetime would take years.
    """
    transcript = hashlib.sha256(_CONTEXT)
    for part in (code.encode(), server_key, terminal_key):
        transcript.update(len(part).to_bytes(4, "big") + part)
    digest = hashlib.scrypt(transcript.digest(), salt=_CONTEXT, n=2**14, r=8, p=1, dklen=_SAS_BYTES)
    number, letters = int.from_bytes(digest, "big"), ""
    for _ in range(CODE_LENGTH):
        number, place = divmod(number, len(ALPHABET))
        letters += ALPHABET[place]
    return f"{letters[:4]}-{letters[4:]}"


def normal(code: str) -> str:
    """A code as people type it: any case, with or without the hyphen."""
    return code.replace("-", "").upper()


class PairingDesk:
    """Holds the one pairing that may be open."""

    def __init__(self) -> None:
        self._pairing: Pairing | None = None

    def open(self, now_ms: int) -> Pairing:
        """Begin anew, whatever was open before."""
        code = "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))
        self._pairing = Pairing(
            id=secrets.token_hex(16), code=code, expires_ms=now_ms + LIFETIME_MS
        )
        return self._pairing

    def current(self, now_ms: int) -> Pairing | None:
        """The pairing, unless it has expired or there is none."""
        if self._pairing is not None and now_ms >= self._pairing.expires_ms:
            self._pairing = None
        return self._pairing

    def check_code(self, code: str, now_ms: int) -> Pairing:
        """The open pairing, if this is its code; a wrong one costs a try.

        Raises: PairingRefused.
        """
        pairing = self.current(now_ms)
        if pairing is None or pairing.state is not PairingState.OPEN:
            raise PairingRefused("no pairing is open")
        if hmac.compare_digest(normal(code).encode(), pairing.code.encode()):
            return pairing
        pairing.tries_left -= 1
        if pairing.tries_left <= 0:
            self._pairing = None
        raise PairingRefused("the code is wrong")

    def by_id(self, pairing_id: str, now_ms: int) -> Pairing:
        """The pairing that a terminal waits for. Raises: PairingRefused."""
        pairing = self.current(now_ms)
        if pairing is None or not hmac.compare_digest(pairing.id.encode(), pairing_id.encode()):
            raise PairingRefused("no such pairing, or it has expired")
        if pairing.state is PairingState.REFUSED:
            raise PairingRefused("the technician refused")
        return pairing

    def waiting(self, now_ms: int, *, sas: str) -> Pairing:
        """The pairing that waits for the technician, if the strings are the same.

        Raises: PairingRefused; strings that differ end the pairing.
        """
        pairing = self.current(now_ms)
        if pairing is None or pairing.state is not PairingState.WAITING:
            raise PairingRefused("no terminal is waiting")
        if normal(sas) != normal(pairing.sas):
            pairing.state = PairingState.REFUSED
            raise PairingRefused("the short strings differ: somebody may sit in between")
        return pairing

    def refuse(self, now_ms: int) -> None:
        """The technician says no."""
        pairing = self.current(now_ms)
        if pairing is not None:
            pairing.state = PairingState.REFUSED
