"""The gateway proves its hardware to the issuer, when it enrols and with each report.

A token that proves nothing says nothing. What the issuer makes of it never holds up a payment.
"""

from __future__ import annotations

from hsm.api import Attester
from sync.attestation import HEALTH, Answer, report_data, to_health
from wallet.journal import Journal
from wallet.protocol.issued import ROLES, Question, decode_question
from wallet.protocol.refusals import Code, Refusal
from wallet.protocol.trust import check_role
from wallet.store.database import Database
from wallet.store.meta import get_meta, put_meta

QUESTION = "attestation-question"


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
