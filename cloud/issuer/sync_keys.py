"""The issuer's HPKE keys, to which gateways seal their envelopes: made, announced, replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from cloud.database import Connection
from cloud.issuer import objects
from cloud.issuer.objects import KEYS, StoredObject
from cloud.issuer.profiles import DAY_MS
from cloud.issuer.vault import StoredKey, Vault
from wallet.protocol.issued import KEYS_TYPE, decode_keys
from wallet.protocol.sealed import short_id

if TYPE_CHECKING:
    from cloud.issuer.desk import Desk

KEY_MS = 731 * DAY_MS
_RENEWED_AT_MS = KEY_MS // 2
_KEY_BYTES = 32


async def open_keys(connection: Connection, vault: Vault) -> dict[bytes, X25519PrivateKey]:
    """All keys that were ever announced, by short id: a gateway may have been away for long."""
    stored = await objects.newest(connection, KEYS)
    found: dict[bytes, X25519PrivateKey] = {}
    for sequence in range(0 if stored is None else stored.sequence + 1):
        key = await vault.load(connection, _name(sequence))
        if key is not None:
            private = X25519PrivateKey.from_private_bytes(key.private)
            found[short_id(private.public_key().public_bytes_raw())] = private
    return found


async def refresh(connection: Connection, desk: Desk, *, now_ms: int) -> bool:
    """Make and announce a new key where there is none, or half of the newest one's life is gone."""
    await objects.lock_series(connection, KEYS)
    held = await objects.newest(connection, KEYS)
    known = () if held is None else decode_keys(held.object).keys
    if any(key.not_after_ms - now_ms > _RENEWED_AT_MS for key in known):
        return False
    sequence = 0 if held is None else held.sequence + 1
    seed, until_ms = desk.random(_KEY_BYTES), now_ms + KEY_MS
    private = X25519PrivateKey.from_private_bytes(seed)
    await desk.vault.store(
        connection,
        StoredKey(name=_name(sequence), private=seed, certificate=None, not_after_ms=until_ms),
        now_ms=now_ms,
    )
    public = private.public_key().public_bytes_raw()
    living = [[key.kid, key.x25519, key.not_after_ms] for key in known if key.not_after_ms > now_ms]
    listed = [[short_id(public), public, until_ms], *living]
    made = await desk.sign(KEYS_TYPE, {2: sequence, 3: listed})
    await objects.publish(
        connection,
        KEYS,
        StoredObject(sequence=sequence, object=made, is_full=True, issued_ms=now_ms),
    )
    return True


def _name(sequence: int) -> str:
    return f"hpke/{sequence}"
