"""What the headers of a message say, and how parked ones are read again."""

from __future__ import annotations

import msgspec
from nats.aio.msg import Msg
from nats.js import api

from cloud.stream.api import IDENTITY_BYTES, Message
from cloud.stream.parts import Cut

IDENTITY, PART_COUNT, DIGEST = "Nats-Msg-Id", "Cbdc-Parts", "Cbdc-Digest"
SUBJECT, ATTEMPTS = "Cbdc-Subject", "Cbdc-Attempts"


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A message's identity, and of what it consists, if it is in parts."""

    identity: bytes
    cut: Cut | None


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was set aside: `number` is its place there, `identity` in hex."""

    number: int
    subject: str
    identity: str
    attempts: int
    body: bytes

    @property
    def message(self) -> Message | None:
        """It as it was published; None of a stranger's, or one that was too large to keep."""
        if len(self.identity) != 2 * IDENTITY_BYTES or not self.body:
            return None
        identity = bytes.fromhex(self.identity)
        return Message(subject=self.subject, identity=identity, body=self.body)


def headers_of(identity: bytes, made: Cut | None) -> dict[str, str]:
    """What `label_of` reads."""
    headers = {IDENTITY: identity.hex()}
    if made is not None:
        headers |= {PART_COUNT: str(made.parts), DIGEST: made.digest.hex()}
    return headers


def label_of(raw: Msg) -> Label | None:
    """What the headers say; None of a message that no front and no relay published."""
    headers = raw.headers or {}
    try:
        identity = bytes.fromhex(headers.get(IDENTITY, ""))
        made = None
        if PART_COUNT in headers:
            digest = bytes.fromhex(headers.get(DIGEST, ""))
            made = Cut(parts=int(headers[PART_COUNT]), digest=digest)
    except ValueError:
        return None
    return Label(identity=identity, cut=made) if len(identity) == IDENTITY_BYTES else None


def parked_headers(raw: Msg, subject: str) -> dict[str, str]:
    """What `parked_of` reads. A stranger's identity is none."""
    label = label_of(raw)
    return {
        IDENTITY: f"{raw.metadata.sequence.stream}" if label is None else label.identity.hex(),
        SUBJECT: subject,
        ATTEMPTS: str(raw.metadata.num_delivered),
    }


def parked_of(raw: api.RawStreamMsg) -> Parked:
    """A parked message."""
    headers = raw.headers or {}
    return Parked(
        number=raw.seq or 0,
        subject=headers.get(SUBJECT, ""),
        identity=headers.get(IDENTITY, ""),
        attempts=int(headers.get(ATTEMPTS, "0")),
        body=raw.data or b"",
    )
