"""What the issuer signs: enrolments, grants, settlements and more; and the dispatcher."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.codec import encode
from wallet.protocol.cose import Sign1, decode_sign1
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.keys import PublicKey, from_cose_map
from wallet.protocol.lists import LIST_BYTES_MAX, SignedList, list_of
from wallet.protocol.policy import Policy, policy_of
from wallet.protocol.refusals import Code, ProtocolError

ENROLMENT_TYPE = "application/cbdc-enrolment+cose"
GRANT_TYPE = "application/cbdc-grant+cose"
POLICY_TYPE = "application/cbdc-policy+cose"
LIST_TYPE = "application/cbdc-list+cose"
SETTLEMENT_TYPE = "application/cbdc-settlement+cose"
STATEMENT_TYPE = "application/cbdc-statement+cose"
KEYS_TYPE = "application/cbdc-keys+cose"
QUESTION_TYPE = "application/cbdc-question+cose"
# The role whose key signs each type (protocol.md, "Keys and certificates").
ROLES = {
    ENROLMENT_TYPE: "enrolment",
    GRANT_TYPE: "grants",
    POLICY_TYPE: "policy",
    LIST_TYPE: "lists",
    SETTLEMENT_TYPE: "settlement",
    STATEMENT_TYPE: "settlement",
    KEYS_TYPE: "sync",
    QUESTION_TYPE: "sync",
}
_BYTES_MAX = {
    LIST_TYPE: LIST_BYTES_MAX,
    SETTLEMENT_TYPE: 1024 * 1024,
    STATEMENT_TYPE: LIST_BYTES_MAX,
}


# Registers (PCRs) of a TPM's bank.
REGISTERS = range(24)


class VerdictState(enum.IntEnum):
    """State of an entry that a settlement names."""

    HELD = 1
    PENDING = 2
    REJECTED = 3


class Enrolment(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet's key, journal and tier."""

    signed: Sign1
    wallet: WalletId
    journal: JournalId
    key: PublicKey
    tier: int
    expires_ms: int
    label: str | None = None


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Value for a wallet in a journal; sequences have no gap within an epoch."""

    signed: Sign1
    journal: JournalId
    epoch: int
    sequence: int
    wallet: WalletId
    amount_minor: int
    currency: str
    expires_ms: int


class Verdict(msgspec.Struct, frozen=True):
    """An entry that a settlement does not settle."""

    index: int
    state: int
    code: str


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer's word on a checkpoint: entries below `size` are final but for `verdicts`."""

    signed: Sign1
    journal: JournalId
    epoch: int
    size: int
    root: bytes
    verdicts: tuple[Verdict, ...]
    time_ms: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What an issuer carries over from a closed epoch: balances and redeemed notes."""

    signed: Sign1
    journal: JournalId
    epoch: int
    size: int
    root: bytes
    carried: tuple[tuple[WalletId, int], ...]
    redeemed: tuple[tuple[JournalId, int, int], ...]


class SyncKey(msgspec.Struct, frozen=True):
    """A public HPKE key of the issuer; `kid` is the first 8 bytes of its thumbprint."""

    kid: bytes
    x25519: bytes
    not_after_ms: int


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer's HPKE keys for synchronisation."""

    signed: Sign1
    sequence: int
    keys: tuple[SyncKey, ...]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What the issuer asks the hardware of a gateway; its next report answers.

    `nonce` is fresh; `registers` are those whose measurements the answer quotes.
    """

    signed: Sign1
    journal: JournalId
    nonce: bytes
    registers: tuple[int, ...]
    time_ms: int


Issued = Enrolment | Grant | Policy | SignedList | Settlement | Statement | Keys | Question

_ENROLMENT = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.identifier,
    4: from_cose_map,
    5: shapes.count,
    6: shapes.count,
}
_GRANT = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.count,
    4: shapes.count,
    5: shapes.identifier,
    6: shapes.amount,
    7: shapes.currency,
    8: shapes.count,
}
_verdict = shapes.fixed(shapes.count, shapes.choice(*VerdictState), shapes.text)
_SETTLEMENT = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.count,
    4: shapes.count,
    5: shapes.digest,
    6: shapes.listed(_verdict),
    7: shapes.count,
}
_STATEMENT = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.count,
    4: shapes.count,
    5: shapes.digest,
    6: shapes.listed(shapes.fixed(shapes.identifier, shapes.count)),
    7: shapes.listed(shapes.fixed(shapes.identifier, shapes.count, shapes.count)),
}
_sync_key = shapes.fixed(shapes.octets(8), shapes.octets(32), shapes.count)
_KEYS = {1: shapes.count, 2: shapes.count, 3: shapes.listed(_sync_key, least=1)}

_QUESTION = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.digest,
    4: shapes.listed(shapes.choice(*REGISTERS), least=1),
    5: shapes.count,
}


def _enrolment(signed: Sign1, claims: Any) -> Enrolment:
    fields = shapes.record(claims, _ENROLMENT, {7: shapes.reference})
    if fields[4].id != fields[2]:
        raise shapes.malformed("the wallet is not the thumbprint of its key")
    return Enrolment(
        signed=signed,
        wallet=fields[2],
        journal=fields[3],
        key=fields[4],
        tier=fields[5],
        expires_ms=fields[6],
        label=fields.get(7),
    )


def _grant(signed: Sign1, claims: Any) -> Grant:
    fields = shapes.record(claims, _GRANT)
    return Grant(
        signed=signed,
        journal=fields[2],
        epoch=fields[3],
        sequence=fields[4],
        wallet=fields[5],
        amount_minor=fields[6],
        currency=fields[7],
        expires_ms=fields[8],
    )


def _settlement(signed: Sign1, claims: Any) -> Settlement:
    fields = shapes.record(claims, _SETTLEMENT)
    return Settlement(
        signed=signed,
        journal=fields[2],
        epoch=fields[3],
        size=fields[4],
        root=fields[5],
        verdicts=tuple([Verdict(*verdict) for verdict in fields[6]]),
        time_ms=fields[7],
    )


def _statement(signed: Sign1, claims: Any) -> Statement:
    fields = shapes.record(claims, _STATEMENT)
    return Statement(
        signed=signed,
        journal=fields[2],
        epoch=fields[3],
        size=fields[4],
        root=fields[5],
        carried=fields[6],
        redeemed=fields[7],
    )


def _keys(signed: Sign1, claims: Any) -> Keys:
    fields = shapes.record(claims, _KEYS)
    return Keys(signed=signed, sequence=fields[2], keys=tuple([SyncKey(*k) for k in fields[3]]))


def _question(signed: Sign1, claims: Any) -> Question:
    fields = shapes.record(claims, _QUESTION)
    return Question(
        signed=signed,
        journal=fields[2],
        nonce=fields[3],
        registers=fields[4],
        time_ms=fields[5],
    )


_MAKERS: dict[str, Callable[[Sign1, Any], Any]] = {
    ENROLMENT_TYPE: _enrolment,
    GRANT_TYPE: _grant,
    POLICY_TYPE: policy_of,
    LIST_TYPE: list_of,
    SETTLEMENT_TYPE: _settlement,
    STATEMENT_TYPE: _statement,
    KEYS_TYPE: _keys,
    QUESTION_TYPE: _question,
}


def _decode(raw: bytes, type_: str) -> Any:
    bytes_max = _BYTES_MAX.get(type_, 16 * 1024)
    signed, claims = decode_sign1(raw, type_=type_, with_chain=True, bytes_max=bytes_max)
    shapes.versioned(claims)
    return _MAKERS[type_](signed, claims)


def decode_enrolment(raw: bytes) -> Enrolment:
    """An enrolment by shape. Raises: ProtocolError; also `weak-key`."""
    made: Enrolment = _decode(raw, ENROLMENT_TYPE)
    return made


def decode_grant(raw: bytes) -> Grant:
    """A grant by shape. Raises: ProtocolError."""
    made: Grant = _decode(raw, GRANT_TYPE)
    return made


def decode_policy(raw: bytes) -> Policy:
    """A policy by shape. Raises: ProtocolError."""
    made: Policy = _decode(raw, POLICY_TYPE)
    return made


def decode_list(raw: bytes) -> SignedList:
    """A list by shape, its content too. Raises: ProtocolError."""
    made: SignedList = _decode(raw, LIST_TYPE)
    return made


def decode_settlement(raw: bytes) -> Settlement:
    """A settlement by shape. Raises: ProtocolError."""
    made: Settlement = _decode(raw, SETTLEMENT_TYPE)
    return made


def decode_statement(raw: bytes) -> Statement:
    """A statement by shape. Raises: ProtocolError."""
    made: Statement = _decode(raw, STATEMENT_TYPE)
    return made


def decode_keys(raw: bytes) -> Keys:
    """The issuer's HPKE keys by shape. Raises: ProtocolError."""
    made: Keys = _decode(raw, KEYS_TYPE)
    return made


def decode_question(raw: bytes) -> Question:
    """A question to the hardware by shape. Raises: ProtocolError."""
    made: Question = _decode(raw, QUESTION_TYPE)
    return made


def decode_issued(raw: bytes) -> Issued:
    """Whatever the issuer signed, told apart by its `typ`.

    Raises: ProtocolError; `unknown-type` when no type of the issuer's fits.
    """
    for type_ in _MAKERS:
        # A cheap look before the strict decoder: the typ stands in the protected header.
        if type_.encode() in raw[:100]:
            made: Issued = _decode(raw, type_)
            return made
    raise ProtocolError(Code.UNKNOWN_TYPE, "nothing that the issuer signs")


def payload(claims: dict[int, Any]) -> bytes:
    """Payload of an issuer's object from numbered claims, version included."""
    return encode({1: 1, **claims})
