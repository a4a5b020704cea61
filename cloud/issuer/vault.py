"""The issuer's private keys: in PostgreSQL, sealed by the token of the machine that uses them.

The root's may be kept elsewhere: then other keys wait here for certificates that it signs there.
"""

from __future__ import annotations

import msgspec

from cloud.database import Connection
from hsm.api import Sealer

_LOCK = 0x6B657973  # "keys": the key of PostgreSQL's advisory lock


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A private key, opened: a seed or scalar of 32 bytes; empty where it is kept elsewhere."""

    name: str
    private: bytes
    certificate: bytes | None
    not_after_ms: int


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its certificate yet; `public_key`: Ed25519, 32 bytes."""

    name: str
    public_key: bytes


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
        private = b""
        if row["sealed"] is not None:
            private = await self.sealer.unseal(row["sealed"], label=_label(name))
        return StoredKey(
            name=name,
            private=private,
            certificate=row["certificate"],
            not_after_ms=row["not_after_ms"],
        )

    async def store_certificate(
        self, connection: Connection, name: str, *, der: bytes, not_after_ms: int, now_ms: int
    ) -> None:
        """Put a certificate in use whose key is kept elsewhere."""
        await connection.execute(
            "INSERT INTO issuer_key (name, certificate, not_after_ms, created_ms)"
            " VALUES ($1, $2, $3, $4)",
            *(name, der, not_after_ms, now_ms),
        )

    async def forget(self, connection: Connection, name: str) -> None:
        """Keep the certificates of a name and no private key. What backups have they keep."""
        await connection.execute("UPDATE issuer_key SET sealed = NULL WHERE name = $1", name)

    # ---- keys that wait for their certificates ------------------------------------------
    async def store_waiting(
        self, connection: Connection, key: Waiting, private: bytes, *, now_ms: int
    ) -> None:
        """Seal a key that is not in use until it is certified."""
        sealed = await self.sealer.seal(private, label=_label(key.name))
        await connection.execute(
            "INSERT INTO issuer_key_waiting VALUES ($1, $2, $3, $4)",
            *(key.name, sealed, key.public_key, now_ms),
        )

    async def waiting(self, connection: Connection) -> list[Waiting]:
        """All of them, by name."""
        rows = await connection.fetch(
            "SELECT name, public_key FROM issuer_key_waiting ORDER BY name"
        )
        return [Waiting(name=row["name"], public_key=row["public_key"]) for row in rows]

    async def certify(
        self, connection: Connection, name: str, *, der: bytes, not_after_ms: int, now_ms: int
    ) -> None:
        """Put a waiting key in use."""
        await connection.execute(
            "WITH found AS (DELETE FROM issuer_key_waiting WHERE name = $1 RETURNING name, sealed)"
            " INSERT INTO issuer_key (name, sealed, certificate, not_after_ms, created_ms)"
            " SELECT name, sealed, $2, $3, $4 FROM found",
            *(name, der, not_after_ms, now_ms),
        )


def _label(name: str) -> str:
    return f"issuer-key/{name}"
