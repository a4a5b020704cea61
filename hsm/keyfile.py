"""The sealed file of the software token: its layout, and how a passphrase opens it.

Four lines of ASCII: the header (JSON), the passphrase's check (hex), the box (hex), and the SHA-256
of the three lines before (hex). The check tells a wrong passphrase from a file that was altered,
and helps nobody who guesses: opening the box would tell the same. The header is authenticated by
the box, byte for byte.
"""

import hashlib
import hmac
import secrets
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hsm import sodium
from hsm.api import Algorithm, PinWrong, SealBroken, TokenRefused
from hsm.memory import Secret, wipe

MIB = 1 << 20
KEY_BYTES = 32
FILE_BYTES_MAX = 8192


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one guess of the passphrase costs (RFC 9106); bounded, for files ask for anything."""

    passes: Annotated[int, Meta(ge=1, le=16)]
    memory_bytes: Annotated[int, Meta(ge=8192, le=1024 * MIB)]


# libsodium's "moderate" and "interactive": about 0.7 s and 0.1 s.
STANDARD = Cost(passes=3, memory_bytes=256 * MIB)
LIGHT = Cost(passes=2, memory_bytes=64 * MIB)


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands in the clear: how to derive the key, and whose file this is."""

    format: Literal["software-token-1"] = "software-token-1"
    kdf: Literal["argon2id13"] = "argon2id13"
    cost: Cost
    salt: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    algorithm: Algorithm
    public_key: Annotated[str, Meta(pattern="^([0-9a-f]{64}|[0-9a-f]{128})$")]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What a file held."""

    algorithm: Algorithm
    public_key: bytes
    secret: bytes


def close_file(opened: Opened, *, passphrase: bytes, cost: Cost) -> bytes:
    """Write the file's bytes. Takes the time and memory of the cost."""
    salt = secrets.token_bytes(sodium.SALT_BYTES)
    header = msgspec.json.encode(
        Header(
            cost=cost,
            salt=salt.hex(),
            algorithm=opened.algorithm,
            public_key=opened.public_key.hex(),
        )
    )
    key, check = _derive(passphrase, salt, cost)
    box = sodium.encrypt(key, opened.secret, header)
    key.wipe()
    body = b"%s\n%s\n%s\n" % (header, check.hex().encode(), box.hex().encode())
    return body + hashlib.sha256(body).hexdigest().encode() + b"\n"


def open_file(content: bytes, *, passphrase: bytes) -> Opened:
    """Read the file's bytes. Takes the time and memory of the cost that it names.

    Raises:
        SealBroken: the file is damaged or was altered.
        PinWrong: the passphrase is not the one that closed it.
        TokenRefused: the memory that the file names is not to be had.
    """
    # 1. A file that was damaged is told without the passphrase.
    line, check, box = _split(content)
    header = _header(line)
    # 2. The passphrase is the right one.
    key, expected = _derive(passphrase, bytes.fromhex(header.salt), header.cost)
    if not hmac.compare_digest(check, expected):
        raise PinWrong("the passphrase does not open the key file")
    # 3. The box and the header are the ones that were written with it.
    try:
        secret = sodium.decrypt(key, box, line)
    except sodium.NotAuthentic as error:
        raise SealBroken("the key file was altered: its box does not open") from error
    finally:
        key.wipe()
    public_key = bytes.fromhex(header.public_key)
    return Opened(algorithm=header.algorithm, public_key=public_key, secret=secret)


def _split(content: bytes) -> tuple[bytes, bytes, bytes]:
    lines = content.split(b"\n")
    if len(lines) != 5 or lines[4] or len(content) > FILE_BYTES_MAX:
        raise SealBroken("the key file is damaged: it is not of four lines")
    body = content[: -len(lines[3]) - 1]
    if hashlib.sha256(body).hexdigest().encode() != lines[3]:
        raise SealBroken("the key file is damaged: its checksum differs")
    try:
        return lines[0], bytes.fromhex(lines[1].decode()), bytes.fromhex(lines[2].decode())
    except ValueError as error:
        raise SealBroken("the key file is damaged: a line is no hexadecimal") from error


def _header(line: bytes) -> Header:
    try:
        return msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SealBroken(f"the key file has a header that is not known: {error}") from error


def _derive(passphrase: bytes, salt: bytes, cost: Cost) -> tuple[Secret, bytes]:
    try:
        derived = sodium.derive(
            passphrase,
            salt,
            length=2 * KEY_BYTES,
            passes=cost.passes,
            memory=cost.memory_bytes,
        )
    except MemoryError as error:
        raise TokenRefused("there is not enough memory to open the key file") from error
    both = derived.copy()
    derived.wipe()
    key, rest = Secret.take(both[:KEY_BYTES]), both[KEY_BYTES:]
    check = hashlib.sha256(rest).digest()
    for used in (both, rest):
        wipe(used)
    return key, check
