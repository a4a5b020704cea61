"""Reading a report: checkpoint and entries decoded, and the signatures that are still to check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

import msgspec

from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.codec import head
from wallet.protocol.cose import Sign1
from wallet.protocol.entry import Entry, EntryKind, Note, Payment, Void, decode_entry
from wallet.protocol.envelope import VerifiedUp
from wallet.protocol.ids import WalletId
from wallet.protocol.issued import Enrolment
from wallet.protocol.keys import PublicKey
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.messages import Request, decode_order
from wallet.protocol.receipt import VerifiedCheckpoint, verify_checkpoint
from wallet.protocol.refusals import Code, ProtocolError
from wallet.verifier import Job, job_of


class Keys(Protocol):
    """Enrolled keys by wallet."""

    def get(self, wallet: WalletId, /) -> PublicKey | None:
        """The key, or None."""
        ...


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A report, decoded. `problem`: the code of the first entry that cannot be read, at the place
    `len(entries)`; what follows it is not looked at.
    """

    checkpoint: VerifiedCheckpoint
    raws: tuple[bytes, ...]
    leaves: list[bytes]
    entries: list[Entry]
    problem: str | None = None


def read(up: VerifiedUp, anchor: TrustAnchor, *, grace_s: int) -> Reading:
    """Decode a report and check its checkpoint.

    Raises: ProtocolError: `certificate-invalid` past the grace, `proof-invalid` for a checkpoint
    that does not cover exactly these entries, and what decoding raises.
    """
    claims = up.claims
    checkpoint = verify_checkpoint(claims.checkpoint, root=anchor, grace_s=grace_s)
    if (checkpoint.journal, checkpoint.epoch) != (claims.journal, claims.epoch):
        raise ProtocolError(Code.PROOF_INVALID, "the checkpoint is another journal's")
    if checkpoint.size != claims.acknowledged_size + len(claims.entries):
        raise ProtocolError(Code.PROOF_INVALID, "the checkpoint does not cover the entries")
    entries: list[Entry] = []
    problem = None
    for index, raw in enumerate(claims.entries, claims.acknowledged_size):
        try:
            entries.append(_read_pay(raw, index) or decode_entry(raw))
        except ProtocolError as error:
            problem = str(error.code)
            break
    return Reading(
        checkpoint=checkpoint,
        raws=claims.entries,
        leaves=[leaf_hash(raw) for raw in claims.entries],
        entries=entries,
        problem=problem,
    )


_PAY = int(EntryKind.PAY)
# Kind, index, time and clock; then a body of two, whose first is an order of up to 65,535 bytes.
_PAY_LEAD = re.compile(
    rb"\xa5\x01\x02\x02([\x00-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})"
    rb"\x03\x1b(.{8})\x04([\x00\x01])\x05\x82(?:\x58(.)|\x59(..))",
    re.DOTALL,
)
_NO_REQUEST = b"\xf6"


def _read_pay(raw: bytes, index: int) -> Entry | None:
    """The commonest entry, a pay without a request, read by its bytes; None to decode it.

    The rules hold the entry against the bytes that they give themselves, so that nothing else
    passes for canonical. Raises: ProtocolError for what is no order.
    """
    match = _PAY_LEAD.match(raw)
    if match is None or match[1] != head(0, index):
        return None
    _, time_ms, clock, short, long = match.groups()
    order = raw[match.end() : -1]
    if int.from_bytes(short or long, "big") != len(order) or not raw.endswith(_NO_REQUEST):
        return None
    return Entry(
        raw=raw,
        kind=_PAY,
        index=index,
        time_ms=int.from_bytes(time_ms, "big"),
        clock=clock[0],
        body=Payment(order=decode_order(order)),
    )


class Signatures:
    """Wallets' signatures in entries, under the keys that the wallets have or will have."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._objects: list[Sign1] = []
        self._keys: list[PublicKey] = []

    def collect(
        self, entries: list[Entry], keys: Keys, enrolling: dict[WalletId, PublicKey]
    ) -> None:
        """Take what the entries carry; `enrolling` learns the keys of enrolments among them.

        A key that turns out to be another one later costs a second check and no more.
        """
        for entry in entries:
            if isinstance(entry.body, Enrolment):
                enrolling[entry.body.wallet] = entry.body.key
            for wallet, signed in _signed(entry):
                key = enrolling.get(wallet) or keys.get(wallet)
                if key is not None and signed.names(key):
                    self.jobs.append(job_of(signed, key))
                    self._objects.append(signed)
                    self._keys.append(key)

    def trusted(self, outcome: bytes) -> dict[int, PublicKey]:
        """The keys of those that hold, by the id of the object: valid while the objects live."""
        held = zip(self._objects, self._keys, outcome, strict=True)
        return {id(signed): key for signed, key, holds in held if holds}


def _signed(entry: Entry) -> Iterator[tuple[WalletId, Sign1]]:
    body = entry.body
    request: Request | None = None
    if isinstance(body, Payment):
        yield body.order.payer, body.order.signed
        request = body.request
    elif isinstance(body, Note | Void):
        request = body.request
    if request is not None:
        yield request.payee, request.signed
