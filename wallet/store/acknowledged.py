"""How much of the journal the issuer holds, and the checkpoints that it may still ask for."""

from __future__ import annotations

from wallet.faults import NO_FAULTS, Faults, Point
from wallet.store.checkpoints import prune_checkpoints
from wallet.store.connection import Connection
from wallet.store.meta import get_meta, put_meta

# Checkpoints of the newest so many acknowledged entries stay: an issuer that lost its newest books
# gets these in segments as bounded as before. They are some 15 bytes an entry.
SENT_AGAIN_MAX = 100_000
_KEY = "acknowledged"


def load_acknowledged(conn: Connection) -> int:
    """The size that the issuer holds, as far as it has been heard."""
    return int(get_meta(conn, _KEY) or b"0")


def keep_acknowledged(conn: Connection, size: int, *, faults: Faults = NO_FAULTS) -> None:
    """Store the size, and forget the checkpoints that nobody will ask for again."""
    put_meta(conn, _KEY, str(size).encode())
    faults.at(Point.SIZE_WRITTEN)
    prune_checkpoints(conn, below=size - SENT_AGAIN_MAX)
    faults.at(Point.CHECKPOINTS_PRUNED)
