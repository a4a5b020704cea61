"""What a gateway with a TPM sends when it enrols, and what it is asked; binary is base64url."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from cloud.attestation.checks import Proof
from cloud.attestation.enrolling import Asked, Claimed, Shown
from cloud.http.octets import from_text, to_text
from hsm.api import Attested, Quote

Driver = Literal["software", "pkcs11", "tpm"]
_Register = Annotated[str, msgspec.Meta(pattern="^(1?[0-9]|2[0-3])$", max_length=2)]


class StatementBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TPMS_ATTEST and TPMT_SIGNATURE."""

    statement: str
    signature: str

    @property
    def attested(self) -> Attested:
        """The bytes."""
        return Attested(statement=from_text(self.statement), signature=from_text(self.signature))


class ChallengeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The public side of a TPM, and the token that it will enrol with."""

    token: str
    attestation_key: str
    endorsement_key: str
    endorsement_certificates: Annotated[list[str], msgspec.Meta(max_length=16)]

    @property
    def shown(self) -> Shown:
        """The bytes."""
        return Shown(
            attestation_key=from_text(self.attestation_key),
            endorsement_key=from_text(self.endorsement_key),
            certificates=[from_text(text) for text in self.endorsement_certificates],
        )


class ChallengeAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked; where `level` is not `tpm`, nothing but that."""

    level: str
    nonce: str | None = None
    registers: tuple[int, ...] = ()
    credential: str | None = None
    secret: str | None = None


class AttestationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The answer: what was in the credential, and the TPM's statements."""

    nonce: str
    answer: str
    quote: StatementBody
    registers: Annotated[dict[_Register, str], msgspec.Meta(max_length=24)]
    signer_key: str
    signer: StatementBody
    counter_index: str
    counter: StatementBody

    @property
    def proof(self) -> Proof:
        """The bytes."""
        pcrs = {int(register): from_text(text) for register, text in self.registers.items()}
        return Proof(
            nonce=from_text(self.nonce),
            answer=from_text(self.answer),
            quote=Quote(attested=self.quote.attested, pcrs=pcrs),
            signer_key=from_text(self.signer_key),
            signer=self.signer.attested,
            counter_index=from_text(self.counter_index),
            counter=self.counter.attested,
        )


def claimed(driver: Driver | None, attestation: AttestationBody | None) -> Claimed:
    """What an enrolment brings for its level. Raises: RequestRefused `body-invalid`."""
    return Claimed(driver=driver, proof=None if attestation is None else attestation.proof)


def challenge_answer(asked: Asked) -> ChallengeAnswer:
    """What is asked, as it is sent."""
    if not asked.nonce:
        return ChallengeAnswer(level=asked.level.value)
    return ChallengeAnswer(
        level=asked.level.value,
        nonce=to_text(asked.nonce),
        registers=asked.registers,
        credential=to_text(asked.credential),
        secret=to_text(asked.secret),
    )
