"""Large lists go in parts: nobody who holds a part of a change holds a fresh list."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud.database import Connection, Database
from cloud.http.octets import from_text
from cloud.issuer import lists
from cloud.issuer.desk import Desk
from cloud.issuer.lists import DELTAS_MAX, NEVER_ISSUED_MS, PART_BYTES, Items, ListChange
from cloud.issuer.objects import list_series, newer_than
from sync.exchange import TAKES
from tests.integration.cloud.test_gateways import enrolled, exchange
from tests.support.cloud_local import LocalCloud, NewGateway, local_cloud
from tests.support.world import NOW_MS
from wallet.protocol.envelope import NEWEST_LISTS, Down
from wallet.protocol.issued import decode_issued, decode_list
from wallet.protocol.lists import Held, ListId, SignedList, hold, hold_chain
from wallet.protocol.packed import ROW_BYTES

COUNT = 10_000
LATER_MS = NOW_MS + 1


def many(count: int) -> dict[bytes, tuple[str, ...]]:
    """So many ids."""
    numbers = [number.to_bytes(4, "big") for number in range(count)]
    return {hashlib.sha256(number).digest()[:20]: () for number in numbers}


@pytest.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[LocalCloud]:
    """A cloud."""
    async with local_cloud(database, tmp_path) as opened:
        yield opened


async def change(cloud: LocalCloud, list_id: ListId, added: Items, removed: Items) -> Held:
    """What an officer's change comes to."""
    made = ListChange(added=added, removed=removed)
    async with cloud.cloud.database.transaction() as connection:
        return await lists.change_list(
            connection, cloud.cloud.desk, list_id, made, actor="test", now_ms=LATER_MS
        )


async def signed(cloud: LocalCloud, list_id: ListId, after: int | None = None) -> list[SignedList]:
    """What a gateway gets that holds a sequence."""
    async with cloud.cloud.database.transaction() as connection:
        found = await newer_than(connection, list_series(list_id), after)
    return [decode_list(stored.object) for stored in found]


async def test_a_large_change_is_several_deltas_of_which_the_last_is_of_now(
    cloud: LocalCloud,
) -> None:
    ids = many(COUNT)
    (first,) = await signed(cloud, ListId.WALLETS)
    after = await change(cloud, ListId.WALLETS, ids, {})
    made = await signed(cloud, ListId.WALLETS, 0)
    assert len(made) == -(-COUNT // (PART_BYTES // ROW_BYTES))
    assert all(len(item.content) <= PART_BYTES + 16 for item in made)
    assert [item.issued_ms for item in made] == [first.issued_ms] * (len(made) - 1) + [LATER_MS]
    held = hold(first, None)
    for item in made:
        before, held = held, hold(item, held)
        assert before.items < held.items
    assert held == after and held.items == ids.keys()
    async with cloud.cloud.database.transaction() as connection:
        assert await lists.held(connection, ListId.WALLETS) == held


async def test_who_joins_comes_before_who_leaves(cloud: LocalCloud) -> None:
    ids = many(COUNT)
    old, new = dict(list(ids.items())[:5_000]), dict(list(ids.items())[4_999:])
    before = await change(cloud, ListId.FROZEN, old, {})
    after = await change(cloud, ListId.FROZEN, new, old)
    assert after.items == new.keys()
    held = before
    for item in await signed(cloud, ListId.FROZEN, before.sequence):
        held = hold(item, held)
        # Nobody goes free because the rest is still on its way.
        assert new.keys() <= held.items or old.keys() <= held.items


async def test_names_are_measured_by_what_they_have(cloud: LocalCloud) -> None:
    people = {f"id-{number}": ("N" * 900, "M" * 90) for number in range(50)}
    await change(cloud, ListId.SANCTIONED, people, {})
    made = await signed(cloud, ListId.SANCTIONED, 0)
    assert len(made) == 2 and all(len(item.content) <= PART_BYTES for item in made)
    # One item above the bound goes whole.
    after = await change(cloud, ListId.SANCTIONED, {"long": ("L" * PART_BYTES,)}, {})
    assert after.sequence == made[-1].sequence + 1 and after.names["long"][0] == "L" * PART_BYTES


@pytest.mark.parametrize(("count", "full"), [(1_000, True), (COUNT, False)])
async def test_a_large_list_is_never_signed_in_full_again(
    cloud: LocalCloud, count: int, full: bool
) -> None:
    await change(cloud, ListId.WALLETS, many(count), {})
    for number in range(DELTAS_MAX):
        await change(cloud, ListId.WALLETS, {number.to_bytes(20, "big"): ()}, {})
    made = await signed(cloud, ListId.WALLETS, 1)
    assert (made[0].base is None) == full and all(item.base for item in made[1:])


async def test_a_first_list_that_is_large_is_fresh_when_all_of_it_is_there(
    cloud: LocalCloud,
) -> None:
    database, desk = cloud.cloud.database, cloud.cloud.desk
    async with database.transaction() as connection:
        await _forget(connection, ListId.FROZEN)
        await lists.publish_first(connection, desk, ListId.FROZEN, many(COUNT), now_ms=NOW_MS)
    made = await signed(cloud, ListId.FROZEN)
    assert [item.issued_ms for item in made] == [NEVER_ISSUED_MS] * (len(made) - 1) + [NOW_MS]
    assert made[0].base is None and len(made) > 2
    await _refreshed_by_its_time(cloud, desk)


async def _forget(connection: Connection, list_id: ListId) -> None:
    await connection.execute("ALTER TABLE issued_object DISABLE TRIGGER USER")
    series = list_series(list_id)
    await connection.execute("DELETE FROM issued_object WHERE series = $1", series)


async def _refreshed_by_its_time(cloud: LocalCloud, desk: Desk) -> None:
    async with cloud.cloud.database.transaction() as connection:
        now_ms = NOW_MS + lists.REFRESH_MS
        assert ListId.FROZEN in await lists.refresh_lists(connection, desk, now_ms=now_ms)
        held = await lists.held(connection, ListId.FROZEN)
    assert held is not None and held.issued_ms == now_ms and held.items == many(COUNT).keys()


# ---- as much as the line takes --------------------------------------------------------------


async def fetch(
    cloud: LocalCloud, gateway: NewGateway, newest: dict[int, int], takes: int
) -> tuple[Down, list[SignedList]]:
    """One exchange of a gateway that says what it takes."""
    down = await exchange(cloud, gateway, newest=newest, health={TAKES: takes})
    found = [decode_issued(raw) for raw in down.objects]
    return down, [item for item in found if isinstance(item, SignedList)]


async def test_a_large_list_comes_in_answers_as_large_as_the_line_takes(
    cloud: LocalCloud,
) -> None:
    ids, gateway = many(COUNT), await enrolled(cloud, 0)
    after = await change(cloud, ListId.WALLETS, ids, {})
    newest = {0: 0, 2: 0} | {NEWEST_LISTS + list_id: 0 for list_id in ListId}
    (first,) = (await signed(cloud, ListId.WALLETS))[:1]
    held, answers = hold(first, None), 0
    while True:
        # An answer that is lost is asked for once more: nothing has changed.
        lost, _ = await fetch(cloud, gateway, newest, 80_000)
        down, lists_ = await fetch(cloud, gateway, newest, 80_000)
        assert down.objects == lost.objects and sum(map(len, down.objects)) <= 80_000
        answers += 1
        for item in lists_:
            held = hold(item, held)
        newest[NEWEST_LISTS + ListId.WALLETS] = held.sequence
        if not down.waiting:
            break
        assert len(lists_) == 2
    assert held == after and answers == 4
    # Who does not say gets all of it, and nothing that it would not know.
    whole = await exchange(cloud, gateway, newest={**newest, NEWEST_LISTS + ListId.WALLETS: 0})
    assert whole.waiting == 0 and len(whole.objects) == 7


async def test_a_newcomer_gets_the_beginning_of_a_large_list(cloud: LocalCloud) -> None:
    ids = many(20_000)
    after = await change(cloud, ListId.WALLETS, ids, {})
    gateway = await enrolled(cloud, 0)
    raws = [from_text(raw) for raw in gateway.answer["objects"]]
    found = [item for item in map(decode_issued, raws) if isinstance(item, SignedList)]
    assert {item.list_id for item in found} == set(ListId)
    begun = [item for item in found if item.list_id == ListId.WALLETS]
    held = hold_chain(begun)
    assert 0 < len(held.items) < len(ids) and held.sequence < after.sequence
    # And the rest by an exchange.
    newest = {NEWEST_LISTS + ListId.WALLETS: held.sequence}
    _, rest = await fetch(cloud, gateway, newest, 1 << 20)
    for item in rest:
        if item.list_id == ListId.WALLETS:
            held = hold(item, held)
    assert held == after


async def test_what_is_urgent_comes_before_what_is_large(cloud: LocalCloud) -> None:
    gateway = await enrolled(cloud, 0)
    newest = {0: 0, 2: 0} | {NEWEST_LISTS + list_id: 0 for list_id in ListId}
    await change(cloud, ListId.WALLETS, many(COUNT), {})
    await change(cloud, ListId.FROZEN, many(3), {})
    await change(cloud, ListId.JOURNALS, {(bytes(20), 1): ()}, {})
    down, (only,) = await fetch(cloud, gateway, newest, 1)
    assert only.list_id == ListId.JOURNALS and down.waiting > ROW_BYTES * COUNT
    newest[NEWEST_LISTS + ListId.JOURNALS] = only.sequence
    _, (only,) = await fetch(cloud, gateway, newest, 1)
    assert only.list_id == ListId.FROZEN
