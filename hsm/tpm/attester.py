"""What the TPM says about itself. Everything here runs in the device's thread."""

from collections.abc import Sequence

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_ATTEST,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPMT_SIGNATURE,
    TSS2_Exception,
)
from tpm2_pytss.utils import NoSuchIndex, NVReadEK

from hsm.api import Attested, AttestedKeys, Quote, SealBroken, TokenRefused
from hsm.pcr_policies import PCR_COUNT, selection
from hsm.tpm import templates
from hsm.tpm.counter import NvCounter, public_area
from hsm.tpm.errors import INTEGRITY, code_of
from hsm.tpm.keys import Keys
from hsm.tpm.objects import certified_endorsement, endorsement_root, held

NONCE_BYTES = range(8, 33)
# TCG EK Credential Profile 2.5, section 2.2.1.5.4: the certificates above the endorsement key's,
# one after another over these indices.
CHAIN_FIRST, CHAIN_LAST = 0x01C00100, 0x01C001FF
DER_SEQUENCE = b"\x30\x82"
DER_HEAD_BYTES = 4


def keys_of(keys: Keys, counter: NvCounter) -> AttestedKeys:
    """The public side of everything."""
    profile, certificate = certified_endorsement(keys.esys)
    with endorsement_root(keys.esys, keys.device, keys.config, profile=profile) as endorsement:
        chain = _certificates(certificate) + _certificates(_chain(keys.esys))
        return AttestedKeys(
            signer=_area(keys.record.signing.public),
            counter=public_area(keys.esys, counter.handle(keys)),
            attestation=_area(keys.record.attestation.public),
            endorsement=endorsement.public,
            endorsement_certificates=tuple(chain),
        )


def quote(keys: Keys, pcrs: Sequence[int], nonce: bytes) -> Quote:
    """A quote of these registers. Raises: TokenRefused."""
    _check_nonce(nonce)
    chosen = tuple(sorted(set(pcrs)))
    if not chosen or not all(0 <= pcr < PCR_COUNT for pcr in chosen):
        raise TokenRefused(f"registers are chosen from 0 to {PCR_COUNT - 1}, at least one")
    with keys.attestation() as signer:
        signed = keys.esys.quote(signer.key, selection(chosen), nonce, session1=signer.session)
    return Quote(attested=_attested(*signed), pcrs={pcr: _pcr(keys.esys, pcr) for pcr in chosen})


def certify_signer(keys: Keys, nonce: bytes) -> Attested:
    """The signing key, certified by the attestation key. Raises: TokenRefused."""
    _check_nonce(nonce)
    with keys.attestation() as signer:
        signed = keys.esys.certify(
            keys.signing,
            signer.key,
            nonce,
            templates.SCHEME_OF_KEY,
            session1=keys.session,
            session2=signer.session,
        )
    return _attested(*signed)


def certify_counter(keys: Keys, counter: NvCounter, nonce: bytes) -> Attested:
    """The counter's value, certified by the attestation key. Raises: TokenRefused."""
    _check_nonce(nonce)
    with keys.attestation() as signer:
        signed = keys.esys.nv_certify(
            signer.key,
            counter.handle(keys),
            nonce,
            templates.SCHEME_OF_KEY,
            templates.COUNTER_BYTES,
            session1=signer.session,
            session2=keys.session,
        )
    return _attested(*signed)


def activate(keys: Keys, credential: bytes, secret: bytes) -> bytes:
    """Open a credential. Raises: SealBroken."""
    esys, device = keys.esys, keys.device
    profile, _ = certified_endorsement(esys)
    with (
        keys.attestation() as signer,
        endorsement_root(esys, device, keys.config, profile=profile) as endorsement,
        held(device, _endorsement_session(esys)) as policy,
    ):
        try:
            return bytes(
                esys.activate_credential(
                    signer.key,
                    endorsement.handle,
                    TPM2B_ID_OBJECT(credential),
                    TPM2B_ENCRYPTED_SECRET(secret),
                    session1=signer.session,
                    session2=policy,
                )
            )
        except TSS2_Exception as error:
            if code_of(error) != INTEGRITY:
                raise
            raise SealBroken("the credential was made for other keys") from error


def _endorsement_session(esys: ESAPI) -> ESYS_TR:
    """Who knows the secret of the endorsement hierarchy may use its key (EK profile, policy A)."""
    policy = esys.start_auth_session(
        ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, templates.SESSION_CIPHER, TPM2_ALG.SHA256
    )
    esys.policy_secret(ESYS_TR.ENDORSEMENT, policy)
    return policy


def _attested(statement: TPM2B_ATTEST, signature: TPMT_SIGNATURE) -> Attested:
    return Attested(statement=bytes(statement), signature=bytes(signature.marshal()))


def _pcr(esys: ESAPI, pcr: int) -> bytes:
    _, _, digests = esys.pcr_read(selection((pcr,)))
    return bytes(digests[0])


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) not in NONCE_BYTES:
        raise TokenRefused("a nonce has 8 to 32 bytes")


def _area(public: bytes) -> bytes:
    return public[2:]  # TPMT_PUBLIC, behind the size of the TPM2B


def _chain(esys: ESAPI) -> bytes:
    read, content = NVReadEK(esys), b""
    for index in range(CHAIN_FIRST, CHAIN_LAST + 1):
        try:
            content += read(index)
        except NoSuchIndex:
            break
    return content


def _certificates(content: bytes) -> list[bytes]:
    """Cut DER certificates apart; what pads an index to its size is left."""
    found = []
    while content.startswith(DER_SEQUENCE):
        size = DER_HEAD_BYTES + int.from_bytes(content[2:DER_HEAD_BYTES])
        found.append(content[:size])
        content = content[size:]
    return found
