"""Requests as QR codes: base45 (RFC 9285), so that a code uses the dense alphanumeric mode."""

from __future__ import annotations

PREFIX = "CBDC1:"
TEXT_LENGTH_MAX = 4_000
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}


def to_qr(request: bytes) -> str:
    """The text of a request's QR code."""
    return PREFIX + encode_base45(request)


def from_qr(text: str) -> bytes:
    """The request of a QR code's text. Raises: ValueError."""
    if not text.startswith(PREFIX) or len(text) > TEXT_LENGTH_MAX:
        raise ValueError("not the QR code of a payment request")
    return decode_base45(text.removeprefix(PREFIX))


def encode_base45(raw: bytes) -> str:
    """RFC 9285: two bytes become three characters, a last one two."""
    characters = []
    for at in range(0, len(raw), 2):
        pair = raw[at : at + 2]
        number = int.from_bytes(pair, "big")
        for _ in range(3 if len(pair) == 2 else 2):
            number, place = divmod(number, 45)
            characters.append(_ALPHABET[place])
    return "".join(characters)


def decode_base45(text: str) -> bytes:
    """The bytes of base45. Raises: ValueError for anything that `encode_base45` does not give."""
    if len(text) % 3 == 1:
        raise ValueError("base45 of a length that cannot be")
    out = bytearray()
    for at in range(0, len(text), 3):
        group = text[at : at + 3]
        try:
            number = sum(_VALUES[character] * 45**place for place, character in enumerate(group))
        except KeyError as error:
            raise ValueError("a character that base45 does not have") from error
        size = len(group) - 1
        if number >= 256**size:
            raise ValueError("base45 of a number that is too large")
        out += number.to_bytes(size, "big")
    return bytes(out)
