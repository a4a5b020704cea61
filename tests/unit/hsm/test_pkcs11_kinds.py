"""The forms of public keys, and what a PKCS#11 error means, without a token."""

import pytest
from pkcs11 import exceptions as raised

from hsm.api import Algorithm, HsmError, KeyMissing, PinWrong, TokenGone, TokenRefused
from hsm.pkcs11.errors import translated
from hsm.pkcs11.kinds import public_key_of_point

KEY = bytes(range(100, 132))
POINT = bytes(range(64))


@pytest.mark.parametrize(
    ("algorithm", "point", "public_key"),
    [
        (Algorithm.EDDSA, b"\x04\x20" + KEY, KEY),
        (Algorithm.EDDSA, KEY, KEY),
        (Algorithm.ES256, b"\x04\x41\x04" + POINT, POINT),
        (Algorithm.ES256, b"\x04" + POINT, POINT),
    ],
)
def test_a_point_is_read_with_and_without_its_wrapping(
    algorithm: Algorithm, point: bytes, public_key: bytes
) -> None:
    assert public_key_of_point(algorithm, point) == public_key


@pytest.mark.parametrize(
    ("algorithm", "point"),
    [
        (Algorithm.EDDSA, b""),
        (Algorithm.EDDSA, KEY[:-1]),
        (Algorithm.EDDSA, b"\x04\x21" + KEY),
        (Algorithm.ES256, b"\x02" + POINT[:32]),
        (Algorithm.ES256, b"\x05" + POINT),
        (Algorithm.ES256, b"\x04\x41\x05" + POINT),
        (Algorithm.ES256, POINT),
    ],
)
def test_a_point_of_another_form_is_refused(algorithm: Algorithm, point: bytes) -> None:
    with pytest.raises(TokenRefused):
        public_key_of_point(algorithm, point)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (raised.PinIncorrect(), PinWrong),
        (raised.PinLocked(), PinWrong),
        (raised.DeviceRemoved(), TokenGone),
        (raised.TokenNotPresent(), TokenGone),
        (raised.UserNotLoggedIn(), TokenGone),
        (raised.PKCS11Error("not initialised"), TokenGone),
        (raised.NoSuchKey(), KeyMissing),
        (raised.MechanismInvalid(), TokenRefused),
        (raised.UserAlreadyLoggedIn(), TokenRefused),
    ],
)
def test_each_error_of_the_library_becomes_one_of_ours(
    error: raised.PKCS11Error, expected: type[HsmError]
) -> None:
    with pytest.raises(expected) as met, translated():
        raise error
    assert met.value.__cause__ is error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), translated():
        raise ZeroDivisionError
