"""Identifiers of wallets and journals: 20 bytes, and bech32m text (BIP 350)."""

from __future__ import annotations

import functools
from typing import NewType

from wallet.protocol.refusals import Code, ProtocolError

WalletId = NewType("WalletId", bytes)
JournalId = NewType("JournalId", bytes)
ID_BYTES = 20
WALLET_PREFIX = "wal"
JOURNAL_PREFIX = "jnl"

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_BECH32M = 0x2BC830A3
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_LENGTH = 6
_DATA_LENGTH = ID_BYTES * 8 // 5


@functools.lru_cache(maxsize=65_536)
def wallet_text(wallet: bytes) -> str:
    """`wal1...` in lower case."""
    return _text(WALLET_PREFIX, wallet)


@functools.lru_cache(maxsize=4_096)
def journal_text(journal: bytes) -> str:
    """`jnl1...` in lower case."""
    return _text(JOURNAL_PREFIX, journal)


def parse_wallet(text: str) -> WalletId:
    """The wallet of its text, in either case but not mixed. Raises: ProtocolError `malformed`."""
    return WalletId(_parse(WALLET_PREFIX, text))


def parse_journal(text: str) -> JournalId:
    """The journal of its text, in either case but not mixed. Raises: ProtocolError `malformed`."""
    return JournalId(_parse(JOURNAL_PREFIX, text))


def _text(prefix: str, identifier: bytes) -> str:
    if len(identifier) != ID_BYTES:
        raise ProtocolError(Code.MALFORMED, f"an identifier has {ID_BYTES} bytes")
    number = int.from_bytes(identifier, "big")
    data = [number >> (5 * place) & 31 for place in reversed(range(_DATA_LENGTH))]
    check = _polymod(_expanded(prefix) + data + [0] * _CHECKSUM_LENGTH) ^ _BECH32M
    data += [check >> (5 * place) & 31 for place in reversed(range(_CHECKSUM_LENGTH))]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in data)}"


def _parse(prefix: str, text: str) -> bytes:
    lowered = text.lower()
    if text not in (lowered, text.upper()) or not text.isascii():
        raise ProtocolError(Code.MALFORMED, "upper and lower case mixed, or not ASCII")
    if not lowered.startswith(prefix + "1"):
        raise ProtocolError(Code.MALFORMED, f"not an identifier that begins with {prefix}1")
    characters = lowered[len(prefix) + 1 :]
    if len(characters) != _DATA_LENGTH + _CHECKSUM_LENGTH or not _VALUES.keys() >= set(characters):
        raise ProtocolError(Code.MALFORMED, "not an identifier of 20 bytes")
    data = [_VALUES[character] for character in characters]
    if _polymod(_expanded(prefix) + data) != _BECH32M:
        raise ProtocolError(Code.MALFORMED, "the checksum is wrong: a mistyped identifier")
    number = 0
    for value in data[:_DATA_LENGTH]:
        number = number << 5 | value
    return number.to_bytes(ID_BYTES, "big")


def _expanded(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _polymod(values: list[int]) -> int:
    """Remainder of the BCH code of BIP 173."""
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for place, generator in enumerate(_GENERATORS):
            if top >> place & 1:
                check ^= generator
    return check
