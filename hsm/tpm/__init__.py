"""A TPM 2.0: signs, counts, seals to the platform's measurements, and proves what it is."""

from hsm.tpm.config import NV_INDEX_DEFAULT, TpmConfig
from hsm.tpm.token import TpmToken, create, open_token

__all__ = [
    "NV_INDEX_DEFAULT",
    "TpmConfig",
    "TpmToken",
    "create",
    "open_token",
]
