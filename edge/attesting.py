"""The gateway proves its hardware to the issuer, when it enrols and with each report.

A token that proves nothing says nothing. What the issuer makes of it never holds up a payment.
"""

from __future__ import annotations

import msgspec

from edge.http.octets import Octets
from hsm.api import Attested, AttestedKeys, Attester
from sync.attestation import HEALTH, Answer, report_data, to_health
from wallet.journal import Journal
from wallet.protocol.issued import ROLES, Question, decode_question
from wallet.protocol.refusals import Code, Refusal
from wallet.protocol.trust import check_role
from wallet.store.database import Database
from wallet.store.meta import get_meta, put_meta

QUESTION = "attestation-question"


class ChallengeBody(msgspec.Struct, frozen=True, kw_only=True):
    """The public side of the token, for an issuer that is to ask it something."""

    token: str
    attestation_key: Octets
    endorsement_key: Octets
    endorsement_certificates: list[Octets]


class ChallengeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the issuer asks; nothing but the level where it wants no proof."""

    level: str
    nonce: Octets | None = None
    registers: tuple[int, ...] = ()
    credential: Octets = Octets(b"")
    secret: Octets = Octets(b"")


class StatementBody(msgspec.Struct, frozen=True, kw_only=True):
    """TPMS_ATTEST and TPMT_SIGNATURE."""

    statement: Octets
    signature: Octets


class AttestationBody(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a challenge."""

    nonce: Octets
    answer: Octets
    quote: StatementBody
    registers: dict[str, Octets]
    signer_key: Octets
    signer: StatementBody
    counter_index: Octets
    counter: StatementBody


def shown(keys: AttestedKeys, *, token: str) -> ChallengeBody:
    """What the issuer has to see before it asks."""
    return ChallengeBody(
        token=token,
        attestation_key=Octets(keys.attestation),
        endorsement_key=Octets(keys.endorsement),
        endorsement_certificates=[Octets(der) for der in keys.endorsement_certificates],
    )


async def prove(
    attester: Attester, keys: AttestedKeys, asked: ChallengeAnswer, *, nonce: bytes, data: bytes
) -> AttestationBody:
    """Answer a challenge; all statements are over `data`. Raises: HsmError."""
    answer = await attester.activate(credential=asked.credential.raw, secret=asked.secret.raw)
    quote = await attester.quote(asked.registers, nonce=data)
    return AttestationBody(
        nonce=Octets(nonce),
        answer=Octets(answer),
        quote=_statement(quote.attested),
        registers={str(register): Octets(value) for register, value in quote.pcrs.items()},
        signer_key=Octets(keys.signer),
        signer=_statement(await attester.certify_signer(nonce=data)),
        counter_index=Octets(keys.counter),
        counter=_statement(await attester.certify_counter(nonce=data)),
    )


def _statement(attested: Attested) -> StatementBody:
    return StatementBody(statement=Octets(attested.statement), signature=Octets(attested.signature))


async def take_question(journal: Journal, database: Database, question: Question) -> Refusal | None:
    """Keep what the issuer asks, for the next report. Raises: ProtocolError, StoreError."""
    check_role(journal.anchor, question.signed, ROLES[question.signed.type], held_chains={})
    if question.journal != journal.state.journal:
        return Refusal(code=Code.WRONG_JOURNAL, detail="a question to another gateway")
    await database.write(lambda connection: put_meta(connection, QUESTION, question.signed.raw))
    return None


async def answer_question(
    attester: Attester | None, database: Database, *, journal: bytes, exchange: bytes, head: bytes
) -> dict[str, object]:
    """The part of a report's health that answers the newest question; empty where none was asked.

    `head`: the checkpoint of the report. Raises: HsmError, StoreError.
    """
    raw = await database.read(lambda connection: get_meta(connection, QUESTION))
    if attester is None or raw is None:
        return {}
    question = decode_question(raw)
    data = report_data(question.nonce, journal=journal, exchange=exchange, checkpoint=head)
    answer = Answer(
        nonce=question.nonce,
        quote=await attester.quote(question.registers, nonce=data),
        counter=await attester.certify_counter(nonce=data),
    )
    return {HEALTH: to_health(answer)}
