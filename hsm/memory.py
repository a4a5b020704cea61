"""Secrets in memory: locked, guarded, left out of cores, and wiped when they are done with.

`Secret` lives in libsodium's own memory, which PyNaCl brings along without offering it: guard pages
around it, locked against swapping where the system permits, wiped when it is let go. libsodium
takes keys from there by address. Other libraries want `bytes`: those are copies in Python's heap,
for the moment of a call, which `wipe` overwrites afterwards.

What Python does not promise: an interpreter and libraries copy as they like (a `str` that was
decoded, a buffer that grew, an integer of a key), and nobody overwrites those copies.
docs/security.md says which secrets that concerns.
"""

import ctypes
import importlib.util
import sys

from hsm.api import TokenGone

# One byte and none are objects that all of the program shares.
SHARED_LENGTH = 1
_BYTES_AT = bytes.__basicsize__ - 1
_TEXT_AT = sys.getsizeof("") - 1


def _libsodium() -> ctypes.CDLL:
    """The libsodium that PyNaCl uses: in its extension, or behind it where a system has its own."""
    spec = importlib.util.find_spec("nacl._sodium")
    library = ctypes.CDLL(None if spec is None else spec.origin)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.sodium_malloc.argtypes, library.sodium_malloc.restype = [size], pointer
    library.sodium_free.argtypes, library.sodium_free.restype = [pointer], None
    library.sodium_mlock.argtypes = [pointer, size]
    return library


libsodium = _libsodium()
_unlocked = 0


class Secret:
    """A few bytes that nobody else may see. Using one that was wiped is `token-gone`."""

    def __init__(self, content: bytes) -> None:
        """Copies the content, which stays the caller's to wipe.

        Raises: MemoryError.
        """
        global _unlocked
        self._length = len(content)
        self._address: int | None = libsodium.sodium_malloc(self._length)
        if self._address is None:
            raise MemoryError("no memory for a secret")
        # It tries by itself and does not say whether it could; asking again does.
        self.locked = libsodium.sodium_mlock(self._address, self._length) == 0
        _unlocked += not self.locked
        ctypes.memmove(self._address, content, self._length)

    @classmethod
    def take(cls, content: bytes) -> "Secret":
        """Move the content here: the bytes that were given are wiped.

        Whoever gives them must be their only user, and must not have them from a literal.
        """
        made = cls(content)
        wipe(content)
        return made

    @property
    def address(self) -> int:
        """Where it is, for libsodium. Raises: TokenGone."""
        if self._address is None:
            raise TokenGone("the key was forgotten")
        return self._address

    @property
    def wiped(self) -> bool:
        """Whether it was let go."""
        return self._address is None

    def copy(self) -> bytes:
        """A copy in ordinary memory, for the caller to `wipe`. Raises: TokenGone."""
        return ctypes.string_at(self.address, self._length)

    def wipe(self) -> None:
        """Overwrite it and let the memory go; twice does nothing more."""
        address, self._address = self._address, None
        if address is not None:
            libsodium.sodium_free(address)

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<Secret of {self._length} bytes>"

    def __del__(self) -> None:
        self.wipe()


def wipe(secret: bytes | str) -> None:
    """Overwrite bytes, or an ASCII text, where they stand, though Python calls them immutable.

    For objects that the caller made and nobody else holds: a literal or an argument of somebody
    else would change under them. Relies on CPython's layout of these objects, which a test holds.
    """
    if len(secret) > SHARED_LENGTH:
        at = _BYTES_AT if isinstance(secret, bytes) else _TEXT_AT
        ctypes.memset(id(secret) + at, 0, len(secret))


def all_locked() -> bool:
    """Whether the system let every secret so far be locked."""
    return _unlocked == 0
