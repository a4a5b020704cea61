"""Packed ids say of every key what the exact set says, whatever is beside or like it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.issuer import Issuer
from tests.unit.wallet.protocol.test_objects import signed_list
from wallet.protocol.ids import ID_BYTES
from wallet.protocol.issued import LIST_TYPE, decode_list, payload
from wallet.protocol.lists import (
    LIST_BYTES_MAX,
    Held,
    ListId,
    SignedList,
    content,
    hold,
    hold_chain,
    parts,
)
from wallet.protocol.packed import HEAD, ROW_BYTES, PackedIds, is_sorted
from wallet.protocol.refusals import Code, ProtocolError

# Few values a byte, many beginnings in common: what is searched in one sweep meets all it can.
ALIKE = st.lists(st.sampled_from([0, 1, HEAD[0], 255]), min_size=20, max_size=20).map(bytes)
SAME_BEGINNING = st.binary(min_size=18, max_size=18).map(lambda rest: b"\x54\x54" + rest)
IDS = ALIKE | SAME_BEGINNING | st.binary(min_size=20, max_size=20)
SETS = st.frozensets(IDS, max_size=40)


def many(count: int, salt: bytes = b"") -> list[bytes]:
    """So many ids, the same each time, in no order."""
    return [
        hashlib.sha256(salt + number.to_bytes(4, "big")).digest()[:20] for number in range(count)
    ]


def rows_of(ids: Iterable[bytes]) -> PackedIds:
    """Few ids as many are kept: in rows."""
    return PackedIds(b"".join([HEAD + item for item in sorted(ids)]))


@pytest.mark.parametrize("make", [PackedIds.of, rows_of])
@settings(max_examples=60)
@given(data=st.data(), first=SETS, changes=st.lists(st.tuples(SETS, SETS), max_size=4))
def test_every_key_gets_the_answer_of_the_exact_set(
    make: Callable[[Iterable[bytes]], PackedIds],
    data: st.DataObject,
    first: frozenset[bytes],
    changes: list[tuple[frozenset[bytes], frozenset[bytes]]],
) -> None:
    exact, ids = first, make(first)
    met = set(first)
    for added, removed in changes:
        if exact:
            removed |= data.draw(st.frozensets(st.sampled_from(sorted(exact))))
        exact, ids = (exact - removed) | added, ids.changed(added=added, removed=removed)
        met |= added | removed
        assert (len(ids), list(ids)) == (len(exact), sorted(exact))
    for key in met | set(data.draw(st.lists(IDS, max_size=20))):
        assert (key in ids) == (key in exact)
        # What begins in one row and ends in the next is no id.
        for shifted in (key[1:] + HEAD, HEAD + key[:-1], key[:-1], key + b"\0", b""):
            assert (shifted in ids) == (shifted in exact)
    assert None not in ids


def test_a_key_across_two_rows_is_not_found() -> None:
    low, high = b"\x54" * 11 + b"\x01" * 9, b"\x54" * 11 + b"\x02" * 9
    across = (HEAD + low + HEAD + high)[11 : 11 + ID_BYTES]
    ids = rows_of([low, high, b"\x55" * 20])
    assert low in ids and high in ids and across not in ids
    # A row whose head is like what it holds.
    both = rows_of([b"\x54" * 20, b"\x54" * 19 + b"\x55"])
    assert b"\x54" * 20 in both and b"\x54" * 18 + b"\x55\x54" not in both


def test_ids_that_were_made_to_begin_alike_are_searched_by_halves() -> None:
    alike = [b"\x07\x07" + item[2:] for item in many(3_000)]
    ids = PackedIds.of(alike)
    assert len(ids._rows) == 3_000 * ROW_BYTES
    assert all(item in ids for item in alike)
    assert not any(b"\x07\x07" + item[2:] in ids for item in many(500, b"other"))
    # Few changes go to their places, many by a merge of all: they come to the same.
    fresh = frozenset(many(2_500, b"fresh"))
    gone = frozenset(alike[:10])
    assert set(ids.changed(added=fresh, removed=gone)) == (set(alike) - gone) | fresh
    large = PackedIds.of(many(40_000))
    after = large.changed(added=fresh, removed=frozenset(many(40_000)[:7]))
    assert is_sorted(after._rows) and len(after._rows) == (40_000 + 2_500 - 7) * ROW_BYTES
    assert set(after) == (set(many(40_000)) - set(many(40_000)[:7])) | fresh


def test_rows_come_in_any_order_and_an_id_may_come_twice() -> None:
    ids = many(5_000)
    rows = [HEAD + item for item in ids]
    ordered = b"".join(sorted(rows))
    for given_rows in (ordered, b"".join(rows), b"".join(sorted([*rows, rows[0]]))):
        assert sorted(ids) == list(PackedIds.of_rows(given_rows))
    assert is_sorted(ordered) and not is_sorted(b"".join(sorted([*rows, rows[0]])))
    assert list(PackedIds.of_rows(b"")) == []


def test_what_sets_do_gives_packed_ids() -> None:
    ids = PackedIds.of(many(10))
    assert isinstance(ids - set(many(3)), PackedIds)
    assert set(ids - set(many(3))) == set(many(10)[3:])
    assert set(frozenset(many(12)) - ids) == set(many(12)[10:])
    assert not ids.isdisjoint(many(1)) and ids.isdisjoint(many(5, b"other"))


# ---- lists of them ------------------------------------------------------------------------


def chain_of(list_id: ListId, full: object, *deltas: object) -> list[SignedList]:
    """A full list and what changed since."""
    made = [signed_list(list_id, 0, full)]
    for number, delta in enumerate(deltas, 1):
        made.append(signed_list(list_id, number, delta, made[-1].hash))
    return made


def held_after(chain: list[SignedList]) -> Held:
    held: Held | None = None
    for listed in chain:
        held = hold(listed, held)
    assert held is not None
    return held


A, B, C = many(3)
CHAINS = [
    chain_of(ListId.WALLETS, many(3_000), [many(10, b"1"), [A]], [[A], [B]], [[], []]),
    chain_of(ListId.FROZEN, [], [[A, B], []], [many(5_000), [A]], [many(9_000, b"2"), [B, C]]),
    chain_of(ListId.FROZEN, [A]),
    chain_of(ListId.SANCTIONED, [["x", ["X"]]], [[["y", []]], [["x", []]]], [[["x", ["Z"]]], []]),
]


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_at_once_is_what_it_is_one_by_one(chain: list[SignedList]) -> None:
    assert hold_chain(chain) == held_after(chain)


@pytest.mark.parametrize("places", [[1, 2], [0, 2], [0, 0]])
def test_a_chain_begins_with_a_full_list_and_has_no_gap(places: list[int]) -> None:
    with pytest.raises(ProtocolError) as caught:
        hold_chain([CHAINS[0][place] for place in places])
    assert caught.value.code == Code.PARENT_MISSING


def test_items_are_not_looked_at_one_by_one_and_none_that_is_wrong_comes_through() -> None:
    good = content([[A, B], [C]])
    assert held_after(chain_of(ListId.WALLETS, [C], [[A, B], [C]])).items == {A, B}
    wrong = [
        b"",
        b"\x80",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x98\x01" + HEAD + A,
        content([A, A[1:]]),
        content([A, "x"]),
        content([A]) + b"\0",
        content([A])[:-1],
        content([[A], B]),
        content([[A]]),
        content([A, [B]]),
        content({1: A}),
        good[:-1],
        good + b"\0",
    ]
    for list_id in (ListId.WALLETS, ListId.FROZEN):
        for base in (None, bytes(32)):
            for data in wrong:
                if base is None and data == b"\x80":
                    continue
                with pytest.raises(ProtocolError) as caught:
                    signed_content(list_id, data, base)
                assert caught.value.code in (Code.MALFORMED, Code.NOT_CANONICAL)


def signed_content(list_id: ListId, data: bytes, base: bytes | None) -> SignedList:
    """A list with just these bytes in it."""
    key, chain = Issuer().role("lists")
    claims = {2: int(list_id), 3: 1, 4: 0, 5: 1, 6: base, 7: data}
    return decode_list(key.sign_object(LIST_TYPE, payload(claims), chain))


def test_rows_stand_in_the_order_of_their_marks() -> None:
    ids = PackedIds.of(many(70_000))
    bounds = [*ids._marks]
    assert bounds[0] == 0 and bounds[-1] == len(ids._rows)
    assert all(low <= high for low, high in pairwise(bounds))


def test_content_above_the_bound_is_too_large() -> None:
    large = msgspec.structs.replace(CHAINS[2][0], content=bytes(LIST_BYTES_MAX + 1))
    with pytest.raises(ProtocolError) as caught:
        parts(large)
    assert caught.value.code == Code.TOO_LARGE
