"""The token's files: what the TPM made and only it can use, and when its counter began.

Two lines of ASCII: JSON, and its SHA-256 in hex. Nothing in them is secret: the private parts are
encrypted by the TPM. The checksum tells a damaged file from a TPM that was cleared or replaced.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from hsm.api import SealBroken, TokenRefused
from hsm.files import create_durably, make_folder, replace_durably
from hsm.pcr_policies import PcrPolicy

FILE_BYTES_MAX = 16384
RECORD_NAME, BEGINNING_NAME = "token.tpm", "counter.tpm"

Blob = Annotated[bytes, Meta(min_length=2, max_length=1024)]
Name = Annotated[bytes, Meta(min_length=34, max_length=34)]


class Sealed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object of the TPM as it is kept outside: TPM2B_PUBLIC, and TPM2B_PRIVATE, encrypted."""

    public: Blob
    private: Blob


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The objects of one token, and the names of what they hang on.

    `endorsement` outlives a clearing of the TPM, `storage` does not: together they tell a cleared
    TPM from another one.
    """

    format: Literal["tpm-token-1"] = "tpm-token-1"
    policy: PcrPolicy
    with_pin: bool
    nv_index: int
    storage: Name
    endorsement: Name
    secret: Sealed
    signing: Sealed
    attestation: Sealed


class Beginning(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The counter's name once it counts, and its first value. The last step of a creation."""

    format: Literal["tpm-counter-1"] = "tpm-counter-1"
    name: Name
    first: int


Kept = TypeVar("Kept", Record, Beginning)


def write_file(path: Path, kept: Record | Beginning) -> None:
    """Store it where nothing stands yet.

    Raises:
        TokenRefused: something stands there, or it could not be stored.
    """
    try:
        make_folder(path.parent)
        create_durably(path, _content(kept))
    except FileExistsError as error:
        raise TokenRefused("the folder holds a token already") from error
    except OSError as error:
        raise TokenRefused(f"the token's file is not stored: {error.strerror}") from error


def replace_file(path: Path, kept: Record) -> None:
    """Store it in the place of what stands there.

    Raises:
        TokenRefused: it could not be stored; what stood there still stands.
    """
    try:
        replace_durably(path, _content(kept))
    except OSError as error:
        raise TokenRefused(f"the token's file is not stored: {error.strerror}") from error


def read_file(path: Path, kind: type[Kept]) -> Kept | None:
    """Read it; None when it is not there.

    Raises:
        SealBroken: it is damaged or of a form that is not known.
        TokenRefused: it is not readable.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TokenRefused(f"the token's file is not readable: {error.strerror}") from error
    line, _, rest = content.partition(b"\n")
    if rest != hashlib.sha256(line).hexdigest().encode() + b"\n":
        raise SealBroken("the token's file is damaged: its checksum differs")
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SealBroken(f"the token's file is of a form that is not known: {error}") from error


def _content(kept: Record | Beginning) -> bytes:
    line = msgspec.json.encode(kept)
    return b"%s\n%s\n" % (line, hashlib.sha256(line).hexdigest().encode())
