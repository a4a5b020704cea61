"""Entries that are held: two officers release or reject them, and the value follows."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from cloud.compliance import decisions
from cloud.compliance.decisions import Action
from cloud.database import Connection, Database
from cloud.errors import CloudError, IssuerError
from cloud.issuer.officers import Officer, Role
from cloud.reconciler.reconciler import Reconciler
from cloud.reconciler.values import Segment
from cloud.shards.shards import Shards
from edge.verdicts import read_verdicts
from tests.integration.cloud.test_convictions import forged
from tests.support.cloud_commands import Commands
from tests.support.issuer import Key
from tests.support.recovery import (
    ANNA,
    BERT,
    CARA,
    Box,
    Story,
    exchanged,
    forgotten,
    paid,
    redeemed,
)
from tests.support.reporting import Branch, open_bank, reconciler
from tests.support.world import NOW_MS
from wallet.journal import Receipted
from wallet.protocol.entry import Entry, EntryKind, decode_entry
from wallet.protocol.ids import WalletId, journal_text, wallet_text
from wallet.protocol.issued import VerdictState, decode_settlement
from wallet.protocol.merkle import leaf_hash
from wallet.protocol.refusals import Code, Refusal

PATH = "/v1/compliance/decisions"


class Watching:
    """A compliance that holds some kinds of entries."""

    def __init__(self, *kinds: EntryKind) -> None:
        self._kinds = kinds

    async def review(self, connection: Connection, segment: Segment) -> dict[int, str]:
        """See `Compliance`."""
        return {e.index: "watched" for e in segment.entries if e.kind in self._kinds}


def watch(story: Story, *kinds: EntryKind) -> None:
    """Let the cloud hold these from now on."""
    found = story.cloud.cloud.reconciler
    for each in [found] if isinstance(found, Reconciler) else found._each:
        each._compliance = Watching(*kinds)


def index_of(made: Receipted) -> int:
    """Where an entry stands."""
    return decode_entry(made.entry).index


def body(box: Box, made: Receipted, action: str) -> dict[str, Any]:
    """What an officer proposes."""
    place = {"journal": journal_text(box.journal), "epoch": 1, "index": index_of(made)}
    return {"draft_id": secrets.token_hex(32), **place, "action": action, "reason": "looked at"}


async def decided(story: Story, box: Box, made: Receipted, action: str) -> None:
    """Two officers decide."""
    draft = body(box, made, action)
    assert (await story.done(story.first, PATH, draft))["state"] == "draft"
    one = f"{PATH}/{draft['draft_id']}/approve"
    assert await story.refused(story.first, one, {}) == "four-eyes"
    assert (await story.done(story.second, one, {}))["state"] == "approved"


async def named(story: Story, box: Box) -> list[tuple[int, int, str]]:
    """The verdicts of the newest settlement."""
    async with story.database.transaction() as connection:
        raw = await connection.fetchval(
            "SELECT object FROM settlement JOIN journal_epoch USING (epoch_id)"
            " WHERE journal = $1 ORDER BY settlement_id DESC LIMIT 1",
            box.journal,
        )
    return [(v.index, v.state, v.code) for v in decode_settlement(raw).verdicts]


async def test_a_released_entry_is_settled_at_the_next_exchange(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    async with south.running() as branch:
        note = await paid(branch, CARA, ANNA, 120, payee_journal=north.journal)
        await exchanged(branch)
    watch(story, EntryKind.TRANSFER_IN)
    async with north.running() as branch:
        arrived = await redeemed(branch, note)
        await exchanged(branch)
        index = index_of(arrived)
        assert await named(story, north) == [(index, VerdictState.HELD, "watched")]
        assert branch.opened.journal.state.unsettled_total == 120
        _, page = await story.first.get("/v1/compliance/held")
        (line,) = page["entries"]
        assert (line["index"], line["kind"], line["amount"]) == (index, "transfer-in", 120)
        assert (line["payer"], line["decidable"]) == (wallet_text(CARA.public.id), True)
        assert (await story.first.get("/v1/compliance/held?first=1"))[1] == {"entries": []}
        before = await story.where()
        await decided(story, north, arrived, "release")
        assert await story.where() == before
        await exchanged(branch)
        assert await named(story, north) == []
        assert branch.opened.journal.state.unsettled_total == 0
        assert await branch.opened.database.read(read_verdicts) == []
    assert (await story.first.get("/v1/compliance/held"))[1] == {"entries": []}
    again = body(north, arrived, "reject")
    assert await story.refused(story.first, PATH, again) == "entry-not-held"


async def test_a_rejected_payment_goes_back_as_far_as_its_payee_still_has_it(
    story: Story, north: Box
) -> None:
    watch(story, EntryKind.PAY)
    async with north.running() as branch:
        first = await paid(branch, ANNA, BERT, 300)
        second = await paid(branch, ANNA, BERT, 50)
        await exchanged(branch)
        await decided(story, north, first, "reject")
        await exchanged(branch)
        # The gateway is told; the value is where the journal says, until the epoch ends.
        assert await named(story, north) == [
            (index_of(first), VerdictState.REJECTED, "watched"),
            (index_of(second), VerdictState.HELD, "watched"),
        ]
        told = await branch.opened.database.read(read_verdicts)
        assert (index_of(first), VerdictState.REJECTED) in [(v.index, v.state) for v in told]
        watch(story)
        await paid(branch, BERT, ANNA, 130)
        await exchanged(branch)
    path = await story.closed(north)
    await story.pass_window(path)
    draft = {"statement_id": "5" * 64, "hosted": "carry"}
    assert await story.refused(story.first, f"{path}/statements", draft) == "entries-held"
    await decided(story, north, second, "release")
    # Bert has 220 of it left: the rest is with Anna already, who got it by a payment that counts.
    made = await story.stated(path)
    assert (made["carried"], made["taken_back"], made["borne"]) == (1_000, 220, 0)
    found = await story.where()
    assert (found.offline, found.loss) == (1_000, 0)
    assert await offline_of(story, north, WalletId(ANNA.public.id)) == 1_000
    assert await story.refused(story.first, PATH, body(north, first, "reject")) == "entry-not-held"


async def offline_of(story: Story, box: Box, wallet: WalletId) -> int:
    """What the ledger says that a wallet has in the first epoch."""
    async with story.database.transaction() as connection:
        found: int = await connection.fetchval(
            "SELECT balance FROM ledger_account WHERE name LIKE $1",
            f"offline/{journal_text(box.journal)}/1/{wallet_text(wallet)}",
        )
        return found


@pytest.mark.parametrize("state", ["redeemed", "compensated", "hidden"])
async def test_a_rejected_arrival_goes_back_to_its_payer_or_to_who_paid_for_it(
    story: Story, north: Box, south: Box, state: str
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    async with forgotten(south) if state == "hidden" else south.running() as branch:
        note = await paid(branch, CARA, ANNA, 120, payee_journal=north.journal)
        if state != "hidden":
            await exchanged(branch)
    if state == "hidden":
        # Another entry of south's is in its place: the issuer pays for the note.
        await story.fund(south, CARA, 5)
        await south.sync()
    if state == "compensated":
        # It came back to Cara before anybody told that it had been redeemed.
        async with story.database.transaction() as connection:
            await connection.execute("UPDATE note SET returns_ms = 0")
        await story.cloud.cloud.refresh()
    watch(story, EntryKind.TRANSFER_IN)
    async with north.running() as branch:
        arrived = await redeemed(branch, note)
        await exchanged(branch)
    await decided(story, north, arrived, "reject")
    path = await story.closed(north)
    await story.pass_window(path)
    made = await story.stated(path)
    assert (made["carried"], made["taken_back"]) == (1_000, 120)
    found = await story.where()
    assert (found.in_transit, found.suspense, found.loss) == (0, 0, 0)
    assert await story.online_of(CARA) == (0 if state == "hidden" else 120)


async def test_a_held_note_waits_for_its_parent_after_its_release_and_for_both_before(
    story: Story, north: Box, south: Box
) -> None:
    await story.fund(south, CARA, 500)
    await south.sync()
    async with south.running(offline=True) as branch:
        notes = [
            await paid(branch, CARA, ANNA, amount, payee_journal=north.journal)
            for amount in (120, 30)
        ]
    watch(story, EntryKind.TRANSFER_IN)
    async with north.running() as branch:
        first, second = [await redeemed(branch, note) for note in notes]
        await exchanged(branch)
        held, code = VerdictState.HELD, "watched"
        assert await named(story, north) == [
            (index_of(first), held, code),
            (index_of(second), held, code),
        ]
        wrong = body(north, first, "reject")
        assert await story.refused(story.first, PATH, wrong) == "entry-pending"
        await decided(story, north, first, "release")
        await exchanged(branch)
        assert await named(story, north) == [
            (index_of(first), VerdictState.PENDING, Code.PARENT_MISSING),
            (index_of(second), held, code),
        ]
    # The parents come: what was released is settled, and what is held still waits for a person.
    await south.sync()
    async with north.running() as branch:
        await exchanged(branch)
        assert await named(story, north) == [(index_of(second), held, code)]
        assert branch.opened.journal.state.unsettled_total == 30
    await decided(story, north, second, "reject")
    found = await story.where()
    assert (found.suspense, found.in_transit, found.loss) == (0, 0, 0)


async def test_what_cannot_be_decided_is_named(story: Story, north: Box, south: Box) -> None:
    watch(story, EntryKind.TRANSFER_OUT)
    async with north.running() as branch:
        left = await paid(branch, ANNA, CARA, 20, payee_journal=south.journal)
        stays = await paid(branch, ANNA, BERT, 20)
        await exchanged(branch)
    assert await story.refused(story.first, PATH, body(north, stays, "reject")) == "entry-not-held"
    wrong = body(north, left, "reject")
    assert await story.refused(story.first, PATH, wrong) == "entry-irreversible"
    unknown = {**wrong, "epoch": 9}
    assert await story.refused(story.first, PATH, unknown) == "journal-unknown"
    # Two drafts may wait; one of them counts.
    drafts = [body(north, left, "release") for _ in range(2)]
    for draft in drafts:
        await story.done(story.first, PATH, draft)
    assert await story.refused(story.first, PATH, {**drafts[0], "index": 1}) == "draft-conflict"
    _, page = await story.first.get(f"{PATH}?first=1")
    assert [line["state"] for line in page["decisions"]] == ["draft"]
    one, other = (f"{PATH}/{draft['draft_id']}" for draft in drafts)
    await story.done(story.second, f"{one}/approve", {})
    assert (await story.done(story.second, f"{one}/approve", {}))["state"] == "approved"
    assert await story.refused(story.second, f"{other}/approve", {}) == "entry-not-held"
    assert (await story.done(story.second, f"{other}/reject", {}))["state"] == "rejected"
    assert await story.refused(story.second, f"{PATH}/{'0' * 64}/approve", {}) == "draft-unknown"


async def test_what_a_journal_told_after_its_offence_is_a_claim_and_not_to_be_decided(
    database: Database,
) -> None:
    anna, bert = Key("anna"), Key("bert")
    await open_bank(database)
    branch, reconciling = Branch("north"), reconciler(database)
    branch.enrol(anna, bert)
    await branch.fund(database, anna, 1_000)
    forged(branch, branch.book.pay(anna, bert, 5_000))
    after: Entry = forged(branch, branch.book.pay(bert, anna, 10))
    branch.book.context.leaves.append(leaf_hash(b"nonsense"))
    branch.book.context.entries.append(b"nonsense")
    await branch.sync(reconciling)
    async with database.transaction() as connection:
        found = await decisions.list_held(connection, first=0)
        assert [(item.index, item.is_applied) for item in found] == [
            (after.index, False),
            (after.index + 1, False),
        ]
        assert (found[1].entry, found[1].order) == (None, None)
        officer = Officer(officer_id=1, name="ada", roles=frozenset({Role.COMPLIANCE}))
        with pytest.raises(IssuerError, match="entry-not-applied"):
            await decisions.draft_decision(
                connection,
                Shards([database]),
                draft_id=bytes(32),
                journal=branch.book.journal,
                epoch=1,
                index=after.index,
                action=Action.RELEASE,
                reason="no",
                officer=officer,
                now_ms=NOW_MS,
            )


async def test_a_rejection_that_freezes_keeps_its_payee_from_spending(
    story: Story, north: Box
) -> None:
    watch(story, EntryKind.PAY)
    async with north.running() as branch:
        made = [await paid(branch, ANNA, BERT, amount) for amount in (300, 40)]
        await exchanged(branch)
        watch(story)
        released = {**body(north, made[0], "release"), "freeze": True}
        assert await story.refused(story.first, PATH, released) == "draft-invalid"
        # The second rejection finds the wallet on the list already.
        for each in made:
            draft = {**body(north, each, "reject"), "freeze": True}
            assert (await story.done(story.first, PATH, draft))["freeze"] is True
            await story.done(story.second, f"{PATH}/{draft['draft_id']}/approve", {})
        _, held = await story.first.get("/v1/issuer/lists")
        (line,) = [each for each in held["lists"] if each["list"] == "frozen"]
        assert (line["sequence"], line["items"]) == (1, 1)
        await exchanged(branch)
        order = branch.order(BERT, ANNA.public.id, 10)
        refused = await branch.opened.journal.pay(order)
        assert isinstance(refused, Refusal) and refused.code == Code.WALLET_FROZEN


async def test_two_officers_decide_by_commands(story: Story, north: Box) -> None:
    watch(story, EntryKind.PAY)
    async with north.running() as branch:
        made = [await paid(branch, ANNA, BERT, amount) for amount in (30, 40)]
        await exchanged(branch)
    commands = await Commands.by(story.cloud, "ada", "bob")
    text, indexes = journal_text(north.journal), [str(index_of(item)) for item in made]
    out = await commands.typed("ada", "compliance", "held")
    assert [line.split("  ")[1:5] for line in out.splitlines()] == [
        ["epoch 1", f"entry {index}", "pay", amount]
        for index, amount in zip(indexes, ("30", "40"), strict=True)
    ]
    drafts = []
    for action, index in zip(("release", "reject"), indexes, strict=True):
        freeze = ("--freeze",) if action == "reject" else ()
        place = ("compliance", action, text, "1", index, "--reason", "asked", *freeze)
        drafts.append((await commands.typed("ada", *place)).split()[1].rstrip(":"))
    out = await commands.typed("bob", "compliance", "decisions")
    assert all(draft in out for draft in drafts)
    assert out.count("and freeze its payee") == 1
    with pytest.raises(CloudError, match="four-eyes"):
        await commands.typed("ada", "compliance", "approve", drafts[0])
    out = await commands.typed("bob", "compliance", "approve", drafts[0])
    assert out == f"release {text} epoch 1 entry {indexes[0]}: approved\n"
    out = await commands.typed("bob", "compliance", "decline", drafts[1])
    assert out == f"reject {text} epoch 1 entry {indexes[1]} and freeze its payee: rejected\n"
    assert (await commands.typed("ada", "compliance", "held")).count("entry") == 1
