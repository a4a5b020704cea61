"""Re-attestation: each report of a gateway with a TPM is held against what its enrolment proved.

Freshness. Each answer asks a question with a new random nonce, and the next report has to answer
it, bound to that report. Quotes that were made earlier answer other questions. A report that
answers an older question proves that much less: an answer may have been lost on the way, so its
entries are taken, and value, enrolments and certificates wait for the next report.

A report that answers nothing, or whose answer shows something else than was proven, suspends the
journal as any other evidence does. The gateway goes on paying within its limits all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from cloud.attestation.checks import (
    Flaw,
    Images,
    NotProven,
    check_counter,
    check_image,
    check_not_revoked,
    check_quote,
)
from cloud.attestation.levels import Level
from cloud.attestation.manifests import Manifest, PcrPolicyName
from cloud.attestation.questions import ask
from cloud.attestation.revocations import revoked_among
from cloud.attestation.trust_drafts import images_of
from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer.desk import Desk
from cloud.issuer.gateways import Gateway
from cloud.log import Log
from cloud.reconciler.evidence import Evidence, suspend
from cloud.reconciler.replica import open_epoch
from sync.attestation import HEALTH, Answer, from_health, report_data
from wallet.protocol.checkpoint import decode_checkpoint
from wallet.protocol.codec import encode
from wallet.protocol.envelope import Up
from wallet.protocol.refusals import ProtocolError

EVIDENCE_KIND = "attestation"
ANSWER_BYTES_MAX = 16_384
_log = Log("attestation")


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway with a TPM is held to, and what it was asked last."""

    pcr_policy: PcrPolicyName
    attestation_key: bytes
    counter_index: bytes
    counter: int
    nonce: bytes
    answered: bytes | None
    certificates: list[bytes]


class Attestation(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that holds: the image that runs, and the counter."""

    nonce: bytes
    image: str
    counter: int


_COLUMNS = ", ".join(Held.__struct_fields__)


async def judge(
    connection: Connection,
    desk: Desk,
    gateway: Gateway,
    up: Up,
    *,
    now_ms: int,
    carried: bool = False,
    at_home: Connection | None = None,
) -> bool:
    """Whether the report earns value, enrolments and certificates; a drift suspends the journal.

    `at_home`: a transaction where the journal lives, unless that is `connection`.

    `carried`: it came by courier, and others may have overtaken it. One that answers an older
    question says how things were, not how they are: it earns nothing, and convicts nobody.
    """
    row = await connection.fetchrow(
        f"SELECT level, {_COLUMNS} FROM gateway_attestation WHERE journal = $1 FOR UPDATE",
        gateway.journal,
    )
    if row is None:
        raise IssuerError("gateway-unknown", "nothing was asked of its hardware")
    if row["level"] != Level.TPM:
        return True
    held = msgspec.convert({name: row[name] for name in Held.__struct_fields__}, Held)
    if carried and (nonce := _overtaken(up, held)) is not None:
        _log.info("attestation.overtaken", gateway=gateway.name)
        if nonce != held.answered:
            # The books may be of a backup, and the gateway waits for a question newer than its own.
            await _ask_anew(connection, desk, gateway, held, answered=held.answered, now_ms=now_ms)
        return False
    images = await images_of(connection)
    revoked = await revoked_among(connection, held.certificates)
    try:
        check_not_revoked(held.certificates, revoked)
        found = check_report(up, held, images)
    except NotProven as error:
        await _convict(at_home or connection, gateway, up, held, images, error, now_ms=now_ms)
        return False
    await _note(connection, desk, gateway, held, found, now_ms=now_ms)
    return found.nonce == held.nonce


def check_report(up: Up, held: Held, images: Images) -> Attestation:
    """That the same TPM runs a published image, and its counter has not fallen. Raises: NotProven.

    Which question was answered is for the caller to see.
    """
    # 1. There is an answer.
    answer = _answer(up)
    data = report_data(
        answer.nonce, journal=up.journal, exchange=up.exchange, checkpoint=up.checkpoint
    )
    key = held.attestation_key
    # 2. The enrolled attestation key quotes the registers, for this report alone.
    check_quote(answer.quote, held.pcr_policy, attestation_key=key, data=data)
    # 3. They show an image that is approved now.
    manifest = check_image(answer.quote.pcrs, held.pcr_policy, images)
    # 4. The counter is the enrolled one, and neither fell nor lags behind what the journal signed.
    count = check_counter(answer.counter, attestation_key=key, data=data, index=held.counter_index)
    known = max(held.counter, _signed_counter(up))
    if count < known:
        raise NotProven(Flaw.FELL, f"it shows {count}, and was at {known}")
    return Attestation(nonce=answer.nonce, image=manifest.name, counter=count)


def _overtaken(up: Up, held: Held) -> bytes | None:
    """The older question that a report answers; None for one that is to be judged.

    The counter of a TPM that was put back is in the checkpoint as well, which the reconciler sees.
    """
    try:
        answer = from_health((up.health or {}).get(HEALTH))
    except ProtocolError:
        return None
    return None if answer.nonce == held.nonce else answer.nonce


def _answer(up: Up) -> Answer:
    value = (up.health or {}).get(HEALTH)
    if value is None:
        raise NotProven(Flaw.MISSING, "the report proves nothing of its gateway's hardware")
    try:
        return from_health(value)
    except ProtocolError as error:
        raise NotProven(Flaw.MALFORMED, error.detail) from error


def _signed_counter(up: Up) -> int:
    """The counter in the report's checkpoint; one that does not hold is the reconciler's matter."""
    try:
        return decode_checkpoint(up.checkpoint).head.counter
    except ProtocolError:
        return 0


async def _note(
    connection: Connection,
    desk: Desk,
    gateway: Gateway,
    held: Held,
    found: Attestation,
    *,
    now_ms: int,
) -> None:
    """Remember what was proven, and ask the next question.

    The question stays while its answer may only have been lost: the gateway answered the one
    before. Whoever answers any other one gets a new one, for the books may be of a backup.
    """
    await connection.execute(
        "UPDATE gateway_attestation SET counter = $2, image = $3, checked_ms = $4"
        " WHERE journal = $1",
        *(gateway.journal, max(found.counter, held.counter), found.image, now_ms),
    )
    if found.nonce != held.nonce:
        _log.info("attestation.behind", gateway=gateway.name)
    if found.nonce == held.answered:
        return
    await _ask_anew(connection, desk, gateway, held, answered=found.nonce, now_ms=now_ms)


async def _ask_anew(
    connection: Connection,
    desk: Desk,
    gateway: Gateway,
    held: Held,
    *,
    answered: bytes | None,
    now_ms: int,
) -> None:
    asked = await ask(desk, gateway.journal, held.pcr_policy, now_ms=now_ms)
    await connection.execute(
        "UPDATE gateway_attestation SET answered = $2, nonce = $3, question = $4"
        " WHERE journal = $1",
        *(gateway.journal, answered, asked.nonce, asked.question),
    )


async def _convict(
    connection: Connection,
    gateway: Gateway,
    up: Up,
    held: Held,
    images: Images,
    error: NotProven,
    *,
    now_ms: int,
) -> None:
    """Suspend the journal with what was found; once, however often it reports after that."""
    _log.warning("attestation.failed", gateway=gateway.name, code=error.code)
    epoch_id = await open_epoch(connection, journal=up.journal, epoch=up.epoch, now_ms=now_ms)
    state = await connection.fetchval(
        "SELECT state FROM journal_epoch WHERE epoch_id = $1 FOR UPDATE", epoch_id
    )
    # Where another epoch is in its place, the reconciler says so.
    if epoch_id is None or state != "open":
        return
    asked = {**_asked(up, held), "floors": [[*kind, images.floors[kind]] for kind in images.floors]}
    parts = (_found(up), encode(asked), encode(_expected(held, images.manifests)))
    evidence = Evidence(kind=EVIDENCE_KIND, code=error.code, index=None, parts=parts)
    await suspend(connection, epoch_id, evidence, now_ms=now_ms)


def _found(up: Up) -> bytes:
    """The answer as it came: the bytes of the quote, its signature, the values beside it.

    Of what is larger than any answer, the hash alone: nobody fills the evidence.
    """
    raw = encode((up.health or {}).get(HEALTH))
    return raw if len(raw) <= ANSWER_BYTES_MAX else hashlib.sha256(raw).digest()


def _asked(up: Up, held: Held) -> dict[str, Any]:
    """What anybody needs to check the statements again."""
    return {
        "attestation_key": held.attestation_key,
        "counter_index": held.counter_index,
        "counter": held.counter,
        "certificates": held.certificates,
        "nonce": held.nonce,
        "journal": up.journal,
        "exchange": up.exchange,
        "checkpoint": up.checkpoint,
    }


def _expected(held: Held, manifests: Sequence[Manifest]) -> list[Any]:
    """What each manifest in force told of: [name, values]."""
    named = [(manifest.name, manifest.registers(held.pcr_policy)) for manifest in manifests]
    return [[name, values] for name, values in named if values is not None]
