"""The cloud with two databases: gateways, officers and holders see one issuer."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cloud.database import Database
from cloud.shards.messages import ShardError
from cloud.shards.shards import shard_of
from tests.integration.cloud.test_recovery import (
    test_a_lost_gateway_goes_on_elsewhere_and_every_cent_is_where_it_should_be as lost_gateway,
)
from tests.integration.cloud.test_recovery import (
    test_what_came_into_a_lost_gateway_is_claimed_by_its_payee_or_goes_back as lost_arrival,
)
from tests.support.clouds import Clouds
from tests.support.postgres import CONFIG
from tests.support.recovery import (
    ANNA,
    CARA,
    SUPPLY,
    Box,
    Story,
    balance,
    exchanged,
    forged,
    paid,
    redeemed,
    told,
)
from wallet.protocol.ids import journal_text

# The same stories, now with north at the head and south at shard 1.
test_a_lost_gateway_goes_on_beside_one_that_lives_elsewhere = lost_gateway
test_notes_from_elsewhere_that_came_into_a_lost_gateway_are_claimed = lost_arrival


@pytest.fixture
async def story(clouds: Clouds, tmp_path: Path) -> AsyncIterator[Story]:
    """A cloud of two databases, and its officers."""
    database, other = await clouds.fresh(), await clouds.fresh()
    async with told(database, tmp_path, others=[other]) as opened:
        yield opened


async def home_of(story: Story, box: Box) -> int:
    """Where a gateway's journal lives."""
    return await story.cloud.cloud.shards.home_of(box.journal)


async def test_gateways_are_shared_out_and_pay_each_other(
    story: Story, north: Box, south: Box
) -> None:
    assert [await home_of(story, box) for box in (north, south)] == [0, 1]
    async with north.running() as branch:
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
        await exchanged(branch)
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 200
        assert (await story.where()).offline == 1_000
        # The verdict came back meanwhile: the next settlement says so.
        await exchanged(branch)
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 0
        await paid(branch, CARA, CARA, 50, kind=3)
        await exchanged(branch)
        assert balance(branch, CARA) == 150
    found = await story.where()
    assert (found.offline, found.in_transit, found.suspense) == (950, 0, 0)
    assert await story.online_of(CARA) == 50
    await story.fund(south, CARA, 70)
    await south.sync()
    found = await story.where()
    assert (found.online, found.offline, found.in_transit) == (SUPPLY - 1_020, 1_020, 0)
    _, page = await story.first.get("/v1/issuer/journals")
    assert {line["journal"]: line["state"] for line in page["journals"]} == {
        journal_text(box.journal): "open" for box in (north, south)
    }
    _, account = await story.first.get("/v1/issuer/account")
    (line,) = account["currencies"]
    assert (line["difference"], line["offline"]) == (0, 1_020)
    _, page = await story.first.get("/v1/issuer/attestations")
    assert [line["suspended"] for line in page["gateways"]] == [False, False]
    await keep_their_homes(story, north, south)


async def test_what_another_shard_is_needed_for_waits_or_is_refused(
    story: Story, north: Box, south: Box
) -> None:
    await others_go_on(story, north, south)
    decision: dict[str, Any] = {
        "draft_id": secrets.token_hex(32),
        "journal": journal_text(south.journal),
        "epoch": 1,
        "index": 0,
        "action": "release",
        "reason": "why not",
    }
    path = "/v1/compliance/decisions"
    assert await story.refused(story.first, path, decision) == "entry-not-held"
    path = await story.closed(north)
    await story.pass_window(path)
    # What another shard knows of notes has to be known before a statement, or a return.
    async with story.cloud.cloud.shards.database(1).transaction() as connection:
        await connection.execute(
            "INSERT INTO shard_message (target, identity, kind, body, created_ms, sent_ms)"
            " VALUES (0, $1, 'redeemed', $1, 0, $2)",
            *(bytes(32), 2**52),
        )
    await story.cloud.cloud.refresh()
    statement = {"statement_id": secrets.token_hex(32), "hosted": "carry"}
    refused = await story.refused(story.first, f"{path}/statements", statement)
    assert refused == "arrivals-pending"
    # What comes in after the window is no claim, however much of it is on its way.
    async with story.cloud.cloud.shards.database(1).transaction() as connection:
        await connection.execute("UPDATE shard_message SET created_ms = $1", 2**52)
    statement = {"statement_id": secrets.token_hex(32), "hosted": "carry"}
    draft = await story.done(story.first, f"{path}/statements", statement)
    await story.done(story.second, f"/v1/issuer/statements/{draft['statement_id']}/reject", {})
    async with story.cloud.cloud.shards.database(1).transaction() as connection:
        await connection.execute("DELETE FROM shard_message")
    assert (await story.stated(path))["carried"] == 1_000


async def others_go_on(story: Story, north: Box, south: Box) -> None:
    """While a shard is away."""
    shard = story.cloud.cloud.shards.database(1)
    assert await up_metrics(story) == {"0": 1.0, "1": 1.0}
    await shard.close()
    await north.sync()
    await story.cloud.cloud.refresh()
    assert await up_metrics(story) == {"0": 1.0, "1": 0.0}
    async with south.running() as branch:
        result, detail = await branch.daemon.sync_now()
        assert (result, detail) == ("failed", "transport-status: status 503")
    shard.take_over(await Database.connect(shard.dsn, config=CONFIG))
    await south.sync()
    await story.where()


async def up_metrics(story: Story) -> dict[str, float]:
    """Which shards are in reach."""
    async with story.first.session.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    found = [line for line in lines if line.startswith("cbdc_shard_up{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


async def test_who_cheats_elsewhere_is_listed_and_shown_by_the_head(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    copy = south.folder.with_name("copy")

    shutil.copytree(south.folder, copy)
    async with south.running(offline=True) as branch:
        shown = await paid(branch, CARA, CARA, 10, kind=3)
    shutil.rmtree(south.folder)
    shutil.copytree(copy, south.folder)
    async with south.running() as branch:
        await paid(branch, CARA, CARA, 20, kind=3)
        await exchanged(branch)
    assert await story.hand_in(shown, forged(shown)) == ["taken", "invalid"]
    await story.where()
    await story.cloud.cloud.refresh()
    _, lists = await story.first.get("/v1/issuer/lists")
    assert {line["list"]: line["items"] for line in lists["lists"]}["journals"] == 1
    _, page = await story.second.get("/v1/issuer/evidence")
    (row,) = page["evidence"]
    assert (row["journal"], row["kind"]) == (journal_text(south.journal), "hidden-entry")
    assert shard_of(row["evidence_id"]) == 1
    path = f"/v1/issuer/evidence/{row['evidence_id']}"
    assert (await story.second.get(path))[1] == row
    _, proof = await story.second.get(f"{path}/proof")
    assert proof["size"] > 0
    _, piece = await story.second.get(f"{path}/proof/piece")
    assert piece["data"]
    assert (await story.second.get(f"/v1/issuer/evidence/{3 << 40}"))[0] == 404


async def keep_their_homes(story: Story, north: Box, south: Box) -> None:
    """Those that have one; others are shared out."""
    shards = story.cloud.cloud.shards
    async with story.database.transaction() as connection:
        assert await shards.house(connection, south.journal, now_ms=1) == 1
        assert await shards.house(connection, bytes(20), now_ms=1) == 0
        assert await shards.house(connection, bytes(19) + b"1", now_ms=1) == 1
        before = south.journal
        assert await shards.house(connection, bytes(19) + b"2", now_ms=1, before=before) == 1
        with pytest.raises(ShardError, match="journal-elsewhere"):
            await shards.house(connection, north.journal, now_ms=1, before=before)
        # A restored head has forgotten where it is: its entries tell.
        await connection.execute("ALTER TABLE journal_home DISABLE TRIGGER USER")
        await connection.execute("DELETE FROM journal_home WHERE journal = $1", south.journal)
        assert await shards.house(connection, south.journal, now_ms=2) == 1


async def test_a_note_that_came_in_elsewhere_is_a_claim_on_a_lost_gateway(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running(offline=True) as branch:
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
        assert (await story.where()).suspense == -200
        path = await story.closed(north)
        await story.pass_window(path)
        assert (await story.stated(path))["carried"] == 800
        found = await story.where()
        assert (found.offline, found.in_transit, found.suspense, found.loss) == (1_000, 0, 0, 0)
        await exchanged(branch)
        await exchanged(branch)
        assert branch.opened.journal.state.unsettled_total == 0
