"""Checks what a TPM says about itself, with no TPM and no library of one: for whoever asked."""

from hsm.attestation.credential import Challenge, make_challenge
from hsm.attestation.endorsement import Named, verify_endorsement
from hsm.attestation.errors import AttestationInvalid
from hsm.attestation.verification import verify_counter, verify_quote, verify_signer

__all__ = [
    "AttestationInvalid",
    "Challenge",
    "Named",
    "make_challenge",
    "verify_counter",
    "verify_endorsement",
    "verify_quote",
    "verify_signer",
]
