"""Synchronisation envelopes: `up` by a journal, `down` by the issuer (wire.cddl).

The signature is checked before the payload is decoded: an envelope may be large, and anyone can
send one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wallet.protocol import shapes
from wallet.protocol.certificates import (
    Chain,
    JournalCertificate,
    RoleCertificate,
    TrustAnchor,
    check_role_chain,
    journal_chain,
)
from wallet.protocol.codec import decode, encode
from wallet.protocol.cose import Sign1, open_sign1
from wallet.protocol.ids import JournalId
from wallet.protocol.receipt import NO_CHAINS
from wallet.protocol.refusals import Code, ProtocolError

UP_TYPE = "application/cbdc-sync-up+cose"
DOWN_TYPE = "application/cbdc-sync-down+cose"
SYNC_ROLE = "sync"
ENVELOPE_BYTES_MAX = 64 * 1024 * 1024
# Keys of `newest`: wire.cddl, up, item 8.
NEWEST_POLICY, NEWEST_GRANTS, NEWEST_KEYS, NEWEST_LISTS = 0, 1, 2, 10


class Up(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal reports. `collected`: (entry, receipt) of other journals.

    `newest`: the newest sequence held, by kind; what is not held is left out.
    """

    journal: JournalId
    epoch: int
    exchange: bytes
    acknowledged_size: int
    entries: tuple[bytes, ...]
    checkpoint: bytes
    newest: dict[int, int]
    collected: tuple[tuple[bytes, bytes], ...] = ()
    health: dict[str, Any] | None = None


class Down(msgspec.Struct, frozen=True, kw_only=True):
    """What the issuer answers. `problem`: a code, when nothing of the segment was kept.

    `waiting`: bytes of objects for which this answer had no room.
    """

    journal: JournalId
    epoch: int
    exchange: bytes
    acknowledged_size: int
    objects: tuple[bytes, ...]
    problem: str | None = None
    waiting: int = 0


class VerifiedUp(msgspec.Struct, frozen=True, kw_only=True):
    """A report and who signed it. `raw`: the signed envelope."""

    claims: Up
    certificate: JournalCertificate
    raw: bytes


class VerifiedDown(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and who signed it."""

    claims: Down
    certificate: RoleCertificate


def _anything(value: Any) -> Any:
    return value


_transfer = shapes.fixed(shapes.binary, shapes.binary)
_UP = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.count,
    4: shapes.nonce,
    5: shapes.count,
    6: shapes.listed(shapes.binary),
    7: shapes.binary,
    8: shapes.mapping(shapes.count, shapes.count),
    9: shapes.listed(_transfer),
}
_DOWN = {
    1: shapes.count,
    2: shapes.identifier,
    3: shapes.count,
    4: shapes.nonce,
    5: shapes.count,
    6: shapes.listed(shapes.binary),
}
_UP_ALLOWED = {10: shapes.mapping(shapes.text, _anything)}
_DOWN_ALLOWED = {7: shapes.text, 8: shapes.count}


def up_payload(claims: Up) -> bytes:
    """Encoded claims of `up`, to be signed by the journal's key under UP_TYPE."""
    fields: dict[int, Any] = {
        1: 1,
        2: claims.journal,
        3: claims.epoch,
        4: claims.exchange,
        5: claims.acknowledged_size,
        6: list(claims.entries),
        7: claims.checkpoint,
        8: claims.newest,
        9: [list(transfer) for transfer in claims.collected],
    }
    return encode(fields if claims.health is None else {**fields, 10: claims.health})


def down_payload(claims: Down) -> bytes:
    """Encoded claims of `down`, to be signed by the role sync under DOWN_TYPE."""
    fields: dict[int, Any] = {
        1: 1,
        2: claims.journal,
        3: claims.epoch,
        4: claims.exchange,
        5: claims.acknowledged_size,
        6: list(claims.objects),
    }
    if claims.problem is not None:
        fields[7] = claims.problem
    if claims.waiting:
        fields[8] = claims.waiting
    return encode(fields)


def verify_up(
    envelope: bytes, *, root: TrustAnchor, held_chains: Mapping[bytes, Chain] = NO_CHAINS
) -> VerifiedUp:
    """A report, by the key that is certified for the journal and epoch which it names.

    The certificate's time is the caller's to judge: a journal that was offline for longer than its
    leaf lasts gets a new one by this very exchange.
    Raises: ProtocolError `too-large`, `not-canonical`, `malformed`, `unknown-type`,
    `certificate-invalid`, `bad-signature`, `unknown-version`.
    """
    signed = open_sign1(envelope, type_=UP_TYPE, bytes_max=ENVELOPE_BYTES_MAX)
    certificate = journal_chain(_chain(signed, held_chains), root)
    signed.verify(certificate.key)
    fields = _fields(signed, _UP, _UP_ALLOWED)
    if (fields[2], fields[3]) != (certificate.journal, certificate.epoch):
        raise ProtocolError(Code.CERTIFICATE_INVALID, "certified for another journal or epoch")
    claims = Up(
        journal=fields[2],
        epoch=fields[3],
        exchange=fields[4],
        acknowledged_size=fields[5],
        entries=fields[6],
        checkpoint=fields[7],
        newest=fields[8],
        collected=fields[9],
        health=fields.get(10),
    )
    return VerifiedUp(claims=claims, certificate=certificate, raw=envelope)


def verify_down(
    envelope: bytes, *, root: TrustAnchor, held_chains: Mapping[bytes, Chain] = NO_CHAINS
) -> VerifiedDown:
    """An answer, by the issuer's role sync. That it answers this exchange is the caller's to see.

    Raises: ProtocolError as `verify_up`, and `wrong-role`.
    """
    signed = open_sign1(envelope, type_=DOWN_TYPE, bytes_max=ENVELOPE_BYTES_MAX)
    certificate = check_role_chain(_chain(signed, held_chains), root, SYNC_ROLE)
    signed.verify(certificate.key)
    fields = _fields(signed, _DOWN, _DOWN_ALLOWED)
    claims = Down(
        journal=fields[2],
        epoch=fields[3],
        exchange=fields[4],
        acknowledged_size=fields[5],
        objects=fields[6],
        problem=fields.get(7),
        waiting=fields.get(8, 0),
    )
    return VerifiedDown(claims=claims, certificate=certificate)


def _chain(signed: Sign1, held_chains: Mapping[bytes, Chain]) -> Chain:
    return signed.chain or held_chains.get(signed.key_id, ())


def _fields(
    signed: Sign1, required: Mapping[int, shapes.Check], allowed: Mapping[int, shapes.Check]
) -> dict[int, Any]:
    claims = decode(signed.payload, bytes_max=ENVELOPE_BYTES_MAX)
    shapes.versioned(claims)
    return shapes.record(claims, required, allowed)
