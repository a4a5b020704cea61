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
    Named,
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
    REVOKED = "endorsement-revoked"
    FOREIGN = "attestation-key-foreign"
    QUOTE = "quote-invalid"
    IMAGE = "image-unknown"
    OUTDATED = "image-outdated"
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
    certificates: list[bytes]


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """Manifests in force, and the lowest security version by `Manifest.kind`."""

    manifests: list[Manifest]
    floors: dict[tuple[str, str], int]


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """What proofs are held against: makers' roots (DER), what they revoked, and images.

    `revoked`: identities of certificates (`certificate_id`).
    """

    roots: list[bytes]
    revoked: frozenset[bytes]
    images: Images


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
    # 1. A maker that is trusted certified the endorsement key, and took nothing of it back.
    certificates = _check_maker(challenged, trusted.roots, now_ms=now_ms)
    check_not_revoked(certificates, trusted.revoked)
    # 2. The attestation key is in the same TPM: only that one could read the credential.
    if not hmac.compare_digest(hashlib.sha256(proof.answer).digest(), challenged.answer_hash):
        raise NotProven(Flaw.FOREIGN, "the credential was not opened by the TPM of both keys")
    attestation_key = challenged.attestation_key
    # 3. The registers are what the quote says, now, and 4. what a published image leaves in them.
    check_quote(proof.quote, policy, attestation_key=attestation_key, data=data)
    manifest = check_image(proof.quote.pcrs, policy, trusted.images)
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
        certificates=certificates,
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


def check_image(found: Mapping[int, bytes], policy: PcrPolicyName, images: Images) -> Manifest:
    """The approved manifest that tells of these values, of an image that may run still.

    Raises: NotProven.
    """
    floors = images.floors
    running = [m for m in images.manifests if m.security_version >= floors.get(m.kind, 0)]
    manifest = fitting(running, policy, found)
    if manifest is not None:
        return manifest
    outdated = fitting(images.manifests, policy, found)
    if outdated is not None:
        wanted = floors[outdated.kind]
        raise NotProven(
            Flaw.OUTDATED, f"{outdated.name} runs, and security version {wanted} is asked for"
        )
    shown = ", ".join(f"{register}: {found[register].hex()}" for register in sorted(found))
    raise NotProven(Flaw.IMAGE, f"no approved manifest tells of {shown}")


def check_not_revoked(certificates: Sequence[bytes], revoked: frozenset[bytes]) -> None:
    """That nobody took a certificate of an endorsement key's path back. Raises: NotProven."""
    if not revoked.isdisjoint(certificates):
        raise NotProven(Flaw.REVOKED, "a certificate of the TPM's maker is revoked")


def certificate_id(named: Named) -> bytes:
    """The identity of a certificate: SHA-256 over its issuer's name in DER, 0 and its serial.

    The serial is in decimal digits: makers may write any number.
    """
    return hashlib.sha256(named.issuer + b"\0" + str(named.serial).encode()).digest()


def check_counter(attested: Attested, *, attestation_key: bytes, data: bytes, index: bytes) -> int:
    """What the counter of an index shows. Raises: NotProven."""
    try:
        return verify_counter(attested, attestation_key=attestation_key, nonce=data, counter=index)
    except AttestationInvalid as error:
        raise NotProven(Flaw.COUNTER, str(error)) from error


def _check_maker(challenged: Challenged, roots: Sequence[bytes], *, now_ms: int) -> list[bytes]:
    """The path's certificates by their identities."""
    try:
        path = verify_endorsement(
            challenged.certificates,
            endorsement_key=challenged.endorsement_key,
            roots=roots,
            now_ms=now_ms,
        )
    except AttestationInvalid as error:
        raise NotProven(Flaw.MAKER, str(error)) from error
    return [certificate_id(named) for named in path]


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
