"""A gateway's keys in its TPM, found again when the TPM comes back.

Everything here runs in the device's thread.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from tpm2_pytss import ESAPI, TSS2_Exception

from hsm.api import HsmError, KeyMissing, TokenGone, TokenRefused
from hsm.memory import wipe
from hsm.pcr_policies import PcrPolicy
from hsm.tpm import counter
from hsm.tpm.config import TpmConfig
from hsm.tpm.counter import NvCounter
from hsm.tpm.device import Device
from hsm.tpm.errors import is_crowded, is_lost, translated
from hsm.tpm.keys import Keys, make_record, open_keys, reseal
from hsm.tpm.record import (
    BEGINNING_NAME,
    RECORD_NAME,
    Beginning,
    Record,
    read_file,
    replace_file,
    write_file,
)

Result = TypeVar("Result")


class Connection:
    """The keys of one configuration, in the context that is open now."""

    counter: NvCounter

    def __init__(self, config: TpmConfig, device: Device) -> None:
        # A copy of the PIN, for a TPM that comes back: whoever opened the token wipes theirs.
        self._config = replace(config, pin=bytes(bytearray(config.pin)))
        self._device = device
        self._record: Record | None = None
        self._keys: Keys | None = None
        self._generation = 0
        self._closed = False

    def create(self) -> bytes:
        """Make the keys and the counter, then open them: returns the public key.

        A creation that was broken off goes on: the record is written before the TPM is changed, and
        the counter's beginning after.

        Raises:
            TokenRefused: the folder holds a token, or the counter's index is taken.
            HsmError: as `open`.
        """
        folder = self._config.folder
        record = read_file(folder / RECORD_NAME, Record)
        if record is not None and read_file(folder / BEGINNING_NAME, Beginning) is not None:
            raise TokenRefused("the folder holds a token already")
        try:
            if record is None:
                record = self._twice(self._make)
                write_file(folder / RECORD_NAME, record)
            self._record = record
            write_file(folder / BEGINNING_NAME, self.run(counter.begin))
        except HsmError:
            self.close()
            raise
        return self.open()

    def open(self) -> bytes:
        """Load the keys: returns the public key.

        Raises:
            KeyMissing: the folder holds no token, or one whose creation was broken off.
            HsmError: TokenGone, TokenCleared, TokenReplaced, TokenLocked, PinWrong, PolicyRefused,
                CounterReplaced, SealBroken or TokenRefused.
        """
        try:
            self._record = read_file(self._config.folder / RECORD_NAME, Record)
            beginning = read_file(self._config.folder / BEGINNING_NAME, Beginning)
            if self._record is None or beginning is None:
                raise KeyMissing("the folder holds no token")
            self.counter = NvCounter(beginning)
            return self.run(lambda keys: keys.public.point)
        except HsmError:
            self.close()
            raise

    def run(self, work: Callable[[Keys], Result]) -> Result:
        """Do something with the keys; when the TPM is lost, once more in a new context.

        Raises:
            HsmError: as `open`, and what the work met.
        """
        return self._twice(lambda: work(self._current()))

    def count(self) -> int:
        """Move the counter, once: a loss on the way is told, for it may have moved.

        Raises:
            HsmError: as `run`.
        """
        self.run(self.counter.read)  # a context that was lost meanwhile is found here
        with translated():
            try:
                return self.counter.move(self._current())
            except TSS2_Exception as error:
                self._again(error)
                raise

    def probe(self) -> None:
        """Return when the TPM signs and its counter stands."""
        self.run(_probe(self.counter))

    def reseal(self, policy: PcrPolicy) -> None:
        """Seal to another policy, with the measurements as they are now. The keys stay.

        Raises:
            HsmError: as `run`; what opened before still does.
        """
        record = self.run(lambda keys: reseal(keys, policy))
        replace_file(self._config.folder / RECORD_NAME, record)
        self._record, self._config = record, replace(self._config, pcr_policy=policy)
        self._keys = None
        self._device.restart()

    def close(self) -> None:
        """Unload the keys, whatever the TPM says to it, and forget the PIN."""
        if not self._closed:
            self._closed = True
            self._keys = None
            wipe(self._config.pin)
            with contextlib.suppress(TSS2_Exception):  # a TPM that is lost has unloaded them
                self._device.leave(self)

    def _make(self) -> Record:
        return make_record(self._enter(), self._device, self._config)

    def _twice(self, step: Callable[[], Result]) -> Result:
        if self._closed:
            raise TokenGone("the token is closed")
        # A wrong PIN is not among what is tried again, for a TPM locks itself after a few: whoever
        # opens with one has no connection afterwards, and one that is open had the right one.
        with translated():
            try:
                return step()
            except TSS2_Exception as error:
                if not self._again(error):
                    raise
            return step()

    def _again(self, error: TSS2_Exception) -> bool:
        if is_crowded(error):
            self._device.sweep()
        elif is_lost(error):
            self._device.restart()
        else:
            return False
        self._keys = None  # what the TPM opened is in memory no longer than the TPM is there
        return True

    def _enter(self) -> ESAPI:
        return self._device.enter(self)

    def _current(self) -> Keys:
        """Return the keys of the open context, or load them.

        Entering first: when another token was at the TPM meanwhile, ours are unloaded.
        """
        esys = self._enter()
        if self._keys is None or self._generation != self._device.generation:
            self._keys = None
            self._keys = self._load(esys)
            self._generation = self._device.generation
        return self._keys

    def _load(self, esys: ESAPI) -> Keys:
        if self._record is None:
            raise KeyMissing("the folder holds no token")
        try:
            return open_keys(esys, self._device, self._config, self._record)
        except (HsmError, TSS2_Exception):
            # What was loaded half-way must not fill a TPM that holds three objects.
            self._device.restart()
            raise


def _probe(of: NvCounter) -> Callable[[Keys], None]:
    def work(keys: Keys) -> None:
        keys.prove()
        of.read(keys)

    return work
