"""Wallets that wait for the issuer's enrolment: wishes that travel with the next exchange."""

from __future__ import annotations

import msgspec

from wallet.protocol.keys import from_cose_key
from wallet.store.connection import Connection
from wallet.store.objects import (
    HeldObject,
    delete_object,
    list_objects,
    newest_object,
    put_object,
)

KIND = "enrolment-wish"
WISHES_MAX = 1_000
TRAVEL_MAX = 200


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A key that wants to be a wallet here. `key` is COSE_Key bytes."""

    key: bytes
    tier: int
    label: str | None
    hosted: bool

    @property
    def wallet(self) -> bytes:
        """The wallet that the key will be."""
        return from_cose_key(self.key).id


def add_wish(connection: Connection, wish: Wish) -> bool:
    """Remember a wish; the same key wishes once. False when too many are waiting."""
    waiting = list_objects(connection, KIND, -1, WISHES_MAX)
    if any(_decoded(held).key == wish.key for held in waiting):
        return True
    if len(waiting) == WISHES_MAX:
        return False
    newest = newest_object(connection, KIND)
    number = 0 if newest is None else newest.sequence + 1
    value = msgspec.msgpack.encode(wish)
    put_object(connection, HeldObject(kind=KIND, sequence=number, object=value))
    return True


def read_wishes(connection: Connection, limit: int = TRAVEL_MAX) -> list[Wish]:
    """The oldest wishes."""
    return [_decoded(held) for held in list_objects(connection, KIND, -1, limit)]


def find_wish(connection: Connection, wallet: bytes) -> Wish | None:
    """The wish of a wallet."""
    wishes = [_decoded(held) for held in list_objects(connection, KIND, -1, WISHES_MAX)]
    return next((wish for wish in wishes if wish.wallet == wallet), None)


def drop_wish(connection: Connection, wallet: bytes) -> None:
    """The enrolment came."""
    for held in list_objects(connection, KIND, -1, WISHES_MAX):
        if _decoded(held).wallet == wallet:
            delete_object(connection, KIND, held.sequence)


def _decoded(held: HeldObject) -> Wish:
    return msgspec.msgpack.decode(held.object, type=Wish)
