"""Which TPM, under which policy, and how long to wait for it."""

from dataclasses import dataclass, field
from pathlib import Path

from hsm.api import TokenRefused
from hsm.pcr_policies import PcrPolicy, check_policy

TIMEOUT_S_MAX = 600.0
TCTI_DEFAULT = "device:/dev/tpmrm0"
# TCG Registry of Reserved TPM 2.0 Handles: the range that the TPM's owner gives out.
NV_FIRST, NV_LAST = 0x01800000, 0x01BFFFFF
NV_INDEX_DEFAULT = 0x0180CBDC


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmConfig:
    """A TPM by its TCTI, and where its blobs are kept.

    An empty `pin` means that the measurements alone open the seal. `nv_index` is the counter's: two
    gateways on one TPM need two. `owner_auth` and `endorsement_auth` are the secrets of the TPM's
    hierarchies, empty where nobody set one.

    Raises:
        TokenRefused: a value is out of its bounds.
    """

    folder: Path
    tcti: str = TCTI_DEFAULT
    pcr_policy: PcrPolicy = "firmware"
    pin: bytes = field(default=b"", repr=False)
    nv_index: int = NV_INDEX_DEFAULT
    owner_auth: bytes = field(default=b"", repr=False)
    endorsement_auth: bytes = field(default=b"", repr=False)
    timeout_s: float = 30.0

    def __post_init__(self) -> None:
        check_policy(self.pcr_policy)
        if not self.tcti:
            raise TokenRefused("a TPM needs a TCTI: how it is reached")
        if not NV_FIRST <= self.nv_index <= NV_LAST:
            raise TokenRefused(f"the counter's index lies in {NV_FIRST:#x} to {NV_LAST:#x}")
        if not 0 < self.timeout_s <= TIMEOUT_S_MAX:
            raise TokenRefused(f"the TPM's timeout lies between 0 and {TIMEOUT_S_MAX:g} s")
