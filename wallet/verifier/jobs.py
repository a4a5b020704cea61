"""What is checked, and its bytes on the way to a helper."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from wallet.protocol.cose import Sign1
from wallet.protocol.keys import PublicKey, verify_signature
from wallet.protocol.refusals import ProtocolError

Job = tuple[int, bytes, bytes, bytes]
"""(algorithm, raw public key, signature, signed bytes)."""

_COUNT = struct.Struct(">I")
# Algorithm; lengths of the key, the signature and what is signed.
_HEAD = struct.Struct(">bBBI")


def job_of(signed: Sign1, key: PublicKey) -> Job:
    """The job of a signed object under a key that its header names."""
    return (key.algorithm, key.raw, signed.signature, signed.signed_bytes)


def check(jobs: Sequence[Job]) -> bytes:
    """One byte a job: 1 where the signature holds."""
    return bytes([holds(job) for job in jobs])


def holds(job: Job) -> bool:
    """Whether the signature holds."""
    try:
        verify_signature(*job)
    except ProtocolError:
        return False
    return True


def pack(jobs: Sequence[Job]) -> bytes:
    """A chunk: its length without these four bytes, then the jobs."""
    parts = [b""]
    for algorithm, raw, signature, message in jobs:
        parts.append(_HEAD.pack(algorithm, len(raw), len(signature), len(message)))
        parts += (raw, signature, message)
    body = b"".join(parts)
    return _COUNT.pack(len(body)) + body


def chunk_length(lead: bytes) -> int:
    """The bytes that follow the first four of a chunk."""
    return int(_COUNT.unpack(lead)[0])


def unpack(body: bytes) -> list[Job]:
    """The jobs of a chunk without its length. Our own process wrote it: nothing is refused."""
    jobs: list[Job] = []
    at = 0
    while at < len(body):
        algorithm, key, signature, message = _HEAD.unpack_from(body, at)
        start = at + _HEAD.size
        middle, end = start + key, start + key + signature
        at = end + message
        jobs.append((algorithm, body[start:middle], body[middle:end], body[end:at]))
    return jobs
