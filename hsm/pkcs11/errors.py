"""What a PKCS#11 return value means for us."""

import contextlib
import traceback
from collections.abc import Iterator

from pkcs11 import exceptions as raised

from hsm.api import HsmError, KeyMissing, PinWrong, TokenGone, TokenRefused

# The session or the token behind it is no more. SoftHSM says ObjectHandleInvalid and GeneralError
# when its token's folder vanishes; others say DeviceRemoved or DeviceError.
_LOST = (
    raised.DeviceError,
    raised.DeviceRemoved,
    raised.FunctionFailed,
    raised.GeneralError,
    raised.KeyHandleInvalid,
    raised.NoSuchToken,
    raised.ObjectHandleInvalid,
    raised.SessionClosed,
    raised.SessionHandleInvalid,
    raised.SlotIDInvalid,
    raised.TokenNotPresent,
    raised.TokenNotRecognised,
    raised.UnwrappingKeyHandleInvalid,
    raised.UserNotLoggedIn,
    raised.WrappingKeyHandleInvalid,
)
_PIN = (
    raised.PinExpired,
    raised.PinIncorrect,
    raised.PinInvalid,
    raised.PinLenRange,
    raised.PinLocked,
    raised.UserPinNotInitialized,
)
# What tokens say of a ciphertext that does not open. The first is also said of a lost token.
NOT_OPENED = (
    raised.GeneralError,
    raised.FunctionFailed,
    raised.DataInvalid,
    raised.EncryptedDataInvalid,
    raised.EncryptedDataLenRange,
    raised.WrappedKeyInvalid,
    raised.WrappedKeyLenRange,
)


def is_lost(error: raised.PKCS11Error) -> bool:
    """Whether a new session may mend it. The bare root is "not initialised", or no such module."""
    return isinstance(error, _LOST) or type(error) is raised.PKCS11Error


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what the library raises into the errors of this room."""
    try:
        yield
    except raised.PKCS11Error as error:
        # The frames hold PKCS#11 objects, which must not outlive this thread's turn: the one who
        # drops the traceback would call the library from another thread.
        traceback.clear_frames(error.__traceback__)
        raise _translate(error) from error


def _translate(error: raised.PKCS11Error) -> HsmError:
    name = type(error).__name__
    if isinstance(error, _PIN):
        return PinWrong(f"the token refuses the PIN ({name})")
    if is_lost(error):
        return TokenGone(f"the token does not answer ({name})")
    if isinstance(error, raised.NoSuchKey):
        return KeyMissing("the token has no key of this label and kind")
    return TokenRefused(f"the token refuses ({name})")
