"""What front and worker write to each other: a report that is handed on, and its outcome."""

from __future__ import annotations

import hashlib

import msgspec

from cloud.errors import CloudError

OUTCOMES = "outcome"
FAMILY = "ingest"


class Handed(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A report as the gateway sealed it, and the front that waits for its outcome.

    It is sealed to the issuer, so that it is as secret on the stream's disks as on the way here.
    """

    front: str
    sealed: bytes


class Outcome(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a worker says of the message with an identity, once all of it is committed.

    `settled`: size and time of the last settlement that the journal has entered. `failure`: a code
    where nothing is known to be stored.
    """

    identity: bytes
    acknowledged: int = 0
    problem: str | None = None
    settled: tuple[int, int] | None = None
    failure: str | None = None
    detail: str = ""


class Unreadable(CloudError):
    """Something else than what fronts and workers write: `message-unreadable`."""


def pack(value: Handed | Outcome) -> bytes:
    """The bytes."""
    return msgspec.msgpack.encode(value)


def unpack_handed(raw: bytes) -> Handed:
    """Raises: Unreadable."""
    try:
        return msgspec.msgpack.decode(raw, type=Handed)
    except msgspec.MsgspecError as error:
        raise Unreadable("message-unreadable", str(error)) from error


def unpack_outcome(raw: bytes) -> Outcome:
    """Raises: Unreadable."""
    try:
        return msgspec.msgpack.decode(raw, type=Outcome)
    except msgspec.MsgspecError as error:
        raise Unreadable("message-unreadable", str(error)) from error


def outcome_topic(front: str) -> str:
    """Where a front listens."""
    return f"{OUTCOMES}.{front}"


def partition_of(journal: bytes, *, partitions: int) -> int:
    """Where all reports of a journal go, whoever asks and whenever."""
    return int.from_bytes(hashlib.sha256(journal).digest()[:8], "big") % partitions


def partition_subject(partition: int) -> str:
    """The subject of a partition's messages."""
    return f"{FAMILY}.{partition}"
