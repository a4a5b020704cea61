"""The end of an epoch at another shard than the head, while messages are late or databases old."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from cloud.issuer.officers import list_officers
from cloud.reconciler import collected
from cloud.recovery import closures
from cloud.shards.messages import Addressed, Redeemed, send
from tests.integration.cloud.test_forked_claims import copied
from tests.support.recovery import (
    ANNA,
    BERT,
    CARA,
    Box,
    Story,
    exchanged,
    paid,
    redeemed,
)
from tests.support.recovery_shards import (
    nothing_is_approved,
    state_of,
    story,
    untold,
)
from wallet.protocol.entry import Close, CloseReason

__all__ = ["story"]


async def drafted(story: Story, path: str) -> tuple[int, Any]:
    """A statement that an officer proposes at once, whoever has still to hear of what."""
    body = {"statement_id": secrets.token_hex(32), "hosted": "carry"}
    return await story.first.post(f"{path}/statements", body)


# ---- messages that are late -----------------------------------------------------------------


async def test_a_note_that_a_statement_claims_does_not_go_back_while_that_is_told(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    async with south.running() as branch:
        coming = await paid(branch, CARA, ANNA, 60, payee_journal=north.journal)
        await exchanged(branch)
    async with north.running(offline=True) as branch:
        arrived = await redeemed(branch, coming)
    path = await story.closed(north)
    assert await story.hand_in(arrived) == ["taken"]
    await story.pass_window(path)
    async with story.database.transaction() as connection:
        await connection.execute("UPDATE note SET returns_ms = 1 WHERE state = 'out'")
    draft = await story.statement_draft(path)
    async with untold(story.books, "redeemed"):
        one = f"/v1/issuer/statements/{draft['statement_id']}"
        await story.done(story.second, f"{one}/approve", {})
        await story.cloud.cloud.refresh()
        assert await state_of(story, "note") == "out"
    found = await story.where()
    assert (found.offline, found.loss, found.in_transit) == (1_500, 0, 0)


async def test_a_receipt_that_was_told_in_time_is_in_the_statement(
    story: Story, north: Box
) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
    path = await story.closed(north)
    shards, anchor = story.cloud.cloud.shards, story.cloud.cloud.desk.anchor
    async with untold(story.database, "collected"):
        # As the report of a gateway at the head does.
        holding = await collected.check(anchor, [(made.entry, made.receipt)])
        await shards.homes.learn([north.journal])
        async with story.database.transaction() as connection:
            now_ms = story.cloud.clock.now_ms()
            await collected.take(connection, anchor, holding, shards.here(0), now_ms=now_ms)
        story.cloud.clock.wall_ms += 120_000
        async with story.database.transaction() as connection:
            await connection.execute("UPDATE epoch_closure SET claims_until_ms = $1", now_ms)
        assert (await drafted(story, path))[1]["code"] == "arrivals-pending"
    await story.pass_window(path)
    assert (await story.stated(path))["counted"] == 1


async def test_an_epoch_is_not_final_before_the_fate_of_what_came_into_it(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    async with south.running(offline=True) as branch:
        note = await paid(branch, CARA, ANNA, 60, payee_journal=north.journal)
    lost = await story.closed(south)
    await story.pass_window(lost)
    await story.stated(lost)
    async with untold(story.books, "redeemed"):
        async with north.running() as branch:
            await redeemed(branch, note)
            await branch.opened.journal.submit(Close(reason=CloseReason.PLANNED))
            await exchanged(branch)
        path = await story.closed(north, cause="planned")
        assert (await drafted(story, path))[1]["code"] == "arrivals-pending"
    # It came too late, and officers decide about it first.
    await story.shards_have_heard()
    assert (await drafted(story, path))[1]["code"] == "entries-held"


async def test_a_note_that_is_early_in_its_own_shard_holds_up_nothing(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    async with south.running(offline=True) as branch:
        note = await paid(branch, CARA, ANNA, 60, payee_journal=north.journal)
    async with north.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
    path = await story.closed(north)
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 1_060
    await south.sync()
    found = await story.where()
    assert (found.offline, found.in_transit, found.suspense) == (1_500, 0, 0)


async def test_the_second_note_of_an_index_is_judged_where_its_journal_lives(
    story: Story, north: Box, south: Box
) -> None:
    west = await story.gateway("west")
    await story.enrol(west, BERT)
    await west.sync()
    shards = story.cloud.cloud.shards
    homes = [await shards.home_of(box.journal) for box in (north, south, west)]
    assert homes == [1, 0, 1]
    await story.fund(south, CARA, 500)
    await south.sync()
    other = await copied(south, story, "copy")
    async with other.running(offline=True) as branch:
        one = await paid(branch, CARA, BERT, 1, payee_journal=west.journal)
    async with south.running(offline=True) as branch:
        two = await paid(branch, CARA, ANNA, 400, payee_journal=north.journal)
    assert one.index == two.index
    await south.sync()
    async with north.running(offline=True) as branch:
        arrived = await redeemed(branch, two)
    async with west.running() as branch:
        await redeemed(branch, one)
        await exchanged(branch)
    await story.shards_have_heard()
    path = await story.closed(north)
    assert await story.hand_in(arrived) == ["taken"]
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 1_400
    found = await story.where()
    assert (found.transit_notes, found.suspense, found.loss) == (0, 0, -1)


async def test_an_arrival_that_is_told_in_other_words_moves_its_value_once(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running(offline=True) as branch:
        first, other = [
            await paid(branch, ANNA, CARA, 100, payee_journal=south.journal) for _ in range(2)
        ]
    async with south.running() as branch:
        made = await redeemed(branch, first)
        await exchanged(branch)
    path = await story.closed(north)
    await story.hand_in(other)
    await story.pass_window(path)
    await story.stated(path)
    before = await story.where()
    message = Redeemed(
        entry=first.entry,
        receipt=first.receipt,
        journal=south.journal,
        epoch=1,
        index=made.index,
        window_s=77,
    )
    async with story.database.transaction() as connection:
        await send(connection, 0, [Addressed(target=1, message=message)], now_ms=1)
    assert await story.where() == before


# ---- a head that does not commit ------------------------------------------------------------


async def test_of_two_drafts_the_one_that_was_carried_out_is_the_statement(
    story: Story, north: Box
) -> None:
    path = await story.closed(north)
    await story.pass_window(path)
    made = [await story.statement_draft(path) for _ in range(2)]
    one, two = [f"/v1/issuer/statements/{draft['statement_id']}" for draft in made]
    async with nothing_is_approved(story.database, "epoch_statement"):
        refused = await story.refused(story.second, f"{one}/approve", {})
    assert refused == "database-unavailable"
    assert await story.refused(story.second, f"{two}/approve", {}) == "draft-decided"
    await story.cloud.cloud.refresh()
    _, page = await story.first.get(f"{path}/statements")
    states = {line["statement_id"]: line["state"] for line in page["statements"]}
    assert [states[draft["statement_id"]] for draft in made] == ["signed", "draft"]
    await story.cloud.cloud.refresh()


async def test_nobody_rejects_what_its_home_is_about_to_commit(story: Story, north: Box) -> None:
    path = await story.drafted(north)
    shards, desk = story.cloud.cloud.shards, story.cloud.cloud.desk
    async with story.database.transaction() as connection:
        officers = {officer.name: officer for officer in await list_officers(connection)}
    async with shards.database(1).transaction() as there:
        head = story.database.transaction()
        connection = await head.__aenter__()
        async with shards.site(connection, north.journal) as site:
            # In the test's own transaction, which ends after the head's was lost.
            site = type(site)(head=connection, home=there, here=site.here)
            await closures.approve_closure(
                site,
                desk,
                bytes.fromhex(path.rpartition("/")[2]),
                officer=officers["second"],
                now_ms=story.cloud.clock.now_ms(),
            )
        lost = RuntimeError("lost")
        await head.__aexit__(RuntimeError, lost, None)
        rejecting = asyncio.create_task(story.refused(story.second, f"{path}/reject", {}))
        await waits_for_a_lock(story)
    assert await rejecting == "draft-decided"
    await story.cloud.cloud.refresh()
    assert await state_of(story, "epoch_closure") == "closed"


async def waits_for_a_lock(story: Story) -> None:
    """Until somebody waits at the home for another's transaction."""
    async with asyncio.timeout(20):
        while True:
            async with story.books.transaction() as connection:
                found = await connection.fetchval(
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                )
            if found:
                return
            await asyncio.sleep(0.02)


async def test_a_closure_that_is_learnt_late_has_its_whole_window(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running(offline=True) as branch:
        out = await paid(branch, ANNA, CARA, 100, payee_journal=south.journal)
    path = await story.drafted(north)
    async with nothing_is_approved(story.database, "epoch_closure"):
        await story.refused(story.second, f"{path}/approve", {})
    async with story.books.transaction() as connection:
        window_s = await connection.fetchval("SELECT window_s FROM ended_epoch")
    story.cloud.clock.wall_ms += 3_600_000
    await story.done(story.second, f"{path}/approve", {})
    assert await story.hand_in(out) == ["taken"]
    await story.pass_window(path)
    await story.stated(path)
    async with story.books.transaction() as connection:
        row = await connection.fetchrow("SELECT expires_ms, returns_ms FROM note")
    assert row["returns_ms"] - row["expires_ms"] == window_s * 1_000 > 0
