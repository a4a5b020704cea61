"""Gives the engine's connections room for their small allocations, once, before the first one.

With cipher_memory_security every allocation is locked into memory and unlocked again: two system
calls. A connection has 40 slots of its own (lookaside) that need none; a few dozen prepared
statements fill them, and from then on a stored row costs 25 to 40 us instead of 8. A thousand
slots, locked once with the connection, keep it at 8. The driver has no call for this, so the
engine's own `sqlite3_config` is called (https://sqlite.org/malloc.html#lookaside).
"""

import ctypes

from sqlcipher3 import _sqlite3

SLOT_BYTES = 1200
SLOTS = 1000

_CONFIG_LOOKASIDE = 13
_OK = 0


def enlarge_lookaside(library: ctypes.CDLL) -> bool:
    """Give every later connection its slots; false where this build does not let us.

    To be called before the first connection of the process, never while one is open.
    """
    if not hasattr(library, "sqlite3_config"):
        return False
    # The driver's import has started the engine, which takes settings only while it is stopped.
    library.sqlite3_shutdown()
    settings = (ctypes.c_int(_CONFIG_LOOKASIDE), ctypes.c_int(SLOT_BYTES), ctypes.c_int(SLOTS))
    status = library.sqlite3_config(*settings)
    return bool(status == _OK and library.sqlite3_initialize() == _OK)


# Import runs once in a process and `connection` imports this first, so no connection is open.
LOOKASIDE_ENLARGED = enlarge_lookaside(ctypes.CDLL(_sqlite3.__file__))
