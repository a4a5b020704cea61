"""What of the issuer's common objects somebody lacks, in the order of need, as much as is wanted.

First what lets a gateway go on, and the lists of those that must pay no more: they are short. The
other lists come last, each from the oldest that is lacking.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cloud.database import Connection
from cloud.issuer.objects import KEYS, first_newer, list_series, newer_than, policy_series
from wallet.protocol.envelope import NEWEST_KEYS, NEWEST_LISTS, NEWEST_POLICY
from wallet.protocol.lists import ListId

_URGENT = (ListId.JOURNALS, ListId.FROZEN)
_OTHERS = (ListId.CERTIFICATES, ListId.SANCTIONED, ListId.WALLETS, ListId.CATEGORIES)


class Lacking(msgspec.Struct, frozen=True, kw_only=True):
    """`first`, and what may come `later`; `left_bytes` of lists were not even read."""

    first: list[bytes]
    later: list[bytes]
    left_bytes: int


async def lacking(
    connection: Connection, currency: str, newest: Mapping[int, int], *, bytes_max: int
) -> Lacking:
    """For who holds these sequences. Of each list at least the next one, whatever its size."""
    first: list[bytes] = []
    for series, kind in ((policy_series(currency), NEWEST_POLICY), (KEYS, NEWEST_KEYS)):
        # Of policies and keys the newest one is all that counts.
        found = await newer_than(connection, series, newest.get(kind))
        first += [stored.object for stored in found[-1:]]
    later: list[bytes] = []
    left_bytes = 0
    for list_id in (*_URGENT, *_OTHERS):
        held = newest.get(NEWEST_LISTS + list_id)
        objects, more = await first_newer(
            connection, list_series(list_id), held, bytes_max=bytes_max
        )
        (first if list_id in _URGENT else later).extend(objects)
        left_bytes += more
    return Lacking(first=first, later=later, left_bytes=left_bytes)
