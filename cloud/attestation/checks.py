"""What a gateway's TPM says, held against what was asked and what is trusted. No TPM, no database.

Each check raises `NotProven` with a code of its own, so that the gateway and its operator are told
which one failed.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Mapping, Sequence

import msgspec

from cloud.attestation.manifests import Manifest, PcrPolicyName, fitting
from cloud.errors import IssuerError
from hsm.api import Attested, Quote
from hsm.attestation import (
    AttestationInvalid,
    verify_counter,
    verify_endorsement,
    verify_quote,
    verify_signer,
)
from hsm.pcr_policies import PCR_POLICIES


class Flaw(enum.StrEnum):
    """Which check failed. The codes are stable: they reach gateways, evidence and the audit log."""

    LEVEL = "key-level-too-low"
    MISSING = "attestation-missing"
    MALFORMED = "attestation-malformed"
    STALE = "attestation-stale"
    MAKER = "endorsement-untrusted"
    FOREIGN = "attestation-key-foreign"
    QUOTE = "quote-invalid"
    IMAGE = "image-unknown"
    SIGNER = "key-not-certified"
    COUNTER = "counter-not-certified"
    FELL = "counter-fell"


class NotProven(IssuerError):
    """A check failed: `flaw` says which, `detail` why."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        super().__init__(flaw.value, detail)
        self.flaw = flaw


class Challenged(msgspec.Struct, frozen=True, kw_only=True):
    """What a challenge was made for, and the hash of the secret in its credential."""

    answer_hash: bytes
    attestation_key: bytes
    endorsement_key: bytes
    certificates: list[bytes]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway answers: what it found in the credential, and its TPM's statements.

    `signer_key` is a TPMT_PUBLIC, `counter_index` a TPMS_NV_PUBLIC.
    """

    nonce: bytes
    answer: bytes
    quote: Quote
    signer_key: bytes
    signer: Attested
    counter_index: bytes
    counter: Attested


class Proven(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway is held to from now on."""

    attestation_key: bytes
    endorsement_key: bytes
    counter_index: bytes
    counter: int
    image: str


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """What proofs are held against: makers' roots (DER), and manifests."""

    roots: list[bytes]
    manifests: list[Manifest]


def check_proof(
    proof: Proof,
    challenged: Challenged,
    trusted: Trusted,
    *,
    policy: PcrPolicyName,
    data: bytes,
    key: bytes,
    now_ms: int,
) -> Proven:
    """That the journal's key lives in a maker's TPM, in a box that started a published image.

    `data` is what all statements have to be over, `key` the journal's, x || y.
    Raises: NotProven.
    """
    # 1. A maker that is trusted certified the endorsement key.
    _check_maker(challenged, trusted.roots, now_ms=now_ms)
    # 2. The attestation key is in the same TPM: only that one could read the credential.
    if not hmac.compare_digest(hashlib.sha256(proof.answer).digest(), challenged.answer_hash):
        raise NotProven(Flaw.FOREIGN, "the credential was not opened by the TPM of both keys")
    attestation_key = challenged.attestation_key
    # 3. The registers are what the quote says, now, and 4. what a published image leaves in them.
    check_quote(proof.quote, policy, attestation_key=attestation_key, data=data)
    manifest = check_image(proof.quote.pcrs, policy, trusted.manifests)
    # 5. The journal's key was made in that TPM and cannot leave it.
    _check_signer(proof, attestation_key=attestation_key, data=data, key=key)
    # 6. The counter is one of that TPM.
    counter = check_counter(
        proof.counter, attestation_key=attestation_key, data=data, index=proof.counter_index
    )
    return Proven(
        attestation_key=attestation_key,
        endorsement_key=challenged.endorsement_key,
        counter_index=proof.counter_index,
        counter=counter,
        image=manifest.name,
    )


def check_quote(
    quote: Quote, policy: PcrPolicyName, *, attestation_key: bytes, data: bytes
) -> None:
    """That a policy's registers have the values that stand beside the quote. Raises: NotProven."""
    if quote.pcrs.keys() != set(PCR_POLICIES[policy]):
        raise NotProven(Flaw.QUOTE, f"it is not over {_listed(PCR_POLICIES[policy])}")
    try:
        verify_quote(quote.attested, attestation_key=attestation_key, nonce=data, pcrs=quote.pcrs)
    except AttestationInvalid as error:
        raise NotProven(Flaw.QUOTE, str(error)) from error


def check_image(
    found: Mapping[int, bytes], policy: PcrPolicyName, manifests: Sequence[Manifest]
) -> Manifest:
    """The approved manifest that tells of these values. Raises: NotProven."""
    manifest = fitting(manifests, policy, found)
    if manifest is None:
        shown = ", ".join(f"{register}: {found[register].hex()}" for register in sorted(found))
        raise NotProven(Flaw.IMAGE, f"no approved manifest tells of {shown}")
    return manifest


def check_counter(attested: Attested, *, attestation_key: bytes, data: bytes, index: bytes) -> int:
    """What the counter of an index shows. Raises: NotProven."""
    try:
        return verify_counter(attested, attestation_key=attestation_key, nonce=data, counter=index)
    except AttestationInvalid as error:
        raise NotProven(Flaw.COUNTER, str(error)) from error


def _check_maker(challenged: Challenged, roots: Sequence[bytes], *, now_ms: int) -> None:
    try:
        verify_endorsement(
            challenged.certificates,
            endorsement_key=challenged.endorsement_key,
            roots=roots,
            now_ms=now_ms,
        )
    except AttestationInvalid as error:
        raise NotProven(Flaw.MAKER, str(error)) from error


def _check_signer(proof: Proof, *, attestation_key: bytes, data: bytes, key: bytes) -> None:
    try:
        certified = verify_signer(
            proof.signer, attestation_key=attestation_key, nonce=data, signer=proof.signer_key
        )
    except AttestationInvalid as error:
        raise NotProven(Flaw.SIGNER, str(error)) from error
    if certified != key:
        raise NotProven(Flaw.SIGNER, "the certified key is not the journal's")


def _listed(registers: Sequence[int]) -> str:
    return "the registers " + ", ".join(map(str, registers))
