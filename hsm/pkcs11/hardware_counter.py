"""The monotonic counter that some tokens have (PKCS#11 2.40, section 4.3.3).

Reading it moves it, by the standard not even by one. It is used where it is one, was never reset
and moves by one at each reading. Everything here runs in the module's thread.
"""

import contextlib
from collections.abc import Iterator
from itertools import pairwise

import pkcs11
from pkcs11 import _pkcs11, types
from pkcs11.attributes import AttributeMapper, handle_bool, handle_ulong
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error

from hsm.api import CounterReplaced
from hsm.pkcs11.errors import is_lost

# CKH_MONOTONIC_COUNTER
MONOTONIC = 1
READINGS = 4


class HardwareFeature(types.Object):
    """An object of the class CKO_HW_FEATURE."""


# The library gives no object of a class that it has no Python class for, and offers no other way
# to name one.
_pkcs11._CLASS_MAP.setdefault(  # type: ignore[attr-defined]  # its stub leaves it out
    ObjectClass.HW_FEATURE, HardwareFeature
)


def is_usable(token: pkcs11.Token) -> bool:
    """Whether the token has one that serves us. Asking moves it.

    Raises:
        PKCS11Error: the token is lost.
    """
    try:
        with _counter(token) as counter:
            if counter is None or counter[Attribute.HAS_RESET]:
                return False
            shown = [_value(counter) for _ in range(READINGS)]
    except PKCS11Error as error:
        if is_lost(error):
            raise
        return False
    return all(after == before + 1 for before, after in pairwise(shown))


def show(token: pkcs11.Token) -> int:
    """Move it by one and give what it shows then.

    Raises:
        CounterReplaced: it is gone, or was reset.
        PKCS11Error: the token is lost or refuses.
    """
    with _counter(token) as counter:
        if counter is None:
            raise CounterReplaced("the token has no counter any more")
        if counter[Attribute.HAS_RESET]:
            raise CounterReplaced("the token's counter was reset")
        return _value(counter)


@contextlib.contextmanager
def _counter(token: pkcs11.Token) -> Iterator[pkcs11.Object | None]:
    """The only one, in a session of its own that knows the attributes of such objects."""
    mapper = AttributeMapper()
    mapper.register_handler(Attribute.HW_FEATURE_TYPE, *handle_ulong)
    mapper.register_handler(Attribute.HAS_RESET, *handle_bool)
    session = token.open(attribute_mapper=mapper)
    try:
        features = list(session.get_objects({Attribute.CLASS: ObjectClass.HW_FEATURE}))
        found = [one for one in features if one[Attribute.HW_FEATURE_TYPE] == MONOTONIC]
        yield found[0] if len(found) == 1 else None
    finally:
        session.close()


def _value(counter: pkcs11.Object) -> int:
    return int.from_bytes(counter[Attribute.VALUE])
