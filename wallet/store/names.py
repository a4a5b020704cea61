"""Where an entry is found: by the prefix of a name's hash, and by the wallets that it concerns.

The rows are a projection of the entries. The caller writes them in bulk, every ten thousand
entries or more: a flush costs about the same whatever its size while it is small, and lookups look
into every flush (`wallet.store.runs` says why). Until then the caller finds them in its own memory.
"""

from collections.abc import Iterable, Sequence

from wallet.store.connection import Connection
from wallet.store.runs import INDEX_BYTES, Run, add_records, find_records, prepare_run

NAMES = 1
WALLETS = 2
PREFIX_BYTES = 8
INDEX_MAX = 2**63 - 1


def put_names(conn: Connection, rows: Iterable[tuple[int, int]]) -> None:
    """Store (prefix, entry index) pairs; a prefix is an unsigned number of 64 bits."""
    add_records(conn, NAMES, [_prefix_key(prefix) + index_key(index) for prefix, index in rows])


def prepare_names(conn: Connection, records: Sequence[bytes]) -> Run | None:
    """The run that stores prefix || index records, to be written in steps."""
    return prepare_run(conn, NAMES, records)


def find_names(conn: Connection, prefix: int) -> list[int]:
    """The indexes of all entries with this prefix, in order; the caller compares whole names."""
    key = _prefix_key(prefix)
    found = find_records(conn, NAMES, lowest=key + index_key(0), highest=key + index_key(INDEX_MAX))
    return sorted({_index(record) for record in found})


def put_wallet_entries(conn: Connection, rows: Iterable[tuple[bytes, int]]) -> None:
    """Store (wallet, entry index) pairs, of entries after those of every earlier call."""
    add_records(conn, WALLETS, [wallet + index_key(index) for wallet, index in rows])


def prepare_wallet_entries(conn: Connection, records: Sequence[bytes]) -> Run | None:
    """The run that stores wallet || index records, to be written in steps."""
    return prepare_run(conn, WALLETS, records)


def wallet_entries(conn: Connection, wallet: bytes, before: int, limit: int) -> list[int]:
    """Up to `limit` indexes of the wallet's entries below `before`, newest first."""
    if before <= 0 or limit <= 0:
        return []
    found: list[int] = []
    for record in find_records(
        conn, WALLETS, lowest=wallet + index_key(0), highest=wallet + index_key(before - 1)
    ):
        found.append(_index(record))
        if len(found) == limit:
            break
    return found


def _prefix_key(prefix: int) -> bytes:
    return prefix.to_bytes(PREFIX_BYTES, "big")


def index_key(index: int) -> bytes:
    """The last 8 bytes of a record."""
    return index.to_bytes(INDEX_BYTES, "big")


def _index(record: bytes) -> int:
    return int.from_bytes(record[-INDEX_BYTES:], "big")
