"""Reports and answers as files in a courier's pocket: their names, and folders that hold them.

A file is exactly what HTTPS would carry: a sealed envelope. Its name is for people and for sorting,
and says how long the file is, so that one that was copied by half is known as such; nothing else in
it is believed. Files appear whole or not at all: written under another name that begins with a dot,
flushed, renamed, and the folder flushed.
"""

from __future__ import annotations

import enum
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hsm.files import replace_durably
from sync.errors import Code, CourierError, SyncError
from wallet.protocol.ids import JournalId, journal_text, parse_journal
from wallet.protocol.refusals import Code as Refused
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.sealed import SEALED_BYTES_MAX

# Files of one folder: a year of a busy branch in segments has fewer.
FILES_MAX = 10_000
SHORT_BYTES = 4
_SUFFIX = ".cbs"
_NAME = re.compile(
    r"(?P<journal>jnl1[0-9a-z]{1,80})-e(?P<epoch>[0-9]{6,16})-(?P<first>[0-9]{12,16})"
    r"-(?P<end>[0-9]{12,16})-(?P<exchange>[0-9a-f]{8})-(?P<bytes>[0-9]{1,9})b"
    r"\.(?P<kind>up|down)\.cbs"
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class Kind(enum.StrEnum):
    """What a file holds: a gateway's report, or the issuer's answer to one."""

    REPORT = "up"
    ANSWER = "down"


class Fate(enum.StrEnum):
    """What became of a file that was opened and holds; stable codes."""

    TAKEN = "courier-taken"
    KNOWN = "courier-known"
    EARLY = "courier-early"
    REWOUND = "courier-rewound"
    REFUSED = "courier-refused"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file: a code that is stable, and a sentence for people."""

    code: str
    sentence: str

    @property
    def well(self) -> bool:
        """Nothing is left to do for this file."""
        return self.code in (Fate.TAKEN, Fate.KNOWN)


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a name says: entries `first` up to, not with, `end`; the exchange by its start."""

    kind: Kind
    journal: JournalId
    epoch: int
    first: int
    end: int
    exchange: bytes
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's name; names sort by gateway, epoch and size."""
        return (
            f"{journal_text(self.journal)}-e{self.epoch:06d}-{self.first:012d}-{self.end:012d}"
            f"-{self.exchange[:SHORT_BYTES].hex()}-{self.size_bytes}b.{self.kind}{_SUFFIX}"
        )


def read_label(name: str) -> Label | None:
    """What a name says; None for one that was not given here."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    try:
        journal = parse_journal(found["journal"])
    except ProtocolError:
        return None
    return Label(
        kind=Kind(found["kind"]),
        journal=journal,
        epoch=int(found["epoch"]),
        first=int(found["first"]),
        end=int(found["end"]),
        exchange=bytes.fromhex(found["exchange"]),
        size_bytes=int(found["bytes"]),
    )


def explained(error: SyncError | ProtocolError, reader: Kind) -> Outcome:
    """What a file's failure means to people. `reader`: what was looked for in the file."""
    code = str(error.code)
    sentence = _FAILURES[reader].get(code, error.detail)
    return Outcome(code=code, sentence=sentence or code)


_CUT = "it was cut off or altered on its way: copy the file once more"
_FAILURES: dict[Kind, dict[str, str]] = {
    Kind.REPORT: {
        Refused.MALFORMED: "it is no sealed report",
        Refused.UNKNOWN_KEY: "it is sealed for another issuer",
        Refused.NOT_OPENED: _CUT,
        Refused.CERTIFICATE_INVALID: "who signed it has no certificate of this issuer",
    },
    Kind.ANSWER: {
        Refused.MALFORMED: "it is no sealed answer",
        Refused.UNKNOWN_KEY: "it is sealed for another gateway",
        Refused.NOT_OPENED: _CUT,
        Refused.CERTIFICATE_INVALID: "who signed it is not this gateway's issuer",
        Refused.WRONG_ROLE: "who signed it is not this gateway's issuer",
        Refused.BAD_SIGNATURE: "who signed it is not this gateway's issuer",
        Code.FOREIGN_ANSWER: "it is for another journal or epoch",
    },
}


def find_files(folder: Path, kind: Kind, *, files_max: int = FILES_MAX) -> list[Path]:
    """The files of a folder that may hold this kind, sorted; those that say another kind left out.

    Raises: CourierError when the folder is gone or holds too many.
    """
    other = {Kind.REPORT: Kind.ANSWER, Kind.ANSWER: Kind.REPORT}[kind]
    try:
        names = sorted(_names(folder, files_max))
    except OSError as error:
        raise told(error, folder) from error
    return [folder / name for name in names if not name.endswith(f".{other}{_SUFFIX}")]


def _names(folder: Path, files_max: int) -> Iterator[str]:
    count = 0
    for path in folder.iterdir():
        # What begins with a dot was never finished, or belongs to the system that wrote the stick.
        if path.name.endswith(_SUFFIX) and not path.name.startswith(".") and path.is_file():
            count += 1
            if count > files_max:
                raise CourierError(Code.FILES_TOO_MANY, f"{folder}: more than {files_max} files")
            yield path.name


def read_sealed(path: Path) -> bytes:
    """The sealed envelope of a file. Raises: CourierError, ProtocolError `too-large`.

    A file that is shorter than its name says was copied by half; one under another name is only
    found out when it is opened.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(SEALED_BYTES_MAX + 1)
    except OSError as error:
        raise told(error, path) from error
    label = read_label(path.name)
    if label is not None and len(content) < label.size_bytes:
        detail = f"{len(content)} of {label.size_bytes} bytes came: copy the file once more"
        raise CourierError(Code.FILE_CUT, detail)
    return content


def put_file(folder: Path, label: Label, content: bytes) -> Path:
    """Write one file durably, in the place of one with the same name. Raises: CourierError."""
    path = folder / label.name
    try:
        replace_durably(path, content)
    except OSError as error:
        raise told(error, folder) from error
    return path


def told(error: OSError, place: Path) -> CourierError:
    """What a disk says, in this room's words."""
    if error.errno in _FULL:
        return CourierError(Code.FOLDER_FULL, f"{place}: no room is left")
    if error.errno in _CLOSED:
        return CourierError(Code.FOLDER_CLOSED, f"{place}: {error.strerror}")
    return CourierError(Code.FOLDER_GONE, f"{place}: {error.strerror}: was it pulled out?")
