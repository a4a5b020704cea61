"""What a TPM's response code means for us.

Codes: TPM 2.0 Library, part 2, section 6.6; TSS 2.0 Overview, annex on return codes. A layer other
than the TPM's own, as the kernel's resource manager, says the TPM's codes with its own mark.
"""

import contextlib
from collections.abc import Iterator

from tpm2_pytss import TSS2_Exception

from hsm.api import (
    HsmError,
    PinWrong,
    SealBroken,
    TokenGone,
    TokenLocked,
    TokenRefused,
    TokenTimeout,
)

LAYER_MASK = 0xFF0000
TPM_LAYERS = (0x000000, 0x0B0000)  # the TPM, and a resource manager that speaks for it
FORMAT_ONE = 0x080
FORMAT_ONE_MASK = 0x0BF

AUTH_FAIL = 0x08E  # a wrong secret, counted
HANDLE = 0x08B
POLICY_FAIL = 0x09D
INTEGRITY = 0x09F
BAD_AUTH = 0x0A2  # a wrong secret, not counted
PCR_CHANGED = 0x128
NV_UNINITIALIZED = 0x14A
NV_DEFINED = 0x14C
LOCKOUT = 0x921

# A new context may mend it: the TPM was reset, or what we held in it is no more.
_LOST = {0x100, 0x101, *range(0x910, 0x917), *range(0x918, 0x91F), HANDLE}
# No room for another object or session: a process that was killed left its own behind.
_CROWDED = {0x902, 0x903, 0x904, 0x905, 0x906}
# It asks to be asked again: wear of the NV memory, self-tests, registers in motion.
_BUSY = {0x907, 0x908, 0x909, 0x90A, 0x920, 0x922, 0x923, PCR_CHANGED}


def code_of(error: TSS2_Exception) -> int | None:
    """The TPM's code without what it points at; None when it is not the TPM that speaks."""
    rc = int(error.rc)
    if rc & LAYER_MASK not in TPM_LAYERS:
        return None
    code = rc & 0xFFFF
    return code & FORMAT_ONE_MASK if code & FORMAT_ONE else code


def is_lost(error: TSS2_Exception) -> bool:
    """Whether a new context may mend it."""
    code = code_of(error)
    return code is None or code in _LOST


def is_crowded(error: TSS2_Exception) -> bool:
    """Whether the TPM has no room for what we load."""
    return code_of(error) in _CROWDED


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what the library raises into the errors of this room."""
    try:
        yield
    except TSS2_Exception as error:
        raise _translate(error) from error


def _translate(error: TSS2_Exception) -> HsmError:
    code = code_of(error)
    if is_lost(error):
        return TokenGone(f"the TPM does not answer ({error})")
    if code == LOCKOUT:
        return TokenLocked("the TPM is locked after too many wrong PINs")
    if code == AUTH_FAIL:
        return PinWrong("the TPM refuses the PIN")
    if code == INTEGRITY:
        return SealBroken("a blob of the token's file was altered")
    if code in _BUSY:
        return TokenTimeout(f"the TPM asks to try again later ({error})")
    return TokenRefused(f"the TPM refuses ({error})")
