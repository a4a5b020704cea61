"""Looks for secrets in what left a program: as they are, in hexadecimal and in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping

# Shorter texts would be found by chance, above all in base64.
SECRET_BYTES_MIN = 8


def forms(secret: bytes) -> Iterator[bytes]:
    """Each form that gives a secret away, wherever in a longer text it stands."""
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError("too short to be told from chance")
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for before in range(3):
        yield from _base64(secret, before)


def _base64(secret: bytes, before: int) -> Iterator[bytes]:
    """What of its base64 depends on it alone, when so many bytes of its group stand before it."""
    whole = base64.b64encode(bytes(before) + secret)
    first = -(-before * 8 // 6)
    last = (before + len(secret)) * 8 // 6
    text = whole[first:last]
    yield text
    yield text.translate(bytes.maketrans(b"+/", b"-_"))


def leaks(evidence: Mapping[str, bytes], secrets: Mapping[str, bytes]) -> list[str]:
    """Which secret is in which piece of evidence."""
    return [
        f"{name} in {where}"
        for name, secret in secrets.items()
        for form in dict.fromkeys(forms(secret))
        for where, text in evidence.items()
        if form in text
    ]


def pem_secrets(name: str, pem: str) -> dict[str, bytes]:
    """A private key in PEM: each of its lines, and what they encode."""
    lines = [line for line in pem.splitlines() if line and not line.startswith("-----")]
    found = {f"{name}, line {number}": line.encode() for number, line in enumerate(lines)}
    # The beginning of each such key tells its kind and nothing else.
    found.pop(f"{name}, line 0", None)
    return {**found, name: binascii.a2b_base64("".join(lines))[-48:]}
