"""What a gateway's TPM says of itself to the issuer: what it is bound to, and its form in a report.

The TPM signs a question's nonce together with what the answer is about, so that a statement proves
nothing for another gateway, another enrolment or another report.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from hsm.api import Attested, Quote
from wallet.protocol import shapes
from wallet.protocol.issued import REGISTERS

HEALTH = "attestation"
# Bounds of TPMS_ATTEST and TPMT_SIGNATURE with room to spare.
STATEMENT_BYTES_MAX = 2048
_ENROLMENT = b"cbdc-enrolment-attestation/1"
_REPORT = b"cbdc-report-attestation/1"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a report says of its gateway's hardware: the measurements, and the counter."""

    nonce: bytes
    quote: Quote
    counter: Attested


def enrolment_data(nonce: bytes, *, cose_key: bytes, tls_csr: str, hpke_key: bytes) -> bytes:
    """What the statements of an enrolment are over: all keys that the certificates will name."""
    return _bound(_ENROLMENT, nonce, cose_key, tls_csr.encode(), hpke_key)


def report_data(nonce: bytes, *, journal: bytes, exchange: bytes, checkpoint: bytes) -> bytes:
    """What the statements in a report are over: this exchange, and where the journal stands."""
    return _bound(_REPORT, nonce, journal, exchange, checkpoint)


def to_health(answer: Answer) -> dict[str, Any]:
    """The answer as it travels (wire.cddl, attestation)."""
    return {
        "nonce": answer.nonce,
        "quote": _pair(answer.quote.attested),
        "registers": dict(answer.quote.pcrs),
        "counter": _pair(answer.counter),
    }


def from_health(value: object) -> Answer:
    """Read it. Raises: ProtocolError `malformed`."""
    if not isinstance(value, dict) or value.keys() != _FIELDS.keys():
        raise shapes.malformed("not an attestation")
    fields = {name: check(value[name]) for name, check in _FIELDS.items()}
    quote = Quote(attested=fields["quote"], pcrs=fields["registers"])
    return Answer(nonce=fields["nonce"], quote=quote, counter=fields["counter"])


def _bound(context: bytes, nonce: bytes, *parts: bytes) -> bytes:
    """32 bytes; the parts are hashed one by one, so that none runs into the next."""
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hashlib.sha256(context + nonce + digests).digest()


def _pair(attested: Attested) -> list[bytes]:
    return [attested.statement, attested.signature]


def _attested(value: Any) -> Attested:
    statement, signature = _halves(value)
    if max(len(statement), len(signature)) > STATEMENT_BYTES_MAX:
        raise shapes.malformed("a statement is too long")
    return Attested(statement=statement, signature=signature)


_halves = shapes.fixed(shapes.binary, shapes.binary)
_FIELDS: dict[str, shapes.Check] = {
    "nonce": shapes.digest,
    "quote": _attested,
    "registers": shapes.mapping(shapes.choice(*REGISTERS), shapes.digest),
    "counter": _attested,
}
