"""A lost gateway that forked: claims of one index, and of one sequence."""

from __future__ import annotations

import shutil

from tests.integration.cloud.test_refused_claims import refuse
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
from wallet.protocol.fork import ForkKind, verify_fork

PIN = "2468"


async def copied(north: Box, story: Story, name: str) -> Box:
    """A copy of a gateway with its token: what no hardware would let happen."""
    shutil.copytree(north.folder, story.folder / name)
    return Box(story, story.folder / name)


async def test_two_entries_at_one_index_count_both_and_convict_the_journal(
    story: Story, north: Box
) -> None:
    other = await copied(north, story, "copy")
    async with north.running(offline=True) as branch:
        one = await paid(branch, ANNA, BERT, 10)
    async with other.running(offline=True) as branch:
        two = await paid(branch, ANNA, BERT, 20)
    assert one.index == two.index
    path = await story.closed(north)
    assert await story.hand_in(one, two) == ["taken", "taken"]
    await story.pass_window(path)
    assert (await story.stated(path))["counted"] == 2
    async with story.books.transaction() as connection:
        row = await connection.fetchrow("SELECT kind, parts FROM journal_evidence")
    proof = verify_fork(row["parts"][0], root=story.cloud.cloud.desk.anchor, grace_s=0)
    assert (row["kind"], proof.kind) == ("fork", ForkKind.INDEX)
    assert (await story.where()).loss == 0


async def test_of_two_notes_at_one_index_one_is_on_its_way_and_the_other_is_the_issuer_s_loss(
    story: Story, north: Box, south: Box
) -> None:
    other = await copied(north, story, "copy")
    away = {"payee_journal": south.journal}
    notes = []
    for box, amount in ((north, 100), (other, 200)):
        async with box.running(offline=True) as branch:
            notes.append(await paid(branch, ANNA, CARA, amount, **away))
    assert notes[0].index == notes[1].index
    first, second = sorted(notes, key=lambda note: note.leaf)
    async with south.running(offline=True) as branch:
        await redeemed(branch, second)
    path = await story.closed(north)
    await story.hand_in(*notes)
    await story.pass_window(path)
    made = await story.stated(path)
    assert (made["counted"], made["refused"]) == (1, 1)
    on_its_way = (await story.where()).in_transit
    assert on_its_way == 1_000 - made["carried"]
    await south.sync()
    found = await story.where()
    lost = 300 - on_its_way
    assert (found.in_transit, found.suspense, found.loss) == (on_its_way, 0, -lost)
    assert first.leaf < second.leaf


async def test_of_two_notes_at_one_index_the_redeemed_one_may_be_refused(
    story: Story, north: Box, south: Box
) -> None:
    other = await copied(north, story, "copy")
    notes = []
    for box, amount in ((north, 100), (other, 200)):
        async with box.running(offline=True) as branch:
            notes.append(await paid(branch, ANNA, CARA, amount, payee_journal=south.journal))
    async with south.running() as branch:
        await redeemed(branch, notes[0])
        await exchanged(branch)
    path = await story.closed(north)
    await story.hand_in(notes[1])
    await story.pass_window(path)
    await refuse(story, path, notes[0])
    made = await story.stated(path)
    # The issuer bears the one that came in, and the other one is on its way.
    assert (made["carried"], made["borne"], made["refused"]) == (800, 100, 1)
    found = await story.where()
    assert (found.transit_notes, found.suspense, found.loss) == (200, 0, -100)


async def test_a_note_by_an_order_whose_sequence_is_spent_is_the_issuer_s_loss(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(north, BERT, 100)
    await north.sync()
    other = await copied(north, story, "copy")
    async with other.running(offline=True) as branch:
        await paid(branch, BERT, ANNA, 1)
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
    async with north.running() as branch:
        assert (await paid(branch, ANNA, BERT, 10)).index < note.index
        await branch.daemon.sync_now()
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
    path = await story.closed(north)
    _, page = await story.first.get(f"{path}/claims")
    assert [(line["kind"], line["code"]) for line in page["claims"]] == [
        ("transfer-out", "sequence-used")
    ]
    await story.pass_window(path)
    made = await story.stated(path)
    assert (made["carried"], made["borne"], made["refused"]) == (1_100, 200, 1)
    found = await story.where()
    assert (found.offline, found.suspense, found.loss) == (1_300, 0, -200)
