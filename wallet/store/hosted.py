"""Wallets whose key the gateway keeps: the sealed key, the PIN's hash, tries and lock-out."""

import msgspec

from wallet.store.connection import Connection
from wallet.store.rows import value_of, values_of

COLUMNS = "wallet, sealed_key, pin_hash, tries, locked_until_ms, created_ms"


class HostedWallet(msgspec.Struct, frozen=True, kw_only=True):
    """One hosted wallet; `tries` counts wrong PINs since the last right one."""

    wallet: bytes
    sealed_key: bytes
    pin_hash: str
    tries: int
    locked_until_ms: int
    created_ms: int


def insert_hosted(conn: Connection, hosted: HostedWallet) -> bool:
    """Store a new hosted wallet; false, and nothing stored, when it exists."""
    cursor = conn.execute(
        f"INSERT INTO hosted_wallets ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (wallet) DO NOTHING",
        msgspec.structs.astuple(hosted),
    )
    return cursor.rowcount == 1


def get_hosted(conn: Connection, wallet: bytes) -> HostedWallet | None:
    """The hosted wallet, if it is one."""
    row = conn.execute(
        f"SELECT {COLUMNS} FROM hosted_wallets WHERE wallet = ?", (wallet,)
    ).fetchone()
    return value_of(HostedWallet, row)


def set_hosted_tries(conn: Connection, wallet: bytes, *, tries: int, locked_until_ms: int) -> bool:
    """Set the count of wrong PINs and the lock-out's end; false for an unknown wallet."""
    cursor = conn.execute(
        "UPDATE hosted_wallets SET tries = ?, locked_until_ms = ? WHERE wallet = ?",
        (tries, locked_until_ms, wallet),
    )
    return cursor.rowcount == 1


def set_hosted_pin(conn: Connection, wallet: bytes, *, pin_hash: str) -> bool:
    """Set another PIN's hash, with no tries against it; false when there is no such wallet."""
    cursor = conn.execute(
        "UPDATE hosted_wallets SET pin_hash = ?, tries = 0, locked_until_ms = 0 WHERE wallet = ?",
        (pin_hash, wallet),
    )
    return cursor.rowcount == 1


def list_hosted(conn: Connection, after: bytes, limit: int) -> list[HostedWallet]:
    """Up to `limit` hosted wallets in the order of their ids, from the one after this id."""
    rows = conn.execute(
        f"SELECT {COLUMNS} FROM hosted_wallets WHERE wallet > ? ORDER BY wallet LIMIT ?",
        (after, limit),
    )
    return values_of(HostedWallet, rows)
