"""The issuer's private keys: in PostgreSQL, sealed by the token of the machine that uses them."""

from __future__ import annotations

import msgspec

from cloud.database import Connection
from hsm.api import Sealer

_LOCK = 0x6B657973  # "keys": the key of PostgreSQL's advisory lock


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A private key, opened. `private` is a seed or scalar of 32 bytes."""

    name: str
    private: bytes
    certificate: bytes | None
    not_after_ms: int


class Vault:
    """Stores and loads keys by name; the newest of a name is in use. Raises: HsmError."""

    def __init__(self, sealer: Sealer) -> None:
        self.sealer = sealer

    async def lock(self, connection: Connection) -> None:
        """Let other processes wait until this transaction ends, so that keys are made once."""
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)

    async def store(self, connection: Connection, key: StoredKey, *, now_ms: int) -> None:
        """Seal a key and put it in use."""
        sealed = await self.sealer.seal(key.private, label=_label(key.name))
        await connection.execute(
            "INSERT INTO issuer_key (name, sealed, certificate, not_after_ms, created_ms)"
            " VALUES ($1, $2, $3, $4, $5)",
            *(key.name, sealed, key.certificate, key.not_after_ms, now_ms),
        )

    async def load(self, connection: Connection, name: str) -> StoredKey | None:
        """The key in use under a name."""
        row = await connection.fetchrow(
            "SELECT sealed, certificate, not_after_ms FROM issuer_key WHERE name = $1"
            " ORDER BY key_id DESC LIMIT 1",
            name,
        )
        if row is None:
            return None
        private = await self.sealer.unseal(row["sealed"], label=_label(name))
        return StoredKey(
            name=name,
            private=private,
            certificate=row["certificate"],
            not_after_ms=row["not_after_ms"],
        )


def _label(name: str) -> str:
    return f"issuer-key/{name}"
