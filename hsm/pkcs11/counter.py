"""Counting by the token's own counter, which whoever reads it moves.

So a file notes what the token showed at our last reading, and our count. It is sealed by the token:
one that is put back shows less than the token does, and another one cannot be made without it. The
file is there, and empty, from the making of the keys on; the journal's beginning fills it. An empty
one is refused from then on: emptying it would begin the count anew.
Steps that are not ours count too, so that the journal finds them: whoever reads the token's counter
while the gateway is stopped is taken for a rollback. Everything but `TokenCounter` runs in the
module's thread.
"""

from pathlib import Path

import msgspec
import pkcs11

from hsm.api import CounterReplaced, SealBroken, TokenRefused
from hsm.counter import SoftwareCounter
from hsm.files import create_durably, make_folder, replace_durably
from hsm.line import Line
from hsm.pkcs11 import seals
from hsm.pkcs11.hardware_counter import is_usable, show
from hsm.pkcs11.keys import Keys

FILE_NAME = "counter.pkcs11"
LABEL = "pkcs11-counter"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds. `shown` is None before the first reading.

    `begun`: steps that may have happened or not, for their outcome was not noted; `counting`: one
    of them was to count.
    """

    shown: int | None = None
    count: int = 0
    begun: int = 0
    counting: bool = False


class Counting:
    """Our count on the token's counter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE_NAME
        # Whether this process saw the counter before: what others moved meanwhile hides nothing.
        self._watching = False

    @property
    def in_token(self) -> bool:
        """Whether the token counts for this folder; chosen once, when the keys are made."""
        return self._path.exists()

    def prepare(self) -> None:
        """Find room for a count before anything is made.

        Raises:
            TokenRefused: nothing can be stored.
        """
        try:
            make_folder(self._folder)
            SoftwareCounter(self._folder).prepare()
        except OSError as error:
            raise _not_stored(error) from error

    def check(self) -> None:
        """Return when somebody counts for this folder.

        Raises:
            TokenRefused: the counter's file is missing or holds no count.
        """
        if self.in_token:
            return
        software = SoftwareCounter(self._folder)
        if not software.exists():
            raise TokenRefused(
                "the token has keys of this label, and the counter that belongs to them is not in"
                f" {self._folder}: keys of another folder stay there, a new one needs another"
                " key_label"
            )
        software.check()

    def choose(self, token: pkcs11.Token) -> None:
        """Let the token count, if it can, unless the file beside it has counted already.

        Raises:
            TokenRefused: it cannot be stored.
            PKCS11Error: the token is lost.
        """
        if self.in_token or not self.would_be_in(token):
            return
        try:
            create_durably(self._path, b"")
        except OSError as error:
            raise _not_stored(error) from error

    def would_be_in(self, token: pkcs11.Token) -> bool:
        """Whether the token counts for this folder, or will once keys are made.

        Raises:
            TokenRefused: the file beside it holds no count.
            PKCS11Error: the token is lost.
        """
        if self.in_token:
            return True
        software = SoftwareCounter(self._folder)
        return (not software.exists() or software.check() == 0) and is_usable(token)

    def read(self, keys: Keys) -> int:
        """Read the count. Raises: CounterReplaced, TokenRefused, SealBroken, PKCS11Error."""
        return self._step(keys, counts=False)

    def increment(self, keys: Keys) -> int:
        """Add one, durably. Raises: as `read`."""
        return self._step(keys, counts=True)

    def _step(self, keys: Keys, *, counts: bool) -> int:
        kept = self._load(keys)
        begun = Kept(
            shown=kept.shown,
            count=kept.count,
            begun=kept.begun + 1,
            counting=kept.counting or counts,
        )
        self._store(keys, begun)
        shown = show(keys.session.token)
        # 1. A step that was broken off gave out no count, so nothing was signed under it. However
        #    many there were, they are the same count as this one: the journal reads between two.
        counted, others = _moved(kept, shown)
        count = kept.count + (counts or counted)
        # 2. What others moved while nobody watched.
        count += 0 if self._watching else others
        self._store(keys, Kept(shown=shown, count=count))
        self._watching = True
        return count

    def begin(self, keys: Keys) -> None:
        """Begin the count, where the file is still empty. Raises: as `read`."""
        if not self._sealed():
            self._store(keys, Kept())

    def _sealed(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise TokenRefused(f"the counter is not readable: {error.strerror}") from error

    def _load(self, keys: Keys) -> Kept:
        sealed = self._sealed()
        if not sealed:
            raise CounterReplaced("what was noted of the token's counter was emptied")
        try:
            return msgspec.json.decode(seals.unseal(keys, sealed, LABEL), type=Kept)
        except msgspec.MsgspecError as error:
            raise SealBroken("the counter's file is of a form that is not known") from error

    def _store(self, keys: Keys, kept: Kept) -> None:
        sealed = seals.seal(keys, msgspec.json.encode(kept), LABEL)
        try:
            replace_durably(self._path, sealed)
        except OSError as error:
            raise _not_stored(error) from error


class TokenCounter:
    """The counter of a token that has one."""

    driver = "pkcs11"

    def __init__(self, line: Line[Keys], counting: Counting) -> None:
        self._line = line
        self._counting = counting

    async def begin(self) -> None:
        """Begin the count, where nothing was counted yet.

        Raises:
            HsmError: as `read`.
        """
        await self._line.run(self._counting.begin)

    async def read(self) -> int:
        """Read the count.

        Raises:
            CounterReplaced: the token's counter is gone, was reset or fell, or what was noted of
                it was emptied.
            HsmError: as `Pkcs11Signer.sign`.
        """
        return await self._line.run(self._counting.read)

    async def increment(self) -> int:
        """Add one and return the new count. After a failure it may have counted or not.

        Raises:
            HsmError: as `read`.
        """
        return await self._line.run(self._counting.increment)


def _moved(kept: Kept, shown: int) -> tuple[bool, int]:
    """What moved it since the last reading that was noted.

    Whether a step was to count that was broken off and happened, and how far others moved it.
    Raises: CounterReplaced: it fell.
    """
    if kept.shown is None:
        return False, 0
    more = shown - kept.shown - 1
    if more < 0:
        raise CounterReplaced(f"the token's counter fell from {kept.shown} to {shown}")
    ours = min(more, kept.begun)
    return kept.counting and ours > 0, more - ours


def _not_stored(error: OSError) -> TokenRefused:
    return TokenRefused(f"the counter is not stored: {error.strerror}")
