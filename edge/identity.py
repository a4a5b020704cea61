"""What provisioning left in the store: the root, the cloud's address, keys of the transport."""

from __future__ import annotations

import msgspec

from wallet.store.connection import Connection
from wallet.store.meta import get_meta, put_meta

_NAME = "provisioned"
_PENDING = "provisioning"


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that were made before the cloud was asked, so that asking again asks the same."""

    hpke_private: bytes
    transport_key: str
    transport_csr: str


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A provisioned gateway. Keys and certificates are PEM text, `root` is DER."""

    root: bytes
    cloud_url: str
    cloud_ca: str
    transport_certificate: str
    transport_key: str
    hpke_private: bytes
    currency: str


def load_identity(connection: Connection) -> Identity | None:
    """The identity, if provisioning was finished."""
    stored = get_meta(connection, _NAME)
    return None if stored is None else msgspec.msgpack.decode(stored, type=Identity)


def store_identity(connection: Connection, identity: Identity) -> None:
    """Keep the identity; the keys that waited for it are part of it now."""
    put_meta(connection, _NAME, msgspec.msgpack.encode(identity))


def load_pending(connection: Connection) -> Pending | None:
    """Keys of a provisioning that was begun."""
    stored = get_meta(connection, _PENDING)
    return None if stored is None else msgspec.msgpack.decode(stored, type=Pending)


def store_pending(connection: Connection, pending: Pending) -> None:
    """Keep the keys of a provisioning that begins."""
    put_meta(connection, _PENDING, msgspec.msgpack.encode(pending))
