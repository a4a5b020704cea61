"""The one error of this package."""

from typing import ClassVar

from hsm.api import HsmError


class AttestationInvalid(HsmError):
    """A statement does not hold: malformed, of another key, or not the answer to what was asked."""

    code: ClassVar[str] = "attestation-invalid"
    advice: ClassVar[str] = (
        "What the key hardware says about itself is not proven; do not trust this box with value."
    )
