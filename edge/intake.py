"""Taking in what the issuer sent: policies, lists, grants, enrolments, settlements and keys.

Objects come oldest first and may come twice; what is not newer is passed over. A grant that comes
too early, before its wallet or before another grant, waits in the store.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import msgspec

from edge.attesting import take_question
from edge.log import Log
from edge.verdicts import keep_verdicts
from edge.wishes import drop_wish
from wallet.journal import Journal, Receipted
from wallet.protocol.certificates import parse_certificate
from wallet.protocol.codec import decode
from wallet.protocol.issued import (
    ROLES,
    Enrolment,
    Grant,
    Issued,
    Keys,
    Question,
    Settlement,
    Statement,
    decode_grant,
    decode_issued,
    decode_keys,
)
from wallet.protocol.lists import SignedList
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import Code, ProtocolError, Refusal
from wallet.protocol.trust import check_role
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.objects import (
    HeldObject,
    delete_objects_below,
    list_objects,
    newest_object,
    put_object,
)

KEYS_KIND = "keys"
GRANT_KIND = "grant-waiting"
GRANTS_WAITING_MAX = 10_000
OBJECT_BYTES_MAX = 64 * 1024 * 1024
_DER = b"\x30"
# CBOR arrays of one to three items; what is signed (COSE_Sign1) has four.
_SHORT_LISTS = (b"\x81", b"\x82", b"\x83")
_EARLY = (Code.GRANT_GAP, Code.UNKNOWN_WALLET)
_log = Log("intake")


class Intake(msgspec.Struct, kw_only=True):
    """What became of the objects of one answer: how many count, and the codes of the refused."""

    taken: int = 0
    refused: list[str] = []


async def take_objects(journal: Journal, database: Database, objects: Sequence[bytes]) -> Intake:
    """Take objects in their order, certificates before them: an expired one lets nothing else in.

    What is refused is noted and the rest goes on. Raises: StoreError.
    """
    intake = Intake()
    certified = {raw: _certificates(raw) for raw in objects}
    if certificates := [der for found in certified.values() for der in found]:
        _note(intake, await _renew(journal, certificates))
    for raw in objects:
        if certified[raw]:
            continue
        try:
            outcome = await _take(journal, database, decode_issued(raw))
        except ProtocolError as error:
            outcome = error.refusal()
        _note(intake, outcome)
    return intake


def _note(intake: Intake, outcome: Receipted | Refusal | None) -> None:
    if isinstance(outcome, Refusal):
        intake.refused.append(str(outcome.code))
        _log.warning("object.refused", code=str(outcome.code), detail=outcome.detail)
    elif outcome is not None:
        intake.taken += 1


async def _take(journal: Journal, database: Database, given: Issued) -> Receipted | Refusal | None:
    """The entry that the object became; None when it is not news."""
    state = journal.state
    match given:
        case Policy():
            known = state.policy
            if known is not None and given.sequence <= known.sequence:
                return None
            return await journal.submit(given)
        case SignedList():
            held = state.lists.get(given.list_id)
            if held is not None and given.sequence <= held.sequence:
                return None
            return await journal.take_list(given)
        case Enrolment():
            return await _enrol(journal, database, given)
        case Grant():
            return await _grant(journal, database, given)
        case Settlement():
            return await _settle(journal, database, given)
        case Keys():
            return await _keys(journal, database, given)
        case Question():
            return await take_question(journal, database, given)
        case Statement():
            return None


async def _enrol(
    journal: Journal, database: Database, enrolment: Enrolment
) -> Receipted | Refusal | None:
    state = journal.state
    known = state.wallets.get(enrolment.wallet) if enrolment.journal == state.journal else None
    same = known is not None and known.key == enrolment.key and known.tier == enrolment.tier
    if known is not None and same and known.enrolment_expires_ms >= enrolment.expires_ms:
        await database.write(lambda connection: drop_wish(connection, enrolment.wallet))
        return None
    outcome = await journal.submit(enrolment)
    if isinstance(outcome, Receipted):
        await database.write(lambda connection: drop_wish(connection, enrolment.wallet))
        await _drain(journal, database)
    return outcome


async def _grant(journal: Journal, database: Database, grant: Grant) -> Receipted | Refusal | None:
    state = journal.state
    if grant.epoch == state.epoch and grant.sequence < state.grants_next:
        return None
    outcome = await journal.submit(grant)
    if isinstance(outcome, Receipted):
        await _drain(journal, database)
    elif outcome.code in _EARLY:
        held = HeldObject(kind=GRANT_KIND, sequence=grant.sequence, object=grant.signed.raw)
        if grant.sequence - state.grants_next < GRANTS_WAITING_MAX:
            await database.write(lambda connection: put_object(connection, held))
            return None
    return outcome


async def _drain(journal: Journal, database: Database) -> None:
    """Grants that waited and may be in turn now."""
    while True:
        sequence = journal.state.grants_next
        waiting = await database.read(functools.partial(_grant_waiting, sequence=sequence))
        if waiting is None:
            break
        outcome = await journal.submit(decode_grant(waiting.object))
        if isinstance(outcome, Refusal):
            _log.debug("grant.waiting", code=str(outcome.code))
            break
    done = journal.state.grants_next
    await database.write(lambda connection: delete_objects_below(connection, GRANT_KIND, done))


def _grant_waiting(connection: Connection, *, sequence: int) -> HeldObject | None:
    found = list_objects(connection, GRANT_KIND, sequence - 1, 1)
    return found[0] if found and found[0].sequence == sequence else None


async def _settle(
    journal: Journal, database: Database, settlement: Settlement
) -> Receipted | Refusal | None:
    state = journal.state
    known = (settlement.size, settlement.time_ms) <= (state.settled_size, state.settled_ms)
    if known and settlement.epoch == state.epoch:
        return None
    outcome = await journal.settle(settlement)
    if isinstance(outcome, Receipted):
        await database.write(lambda connection: keep_verdicts(connection, settlement))
    return outcome


async def _keys(journal: Journal, database: Database, keys: Keys) -> Receipted | Refusal | None:
    """The issuer's keys for envelopes: no entry, an object."""
    known = await held_keys(database)
    if known is not None and keys.sequence <= known.sequence:
        return None
    check_role(journal.anchor, keys.signed, ROLES[keys.signed.type], held_chains={})
    held = HeldObject(kind=KEYS_KIND, sequence=keys.sequence, object=keys.signed.raw)
    await database.write(lambda connection: put_object(connection, held))
    return None


async def held_keys(database: Database) -> Keys | None:
    """The newest keys of the issuer. Raises: StoreError."""
    held = await database.read(lambda connection: newest_object(connection, KEYS_KIND))
    return None if held is None else decode_keys(held.object)


def _certificates(raw: bytes) -> list[bytes]:
    """Certificates in DER, alone or as a CBOR list of them; nothing for other objects."""
    if raw[:1] == _DER:
        return [raw]
    if raw[:1] not in _SHORT_LISTS:
        return []
    try:
        parts = decode(raw, bytes_max=OBJECT_BYTES_MAX)
    except ProtocolError:
        return []
    all_der = all(isinstance(part, bytes) and part[:1] == _DER for part in parts)
    return parts if all_der else []


async def _renew(journal: Journal, certificates: list[bytes]) -> Receipted | Refusal | None:
    """Use the newest leaf, under the sub-CA that came with it or the one that is held."""
    try:
        parsed = [(parse_certificate(der), der) for der in certificates]
        leaves = [pair for pair in parsed if not pair[0].authority]
        authorities = {pair[0].subject: pair[1] for pair in parsed if pair[0].authority}
        if not leaves:
            return None
        leaf, der = max(leaves, key=lambda pair: pair[0].not_after_s)
        authority = authorities.get(leaf.issuer, journal.chain[1])
        held = parse_certificate(journal.chain[0])
        # What was on its way for long does not take the place of what came since.
        if (der, authority) != journal.chain and leaf.not_after_s >= held.not_after_s:
            await journal.renew((der, authority))
            _log.info("certificate.renewed", not_after_s=leaf.not_after_s)
    except ProtocolError as error:
        return error.refusal()
    return None
