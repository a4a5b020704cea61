"""The issuer's signed lists: published in full or as deltas, and refreshed before they grow old.

What is large goes as several deltas of bounded size, so that slow lines carry it one by one. All
but the last bear the time of the list before them: nobody who holds a part holds a fresh list. A
list that is larger than that is never signed in full again (ADR 17).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from cloud.database import Connection
from cloud.errors import IssuerError
from cloud.issuer import audit, objects
from cloud.issuer.desk import Desk
from cloud.issuer.objects import StoredObject, list_series
from wallet.protocol.issued import LIST_TYPE, decode_list
from wallet.protocol.lists import Held, ListId, SignedList, content, hold, hold_chain
from wallet.protocol.packed import HEAD, ROW_BYTES

HOUR_MS = 3_600_000
REFRESH_MS = 6 * HOUR_MS
NEXT_UPDATE_MS = 24 * HOUR_MS
# A newcomer reads the newest full list and what follows it: that stays short.
DELTAS_MAX = 32
# One signed list has no more than this, but for its envelope.
PART_BYTES = 32 * 1024
# An id of a journal with its epoch, the largest item of fixed size.
_ITEM_BYTES = 32
NEVER_ISSUED_MS = 0

Items = Mapping[Any, tuple[str, ...]]
"""Items of a list in the form that `Held` has, with the names of the sanctioned."""


_Portion = dict[Any, tuple[str, ...]]


class ListChange(msgspec.Struct, frozen=True, kw_only=True):
    """What comes into a list and what leaves it."""

    added: Items = {}
    removed: Items = {}


async def held(connection: Connection, list_id: ListId) -> Held | None:
    """The list in force, put together from its newest full form and what followed."""
    stored = await objects.newer_than(connection, list_series(list_id), None)
    return await asyncio.to_thread(_assemble, [item.object for item in stored]) if stored else None


def _assemble(raws: Sequence[bytes]) -> Held:
    return hold_chain([decode_list(raw) for raw in raws])


def put_together(top: SignedList, pool: Mapping[bytes, SignedList]) -> Held | None:
    """A list as its holders have it; None where a part of it is not in `pool`, by hash."""
    chain = [top]
    while chain[-1].base is not None:
        parent = pool.get(chain[-1].base)
        if parent is None:
            return None
        chain.append(parent)
    return hold_chain(chain[::-1])


async def publish_first(
    connection: Connection, desk: Desk, list_id: ListId, items: Items, *, now_ms: int
) -> None:
    """Sign sequence 0, where there is no list yet."""
    series = list_series(list_id)
    await objects.lock_series(connection, series)
    if await objects.newest(connection, series) is None:
        first, *rest = _portions(items, {})
        issued_ms = NEVER_ISSUED_MS if rest else now_ms
        value = _value(list_id, first[0])
        raw = await _publish(connection, desk, list_id, 0, None, value, now_ms=issued_ms)
        await _deltas(connection, desk, hold(decode_list(raw), None), rest, now_ms=now_ms)


async def change_list(
    connection: Connection,
    desk: Desk,
    list_id: ListId,
    change: ListChange,
    *,
    actor: str,
    now_ms: int,
) -> Held:
    """Sign the next list. Raises: IssuerError `list-unknown`, `list-unchanged`."""
    await objects.lock_series(connection, list_series(list_id))
    before = await _in_force(connection, list_id)
    added = {key: names for key, names in change.added.items() if _is_new(before, key, names)}
    leaving = change.removed.keys() - change.added.keys()
    removed = {key: _names(before, key) for key in leaving if key in before.items}
    if not added and not removed:
        raise IssuerError("list-unchanged", f"list {list_id} says that already")
    after = await _next(connection, desk, before, added, removed, now_ms=now_ms)
    await audit.record(
        connection,
        actor=actor,
        action="list.change",
        subject=ListId(list_id).name.lower(),
        detail={"added": len(added), "removed": len(removed), "sequence": after.sequence},
        now_ms=now_ms,
    )
    return after


async def refresh_lists(connection: Connection, desk: Desk, *, now_ms: int) -> list[int]:
    """Sign lists anew that nobody has changed for long: their age is what gateways look at."""
    refreshed = []
    for list_id in ListId:
        await objects.lock_series(connection, list_series(list_id))
        stored = await objects.newest(connection, list_series(list_id))
        if stored is not None and now_ms - stored.issued_ms >= REFRESH_MS:
            before = await _in_force(connection, list_id)
            await _next(connection, desk, before, {}, {}, now_ms=now_ms)
            refreshed.append(int(list_id))
    return refreshed


async def publish_union(
    connection: Connection,
    desk: Desk,
    list_id: ListId,
    other: Held | None,
    *,
    above: int,
    now_ms: int,
) -> int:
    """Sign a full list of what the one in force and another one say; gives its sequence.

    The caller holds the series' lock. Its sequence is above both that of the list in force and
    `above`.
    """
    before = await _in_force(connection, list_id)
    items = {key: _names(before, key) for key in before.items}
    if other is not None:
        items |= {key: _names(other, key) for key in other.items - before.items}
    sequence = max(before.sequence, above) + 1
    await _publish(connection, desk, list_id, sequence, None, _value(list_id, items), now_ms=now_ms)
    return sequence


async def _in_force(connection: Connection, list_id: ListId) -> Held:
    found = await held(connection, list_id)
    if found is None:
        raise IssuerError("list-unknown", f"list {list_id} was never signed")
    return found


async def _next(
    connection: Connection,
    desk: Desk,
    before: Held,
    added: Items,
    removed: Items,
    *,
    now_ms: int,
) -> Held:
    list_id, sequence = ListId(before.list_id), before.sequence + 1
    if sequence % DELTAS_MAX == 0 and len(before.items) + len(added) <= PART_BYTES // ROW_BYTES:
        items = {key: _names(before, key) for key in before.items - removed.keys()} | dict(added)
        if sum([_size(key, names) for key, names in items.items()]) <= PART_BYTES:
            value = _value(list_id, items)
            raw = await _publish(connection, desk, list_id, sequence, None, value, now_ms=now_ms)
            return hold(decode_list(raw), before)
    return await _deltas(connection, desk, before, _portions(added, removed), now_ms=now_ms)


async def _deltas(
    connection: Connection,
    desk: Desk,
    before: Held,
    changes: Sequence[tuple[Items, Items]],
    *,
    now_ms: int,
) -> Held:
    """Sign one delta after the other; the last one alone is of now."""
    list_id, issued_ms = ListId(before.list_id), before.issued_ms
    for number, (added, removed) in enumerate(changes, 1):
        raw = await _publish(
            connection,
            desk,
            list_id,
            before.sequence + 1,
            before.hash,
            [_value(list_id, added), _value(list_id, removed)],
            now_ms=now_ms if number == len(changes) else issued_ms,
        )
        before = hold(decode_list(raw), before)
    return before


def _portions(added: Items, removed: Items) -> list[tuple[_Portion, _Portion]]:
    """(added, removed) of several changes, one at least, none of which is above `PART_BYTES`.

    What joins comes first: whoever holds a part is too strict rather than too lax.
    """
    made, size = list[tuple[_Portion, _Portion]]([({}, {})]), 0
    for which, items in enumerate((added, removed)):
        for key in sorted(items):
            more = _size(key, items[key])
            if size + more > PART_BYTES and size:
                made.append(({}, {}))
                size = 0
            made[-1][which][key] = items[key]
            size += more
    return made


def _size(key: Any, names: tuple[str, ...]) -> int:
    """Bytes that an item has in a list, or a few more."""
    if isinstance(key, str):
        return sum([_ITEM_BYTES + len(text.encode()) for text in (key, *names)])
    return len(HEAD) + len(key) if isinstance(key, bytes) else _ITEM_BYTES


async def _publish(
    connection: Connection,
    desk: Desk,
    list_id: ListId,
    sequence: int,
    base: bytes | None,
    value: Any,
    *,
    now_ms: int,
) -> bytes:
    claims = {2: int(list_id), 3: sequence, 4: now_ms, 5: now_ms + NEXT_UPDATE_MS, 6: base}
    raw = await desk.sign(LIST_TYPE, {**claims, 7: content(value)})
    await objects.publish(
        connection,
        list_series(list_id),
        StoredObject(sequence=sequence, object=raw, is_full=base is None, issued_ms=now_ms),
    )
    return raw


def _is_new(before: Held, key: Any, names: tuple[str, ...]) -> bool:
    return key not in before.items or _names(before, key) != names


def _names(before: Held, key: Any) -> tuple[str, ...]:
    return tuple(before.names.get(key, ())) if isinstance(key, str) else ()


def _value(list_id: ListId, items: Items) -> Any:
    """The content of wire.cddl, in an order that is always the same."""
    keys: Iterable[Any] = sorted(items)
    match list_id:
        case ListId.CATEGORIES:
            sets: dict[int, list[str]] = {}
            for number, category in keys:
                sets.setdefault(number, []).append(category)
            return sets
        case ListId.SANCTIONED:
            return [[key, list(items[key])] for key in keys]
        case ListId.JOURNALS:
            return [list(key) for key in keys]
        case _:
            return list(keys)
