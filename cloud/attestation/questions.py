"""What the issuer asks the hardware of an enrolled gateway: a fresh nonce after each answer."""

from __future__ import annotations

from typing import NamedTuple

from cloud.attestation.manifests import PcrPolicyName
from cloud.database import Connection
from cloud.issuer.desk import Desk
from hsm.pcr_policies import PCR_POLICIES
from wallet.protocol.issued import QUESTION_TYPE

NONCE_BYTES = 32


class Open(NamedTuple):
    """A question that waits for its answer."""

    nonce: bytes
    question: bytes


async def ask(desk: Desk, journal: bytes, policy: PcrPolicyName, *, now_ms: int) -> Open:
    """A new question to a gateway, signed."""
    nonce = desk.random(NONCE_BYTES)
    claims = {2: journal, 3: nonce, 4: list(PCR_POLICIES[policy]), 5: now_ms}
    return Open(nonce=nonce, question=await desk.sign(QUESTION_TYPE, claims))


async def open_question(connection: Connection, journal: bytes) -> list[bytes]:
    """The question that a gateway has to answer next; none where it proves nothing."""
    question = await connection.fetchval(
        "SELECT question FROM gateway_attestation WHERE journal = $1", journal
    )
    return [] if question is None else [question]
