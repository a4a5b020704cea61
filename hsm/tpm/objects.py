"""Objects of the TPM: made, loaded, named. Everything here runs in the device's thread."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_PRIVATE,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_SESSION,
    TPMS_SENSITIVE_CREATE,
    TSS2_Exception,
)
from tpm2_pytss.utils import NVReadEK, create_ek_template

from hsm.api import SealBroken, TokenRefused
from hsm.tpm.config import TpmConfig
from hsm.tpm.device import Device
from hsm.tpm.errors import BAD_AUTH, code_of
from hsm.tpm.record import Sealed
from hsm.tpm.templates import SESSION_CIPHER, storage_key

# TCG EK Credential Profile 2.5. The first of them tells one TPM from another.
EK_P256, EK_RSA = "EK-ECC256", "EK-RSA2048"
KEEP = TPMA_SESSION.CONTINUESESSION
ENCRYPT_BOTH = TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT


class Primary(NamedTuple):
    """A key that the TPM makes anew from its seed, always the same one."""

    handle: ESYS_TR
    public: bytes  # TPMT_PUBLIC
    name: bytes


@contextlib.contextmanager
def held(device: Device, handle: ESYS_TR) -> Iterator[ESYS_TR]:
    """Have it loaded for so long."""
    device.keep(handle)
    try:
        yield handle
    finally:
        device.drop(handle)


@contextlib.contextmanager
def storage_root(esys: ESAPI, device: Device, config: TpmConfig) -> Iterator[Primary]:
    """The storage root key, loaded for so long."""
    root = _primary(esys, storage_key(), ESYS_TR.OWNER, config.owner_auth)
    with held(device, root.handle):
        yield root


@contextlib.contextmanager
def endorsement_root(
    esys: ESAPI, device: Device, config: TpmConfig, *, profile: str = EK_P256
) -> Iterator[Primary]:
    """The endorsement key, loaded for so long."""
    _, template = create_ek_template(profile, NVReadEK(esys))
    root = _primary(esys, template, ESYS_TR.ENDORSEMENT, config.endorsement_auth)
    with held(device, root.handle):
        yield root


def certified_endorsement(esys: ESAPI) -> tuple[str, bytes]:
    """The profile whose certificate the TPM carries, and the certificate; none may be there."""
    for profile in (EK_P256, EK_RSA):
        certificate, _ = create_ek_template(profile, NVReadEK(esys))
        if certificate:
            return profile, bytes(certificate)
    return EK_P256, b""


def start_session(esys: ESAPI, kind: TPM2_SE, root: Primary) -> ESYS_TR:
    """A session whose key only this TPM learns: what passes on the bus stays unread.

    Who exchanged the TPM would be noticed by the root's name.
    """
    return esys.start_auth_session(root.handle, ESYS_TR.NONE, kind, SESSION_CIPHER, TPM2_ALG.SHA256)


def create(
    esys: ESAPI,
    root: Primary,
    template: TPM2B_PUBLIC,
    session: ESYS_TR,
    *,
    auth: bytes,
    data: bytes = b"",
) -> Sealed:
    """Make an object under the root; what is secret in the call is encrypted by the session."""
    sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(userAuth=auth, data=data))
    with encrypting(esys, session):
        private, public, *_ = esys.create(root.handle, sensitive, template, session1=session)
    return Sealed(public=public.marshal(), private=private.marshal())


@contextlib.contextmanager
def encrypting(esys: ESAPI, session: ESYS_TR, ways: TPMA_SESSION = ENCRYPT_BOTH) -> Iterator[None]:
    """Let the session encrypt the first parameter of what is sent, received or both."""
    esys.trsess_set_attributes(session, KEEP | ways)
    try:
        yield
    finally:
        with contextlib.suppress(TSS2_Exception):  # the session may be what is lost
            esys.trsess_set_attributes(session, KEEP)


def load(esys: ESAPI, root: Primary, sealed: Sealed, session: ESYS_TR, *, auth: bytes) -> ESYS_TR:
    """Load an object that was made under this root.

    Raises:
        SealBroken: it was altered.
    """
    try:
        public, _ = TPM2B_PUBLIC.unmarshal(sealed.public)
        private, _ = TPM2B_PRIVATE.unmarshal(sealed.private)
    except TSS2_Exception as error:
        raise SealBroken("a blob of the token's file is none of a TPM") from error
    handle = esys.load(root.handle, private, public, session1=session)
    esys.tr_set_auth(handle, auth)
    return handle


def _primary(esys: ESAPI, template: TPM2B_PUBLIC, hierarchy: ESYS_TR, auth: bytes) -> Primary:
    # A TPM that was cleared has lost the secrets of its hierarchies with everything else.
    for attempt in dict.fromkeys((auth, b"")):
        esys.tr_set_auth(hierarchy, attempt)
        try:
            handle, public, *_ = esys.create_primary(None, template, hierarchy)
        except TSS2_Exception as error:
            if code_of(error) != BAD_AUTH:
                raise
        else:
            area = public.publicArea
            return Primary(handle, area.marshal(), bytes(area.get_name()))
    raise TokenRefused("the TPM refuses the secret of its hierarchy")
