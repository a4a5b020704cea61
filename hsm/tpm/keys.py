"""The keys of one gateway in its TPM: made there, opened by measurements and PIN.

What hangs on what: the storage root key, of the TPM's seed; under it the sealed key, which opens to
the PCR policy and the PIN; from the sealed key come the secrets that the signing key, the
attestation key and the counter ask for. Everything here runs in the device's thread.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
from tpm2_pytss import ESAPI, ESYS_TR, TPM2_SE, TPMA_SESSION, TSS2_Exception

from hsm.api import (
    Algorithm,
    HsmError,
    PinWrong,
    PolicyRefused,
    SealBroken,
    TokenCleared,
    TokenRefused,
    TokenReplaced,
)
from hsm.attestation.errors import AttestationInvalid
from hsm.attestation.structures import EccPublic, read_public, read_signature
from hsm.attestation.verification import CAPTIVE
from hsm.boxes import KEY_BYTES
from hsm.curves import COORDINATE_BYTES, check_signature, low_s
from hsm.pcr_policies import PCR_POLICIES, PcrPolicy, selection
from hsm.tpm import templates
from hsm.tpm.auths import derived_auth, pin_auth
from hsm.tpm.config import TpmConfig
from hsm.tpm.device import Device
from hsm.tpm.errors import POLICY_FAIL, code_of
from hsm.tpm.objects import (
    Primary,
    create,
    encrypting,
    endorsement_root,
    held,
    load,
    start_session,
    storage_root,
)
from hsm.tpm.record import Record, Sealed

# No COSE structure begins like this, so the signature proves the key and says nothing else.
PROOF = b"this token holds this key"
SIGNING, ATTESTATION, COUNTER = b"signing", b"attestation", b"counter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What is loaded in one context."""

    esys: ESAPI
    device: Device
    config: TpmConfig
    record: Record
    session: ESYS_TR
    signing: ESYS_TR
    public: EccPublic
    key: bytes  # what the sealed key is; in memory while the TPM is open

    def sign(self, message: bytes) -> bytes:
        """Sign the message: r || s with the low s."""
        digest = hashlib.sha256(message).digest()
        scheme, ticket = templates.SCHEME_OF_KEY, templates.NO_TICKET
        signed = self.esys.sign(self.signing, digest, scheme, ticket, session1=self.session)
        r, s = read_signature(signed.marshal())
        return low_s(r.to_bytes(COORDINATE_BYTES) + s.to_bytes(COORDINATE_BYTES))

    def prove(self) -> None:
        """Return when the TPM signs now with the key that belongs to the public key."""
        check_signature(
            Algorithm.ES256, self.public.point, message=PROOF, signature=self.sign(PROOF)
        )

    @contextlib.contextmanager
    def attestation(self) -> Iterator["Attestation"]:
        """The attestation key, loaded for so long."""
        auth = derived_auth(self.key, ATTESTATION)
        with contextlib.ExitStack() as stack:
            with storage_root(self.esys, self.device, self.config) as root:
                key = load(self.esys, root, self.record.attestation, self.session, auth=auth)
                stack.enter_context(held(self.device, key))
                session = start_session(self.esys, TPM2_SE.HMAC, root)
                stack.enter_context(held(self.device, session))
            # The root made room by now: a TPM need not hold more than three objects.
            yield Attestation(key, session)


class Attestation(NamedTuple):
    """The attestation key, and a session of its own: one command takes a session once."""

    key: ESYS_TR
    session: ESYS_TR


def make_record(esys: ESAPI, device: Device, config: TpmConfig) -> Record:
    """Make all keys; nothing of it stays in the TPM."""
    with endorsement_root(esys, device, config) as endorsement:
        endorsement_name = endorsement.name
    key = secrets.token_bytes(KEY_BYTES)
    with storage_root(esys, device, config) as root:
        session = start_session(esys, TPM2_SE.HMAC, root)
        with held(device, session):
            return Record(
                policy=config.pcr_policy,
                with_pin=bool(config.pin),
                nv_index=config.nv_index,
                storage=root.name,
                endorsement=endorsement_name,
                secret=_seal(esys, device, config, root, session, key),
                signing=create(
                    esys,
                    root,
                    templates.signing_key(),
                    session,
                    auth=derived_auth(key, SIGNING),
                ),
                attestation=create(
                    esys,
                    root,
                    templates.attestation_key(),
                    session,
                    auth=derived_auth(key, ATTESTATION),
                ),
            )


def reseal(keys: Keys, policy: PcrPolicy) -> Record:
    """Seal the same key to another policy, with the measurements as they are now."""
    config = replace(keys.config, pcr_policy=policy)
    with storage_root(keys.esys, keys.device, config) as root:
        secret = _seal(keys.esys, keys.device, config, root, keys.session, keys.key)
    return msgspec.structs.replace(keys.record, policy=policy, secret=secret)


def open_keys(esys: ESAPI, device: Device, config: TpmConfig, record: Record) -> Keys:
    """Load the keys of a record, and prove them.

    Raises:
        TokenCleared, TokenReplaced: the TPM is not the one that made them, or not any more.
        PolicyRefused, PinWrong: it does not open them.
        TokenRefused: the configuration is of another token, or a key is not captive.
    """
    _check_settings(config, record)
    public = _captive(record.signing)
    with storage_root(esys, device, config) as root:
        if root.name != record.storage:
            raise _stranger(esys, device, config, record)
        session = device.keep(start_session(esys, TPM2_SE.HMAC, root))
        key = _unseal(esys, device, config, record, root=root, session=session)
        auth = derived_auth(key, SIGNING)
        signing = device.keep(load(esys, root, record.signing, session, auth=auth))
    keys = Keys(
        esys=esys,
        device=device,
        config=config,
        record=record,
        session=session,
        signing=signing,
        public=public,
        key=key,
    )
    keys.prove()
    return keys


def _check_settings(config: TpmConfig, record: Record) -> None:
    """A configuration that promises more than the token holds must not pass in silence."""
    if (record.policy, record.nv_index) != (config.pcr_policy, config.nv_index):
        made = f"PCR policy {record.policy}, NV index {record.nv_index:#x}"
        raise TokenRefused(f"the token was made under other settings: {made}")
    if record.with_pin != bool(config.pin):
        raise PinWrong(f"the token was made {'with' if record.with_pin else 'without'} a PIN")


def _captive(sealed: Sealed) -> EccPublic:
    try:
        public = read_public(sealed.public[2:])  # behind the size of the TPM2B
    except AttestationInvalid as error:
        raise SealBroken("a blob of the token's file is no signing key") from error
    if public.attributes & CAPTIVE != CAPTIVE:
        raise TokenRefused("the signing key could leave the TPM")
    return public


def _stranger(esys: ESAPI, device: Device, config: TpmConfig, record: Record) -> HsmError:
    """Who a TPM with another storage root is: a clearing takes that one, never the endorsement."""
    with endorsement_root(esys, device, config) as endorsement:
        if endorsement.name == record.endorsement:
            return TokenCleared("the TPM was cleared: the keys that it made are gone")
    return TokenReplaced("another TPM stands in the place of the one that made the keys")


def _seal(
    esys: ESAPI,
    device: Device,
    config: TpmConfig,
    root: Primary,
    session: ESYS_TR,
    key: bytes,
) -> Sealed:
    with held(device, start_session(esys, TPM2_SE.TRIAL, root)) as trial:
        _apply_policy(esys, trial, config.pcr_policy, with_pin=bool(config.pin))
        policy = bytes(esys.policy_get_digest(trial))
    template = templates.sealed_data(policy, guessable=bool(config.pin))
    return create(esys, root, template, session, auth=_auth(config), data=key)


def _unseal(
    esys: ESAPI,
    device: Device,
    config: TpmConfig,
    record: Record,
    *,
    root: Primary,
    session: ESYS_TR,
) -> bytes:
    item = load(esys, root, record.secret, session, auth=_auth(config))
    with (
        held(device, item),
        held(device, start_session(esys, TPM2_SE.POLICY, root)) as policy,
        encrypting(esys, policy, TPMA_SESSION.ENCRYPT),
    ):
        _apply_policy(esys, policy, record.policy, with_pin=record.with_pin)
        try:
            return bytes(esys.unseal(item, session1=policy))
        except TSS2_Exception as error:
            if code_of(error) != POLICY_FAIL:
                raise
            pcrs = ", ".join(map(str, PCR_POLICIES[record.policy]))
            raise PolicyRefused(
                f"the policy {record.policy} refuses: one of the PCRs {pcrs} has changed"
            ) from error


def _apply_policy(esys: ESAPI, session: ESYS_TR, policy: PcrPolicy, *, with_pin: bool) -> None:
    pcrs = PCR_POLICIES[policy]
    if pcrs:
        esys.policy_pcr(session, None, selection(pcrs))
    if with_pin:
        esys.policy_auth_value(session)


def _auth(config: TpmConfig) -> bytes:
    return pin_auth(config.pin) if config.pin else b""
