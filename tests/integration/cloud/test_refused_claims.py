"""A claim that officers refuse does not count, and stays as evidence."""

from __future__ import annotations

import secrets
from typing import Any

from tests.support.cloud_commands import Commands
from tests.support.recovery import ANNA, BERT, CARA, Box, Story, exchanged, paid, redeemed
from wallet.journal import Receipted
from wallet.protocol.merkle import leaf_hash


def body(made: Receipted, **changed: Any) -> dict[str, Any]:
    """What an officer proposes."""
    claim = leaf_hash(made.entry).hex()
    return {"draft_id": secrets.token_hex(32), "claim": claim, "reason": "forged", **changed}


async def refuse(story: Story, path: str, made: Receipted) -> None:
    """Two officers refuse a claim."""
    draft = body(made)
    await story.done(story.first, f"{path}/refusals", draft)
    one = f"/v1/issuer/refusals/{draft['draft_id']}/approve"
    assert await story.refused(story.first, one, {}) == "four-eyes"
    for _ in range(2):
        assert (await story.done(story.second, one, {}))["state"] == "approved"


async def test_a_refused_claim_moves_nothing_and_stays_as_evidence(
    story: Story, north: Box
) -> None:
    async with north.running(offline=True) as branch:
        good = await paid(branch, ANNA, BERT, 300)
        bad = await paid(branch, ANNA, BERT, 200)
    path = await story.closed(north)
    assert await story.hand_in(good, bad, good) == ["taken", "taken", "known"]
    await story.pass_window(path)
    before = await story.statement_draft(path)
    assert (before["counted"], before["carried"]) == (2, 1_000)
    await refuse(story, path, bad)
    # What the first draft said is not what it comes to now.
    stale = f"/v1/issuer/statements/{before['statement_id']}/approve"
    assert await story.refused(story.second, stale, {}) == "draft-stale"
    made = await story.stated(path, hosted="everybody")
    assert (made["counted"], made["refused"], made["paid_out"]) == (1, 1, 1_000)
    assert (await story.online_of(ANNA), await story.online_of(BERT)) == (700, 300)
    found = await story.where()
    assert (found.offline, found.loss) == (0, 0)
    async with story.books.transaction() as connection:
        row = await connection.fetchrow(
            "SELECT code, epoch_claim.entry, receipt FROM epoch_claim"
            " JOIN collected_receipt USING (index, leaf) WHERE leaf = $1",
            leaf_hash(bad.entry),
        )
    assert tuple(row) == ("claim-refused", bad.entry, bad.receipt)
    assert await story.refused(story.first, f"{path}/refusals", body(good)) == "closure-stated"


async def test_a_refused_note_that_was_redeemed_is_the_issuer_s_loss(
    story: Story, north: Box, south: Box
) -> None:
    async with north.running(offline=True) as branch:
        note = await paid(branch, ANNA, CARA, 200, payee_journal=south.journal)
    async with south.running() as branch:
        await redeemed(branch, note)
        await exchanged(branch)
    path = await story.closed(north)
    await story.pass_window(path)
    await refuse(story, path, note)
    made = await story.stated(path)
    # The payer keeps what the claim would have taken, and the payee what was redeemed.
    assert (made["carried"], made["borne"], made["refused"]) == (1_000, 200, 1)
    found = await story.where()
    assert (found.offline, found.suspense, found.loss) == (1_200, 0, -200)


async def test_what_cannot_be_refused_is_named(story: Story, north: Box) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
    drafted = await story.drafted(north)
    assert await story.refused(story.first, f"{drafted}/refusals", body(made)) == "closure-open"
    await story.done(story.second, f"{drafted}/approve", {})
    path = f"{drafted}/refusals"
    assert await story.refused(story.first, path, body(made)) == "claim-unknown"
    await story.hand_in(made)
    draft = body(made)
    assert (await story.done(story.first, path, draft))["state"] == "draft"
    assert await story.refused(story.first, path, {**draft, "reason": "x"}) == "draft-conflict"
    one = f"/v1/issuer/refusals/{draft['draft_id']}"
    assert (await story.done(story.second, f"{one}/reject", {}))["state"] == "rejected"
    assert await story.refused(story.second, f"{one}/approve", {}) == "draft-decided"
    unknown = f"/v1/issuer/closures/{'6' * 64}/refusals"
    assert await story.refused(story.first, unknown, body(made)) == "closure-unknown"
    _, page = await story.first.get(f"{drafted}/claims")
    assert [line["code"] for line in page["claims"]] == [None]


async def test_two_officers_refuse_a_claim_by_commands(story: Story, north: Box) -> None:
    async with north.running(offline=True) as branch:
        made = await paid(branch, ANNA, BERT, 300)
    path = await story.closed(north)
    await story.hand_in(made)
    commands = await Commands.by(story.cloud, "ada", "bob")
    closure, claim = path.rpartition("/")[2], leaf_hash(made.entry).hex()
    out = await commands.typed("ada", "gateway", "claims", closure)
    assert f"300  counts  {claim}" in out
    out = await commands.typed("ada", "gateway", "refuse", closure, claim, "--reason", "forged")
    draft = out.split()[1].rstrip(":")
    out = await commands.typed("bob", "gateway", "approve-refusal", draft)
    assert out == f"claim {claim}: refused\n"
    out = await commands.typed("bob", "gateway", "refusals", closure)
    assert out == f"{draft}  claim {claim}  approved  forged\n"
    await story.pass_window(path)
    out = await commands.typed("ada", "gateway", "statement", closure, "--hosted", "carry")
    statement = out.split()[1].rstrip(":")
    assert "claims: 0 count, 1 do not" in out
    out = await commands.typed("bob", "gateway", "judged", statement)
    assert f"300  refused: claim-refused  {claim}" in out
    out = await commands.typed("bob", "gateway", "sign", statement)
    assert out == "carried 1000, borne 0: signed\n"
