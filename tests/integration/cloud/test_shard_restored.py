"""The end of an epoch at another shard than the head, after one of the two was restored."""

from __future__ import annotations

from typing import Any

from cloud.ledger.posting import TransferKind
from cloud.shards.upkeep import recall
from tests.integration.cloud.test_decisions import decided, watch
from tests.integration.cloud.test_late_payments import drafted
from tests.support.recovery import ANNA, BERT, Box, Story, balance, exchanged, paid
from tests.support.recovery_shards import emptied, story
from wallet.protocol.entry import EntryKind

__all__ = ["story"]


async def test_a_rejection_that_the_head_forgot_counts(story: Story, north: Box) -> None:
    watch(story, EntryKind.PAY)
    async with north.running() as branch:
        made = await paid(branch, ANNA, BERT, 300)
        await exchanged(branch)
    await decided(story, north, made, "reject")
    await story.shards_have_heard()
    await emptied(story.database, "entry_decision")
    path = await story.closed(north)
    await story.pass_window(path)
    assert (await story.stated(path))["taken_back"] == 300


async def test_a_head_that_forgot_a_grant_does_not_give_its_value_back(
    story: Story, north: Box
) -> None:
    await story.shards_have_heard()
    # The head is that of when the value was held; its journal has entered the grant since.
    async with story.database.transaction() as connection:
        await connection.execute(
            "UPDATE funding SET state = 'held', sequence = NULL, grant_cose = NULL"
        )
        rows = await connection.fetch(
            "SELECT debit, credit, amount FROM ledger_transfer WHERE kind = $1",
            TransferKind.GRANT_SENT,
        )
        for row in rows:
            change = "UPDATE ledger_account SET balance = balance + $2 WHERE account_id = $1"
            await connection.execute(change, row["debit"], row["amount"])
            await connection.execute(change, row["credit"], -row["amount"])
        await connection.execute("ALTER TABLE ledger_transfer DISABLE TRIGGER USER")
        await connection.execute(
            "DELETE FROM ledger_transfer WHERE kind = $1", TransferKind.GRANT_SENT
        )
        await connection.execute("ALTER TABLE ledger_transfer ENABLE TRIGGER USER")
        await connection.execute("DELETE FROM shard_taken")
    async with story.books.transaction() as connection:
        await connection.execute("UPDATE shard_message SET taken_ms = NULL, sent_ms = $1", 2**52)
    path = await story.closed(north)
    async with story.books.transaction() as connection:
        await connection.execute("UPDATE shard_message SET sent_ms = NULL WHERE taken_ms IS NULL")
    await story.pass_window(path)
    assert (await story.stated(path))["carried"] == 1_000
    found = await story.where()
    assert (found.offline, found.suspense, found.in_transit) == (1_000, 0, 0)


async def test_a_home_that_forgot_a_closure_takes_nothing_from_the_closed_journal(
    story: Story, north: Box
) -> None:
    async with north.running(offline=True) as branch:
        await paid(branch, ANNA, BERT, 300)
    path = await story.closed(north)
    await story.pass_window(path)
    await forget_closing(story)
    async with north.running() as branch:
        size = branch.opened.journal.state.size
        assert await branch.daemon.sync_now() == ("failed", "exchange-problem: wrong-journal")
    async with story.books.transaction() as connection:
        row = await connection.fetchrow("SELECT state, size FROM journal_epoch")
    assert (row["state"], row["size"] < size) == ("closed", True)
    await forget_closing(story)
    assert (await story.stated(path))["carried"] == 1_000


async def forget_closing(story: Story) -> None:
    """The home is that of before the closure."""
    await emptied(story.books, "ended_epoch")
    async with story.books.transaction() as connection:
        await connection.execute("UPDATE journal_epoch SET state = 'open'")


async def test_a_home_that_forgot_a_statement_posts_it_again(story: Story, north: Box) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
        out = await paid(branch, BERT, BERT, 100, kind=3)
        more = await paid(branch, ANNA, BERT, 7)
    path = await story.closed(north)
    assert await story.hand_in(made, out) == ["taken", "taken"]
    await story.pass_window(path)
    dump = await tables_of(story)
    await story.stated(path)
    assert await story.hand_in(more) == ["late"]
    await story.done(story.second, f"{await drafted(story, path, more)}/approve", {})
    before = await story.where()
    assert before.loss == -7
    await put_back(story, dump)
    story.cloud.clock.wall_ms += 1_000
    await recall(story.cloud.cloud.shards)
    await story.cloud.cloud.refresh()
    assert await story.where() == before
    assert await story.online_of(BERT) == 107
    again = await story.successor(path, "north-again")
    async with again.running() as branch:
        await exchanged(branch)
        assert (balance(branch, ANNA), balance(branch, BERT)) == (700, 200)
    assert (await story.where()).offline == 900


TABLES = (
    "shard_message",
    "shard_taken",
    "ledger_account",
    "ledger_transfer",
    "note",
    "epoch_claim",
    "stated_epoch",
    "late_payment",
)


async def tables_of(story: Story) -> dict[str, list[Any]]:
    """What a statement writes where the journal lives."""
    async with story.books.transaction() as connection:
        return {name: await connection.fetch(f"SELECT * FROM {name}") for name in TABLES}


async def put_back(story: Story, dump: dict[str, list[Any]]) -> None:
    """That database is restored from a backup."""
    await emptied(story.books, *reversed(TABLES))
    async with story.books.transaction() as connection:
        await connection.execute("UPDATE journal_epoch SET stated_ms = NULL")
        for name, rows in dump.items():
            await connection.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
            for row in rows:
                places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
                await connection.execute(
                    f"INSERT INTO {name} OVERRIDING SYSTEM VALUE VALUES ({places})", *row
                )
            await connection.execute(f"ALTER TABLE {name} ENABLE TRIGGER USER")


async def test_a_head_that_forgot_where_a_journal_lives_finds_it(story: Story, north: Box) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
    await emptied(story.database, "journal_home")
    story.cloud.cloud.shards.homes._known.clear()
    await story.cloud.cloud.refresh()
    assert await story.hand_in(made) == ["taken"]
    path = await story.closed(north)
    await story.pass_window(path)
    assert (await story.stated(path))["counted"] == 1
