"""The NV counter: defined once, read at no cost, moved once for each call and never in between.

Its memory wears: makers promise some 100,000 to a million writes of one place, so whoever calls
`increment` decides on the life of the TPM. A TPM never lets a counter fall: one that is defined
anew begins above every other that it ever had. Everything here runs in the device's thread.
"""

import contextlib
from collections.abc import Iterator

from tpm2_pytss import ESAPI, ESYS_TR, TPMA_SESSION, TSS2_Exception

from hsm.api import CounterReplaced, TokenRefused
from hsm.tpm import templates
from hsm.tpm.auths import derived_auth
from hsm.tpm.errors import AUTH_FAIL, BAD_AUTH, HANDLE, NV_UNINITIALIZED, code_of
from hsm.tpm.keys import COUNTER, Keys
from hsm.tpm.objects import encrypting
from hsm.tpm.record import Beginning

# What the TPM says of an index that is not ours: none, under another secret, never counted.
_STRANGE = {HANDLE, BAD_AUTH, AUTH_FAIL, NV_UNINITIALIZED}


class NvCounter:
    """The counter of one token, and the highest value that it showed."""

    def __init__(self, beginning: Beginning) -> None:
        self._beginning = beginning
        self._highest = beginning.first
        self._generation = -1
        self._handle: ESYS_TR | None = None

    def read(self, keys: Keys) -> int:
        """Read it.

        Raises:
            CounterReplaced: the index is gone, or is not the one that was defined.
            TSS2_Exception: the TPM is lost or refuses.
        """
        with _own():
            count = _read(keys, self.handle(keys))
        if count < self._highest:
            raise CounterReplaced(f"the counter fell from {self._highest} to {count}")
        self._highest = count
        return count

    def move(self, keys: Keys) -> int:
        """Add one and read it. Not to be repeated after a failure: it may have counted.

        Raises:
            CounterReplaced, TSS2_Exception: as `read`.
        """
        with _own():
            keys.esys.nv_increment(self.handle(keys), session1=keys.session)
        return self.read(keys)

    def handle(self, keys: Keys) -> ESYS_TR:
        """The index, found once in each context, and by its name. Raises: CounterReplaced."""
        if self._handle is None or self._generation != keys.device.generation:
            handle = find(keys)
            if handle is None or bytes(keys.esys.tr_get_name(handle)) != self._beginning.name:
                raise CounterReplaced("the TPM's counter was removed, or defined anew")
            self._handle, self._generation = handle, keys.device.generation
        return self._handle


def begin(keys: Keys) -> Beginning:
    """Define the counter, or go on where a creation was broken off; its first value.

    Raises:
        TokenRefused: the index is somebody else's.
    """
    handle = find(keys) or _define(keys)
    try:
        first = _first(keys, handle)
    except TSS2_Exception as error:
        if code_of(error) not in _STRANGE:
            raise
        index = keys.record.nv_index
        raise TokenRefused(
            f"the TPM's index {index:#x} is taken by something else: name another nv_index"
        ) from error
    # Its first count changed the index's name: the name says that it was written.
    handle = _required(find(keys))
    return Beginning(name=bytes(keys.esys.tr_get_name(handle)), first=first)


def find(keys: Keys) -> ESYS_TR | None:
    """The index as it stands now, whoever defined it, with our secret."""
    try:
        handle = keys.esys.tr_from_tpmpublic(keys.record.nv_index)
    except TSS2_Exception as error:
        if code_of(error) != HANDLE:
            raise
        return None
    keys.esys.tr_set_auth(handle, derived_auth(keys.key, COUNTER))
    return handle


def public_area(esys: ESAPI, handle: ESYS_TR) -> bytes:
    """TPMS_NV_PUBLIC."""
    public, _ = esys.nv_read_public(handle)
    return bytes(public.nvPublic.marshal())


def _define(keys: Keys) -> ESYS_TR:
    auth = derived_auth(keys.key, COUNTER)
    template = templates.counter(keys.record.nv_index)
    esys = keys.esys
    esys.tr_set_auth(ESYS_TR.OWNER, keys.config.owner_auth)
    with encrypting(esys, keys.session, TPMA_SESSION.DECRYPT):
        return esys.nv_define_space(auth, template, session1=keys.session)


def _first(keys: Keys, handle: ESYS_TR) -> int:
    """A counter is not readable before its first count."""
    try:
        return _read(keys, handle)
    except TSS2_Exception as error:
        if code_of(error) != NV_UNINITIALIZED:
            raise
    keys.esys.nv_increment(handle, session1=keys.session)
    return _read(keys, handle)


def _read(keys: Keys, handle: ESYS_TR) -> int:
    size = templates.COUNTER_BYTES
    return int.from_bytes(bytes(keys.esys.nv_read(handle, size, session1=keys.session)))


def _required(handle: ESYS_TR | None) -> ESYS_TR:
    if handle is None:
        raise CounterReplaced("the TPM's counter was removed")
    return handle


@contextlib.contextmanager
def _own() -> Iterator[None]:
    try:
        yield
    except TSS2_Exception as error:
        if code_of(error) not in _STRANGE:
            raise
        raise CounterReplaced("the TPM's counter was removed, or defined anew") from error
