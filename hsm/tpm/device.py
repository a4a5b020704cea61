"""A TPM as this process reaches it: one context, one thread, one gateway's keys at a time.

The simulator and a TPM without a resource manager take one client and hold three objects, so all
tokens of a process share a context and load their keys in turn. Everything here but `device_for`
runs in the device's thread.
"""

import contextlib
import os
import threading

from tpm2_pytss import ESAPI, ESYS_TR, TPM2_CAP, TSS2_Exception

from hsm.driver_thread import DriverThread

TRANSIENT, HMAC_SESSIONS = 0x80000000, 0x02000000
HANDLES_MAX = 32


class Device:
    """The context of one TCTI, and what is loaded in it."""

    def __init__(self, tcti: str) -> None:
        # The libraries write what fails to the standard error output; we say it ourselves.
        os.environ.setdefault("TSS2_LOG", "all+none")
        self.thread = DriverThread(f"tpm {tcti}")
        # What was loaded under an older generation is gone.
        self.generation = 0
        self._tcti = tcti
        self._context: ESAPI | None = None
        self._user: object = None
        self._loaded: list[ESYS_TR] = []

    def enter(self, user: object) -> ESAPI:
        """The context, for this user; what another one has loaded makes room.

        Raises:
            TSS2_Exception: there is no TPM.
        """
        if user is not self._user:
            self.restart()
            self._user = user
        if self._context is None:
            self._context = ESAPI(self._tcti)
        return self._context

    def leave(self, user: object) -> None:
        """Unload what this user has."""
        if user is self._user:
            self.restart()
            self._user = None

    def keep(self, handle: ESYS_TR) -> ESYS_TR:
        """Remember to unload it."""
        self._loaded.append(handle)
        return handle

    def drop(self, handle: ESYS_TR) -> None:
        """Unload it now, unless it is unloaded already."""
        if self._context is not None and handle in self._loaded:
            self._loaded.remove(handle)
            with contextlib.suppress(TSS2_Exception):  # the TPM may be what is lost
                self._context.flush_context(handle)

    def restart(self) -> None:
        """Unload everything and let the TPM go; the next one to enter opens it anew."""
        self.generation += 1
        for handle in reversed(self._loaded.copy()):
            self.drop(handle)
        context, self._context = self._context, None
        if context is not None:
            context.close()

    def sweep(self) -> None:
        """Unload what a killed process left behind, and start anew.

        Behind a resource manager there is nothing to see of others, and no need.
        """
        self.restart()
        context = self._context = ESAPI(self._tcti)
        for first in (TRANSIENT, HMAC_SESSIONS):
            _, found = context.get_capability(TPM2_CAP.HANDLES, first, HANDLES_MAX)
            for handle in found.data.handles:
                with contextlib.suppress(TSS2_Exception):  # another one's, or gone meanwhile
                    context.flush_context(context.tr_from_tpmpublic(handle))


_devices: dict[str, Device] = {}
_devices_lock = threading.Lock()


def device_for(tcti: str) -> Device:
    """Return the one Device of a TCTI in this process."""
    with _devices_lock:
        if tcti not in _devices:
            _devices[tcti] = Device(tcti)
        return _devices[tcti]
