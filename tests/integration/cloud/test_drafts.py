"""Drafts of every kind: proposed by one officer, decided by another, once and in time."""

from __future__ import annotations

import json

import pytest

from cloud.database import Connection, Database
from cloud.errors import IssuerError
from cloud.issuer import drafts, officer_drafts, policy_drafts, supply
from cloud.issuer.officer_drafts import OfficerOrder
from cloud.issuer.officers import Officer, Role, add_officer, new_token
from cloud.issuer.policy_drafts import PolicyContent
from cloud.issuer.supply import SupplyAction, SupplyOrder
from cloud.recovery import closures, statements
from cloud.shards.homes import Site
from cloud.wallets import open_wallet
from tests.support.recovery import Box, Story
from tests.support.world import NOW_MS

IDENTITY = bytes(32)
LATE_MS = NOW_MS + drafts.EXPIRY_MS + 1


async def officer(connection: Connection, name: str) -> Officer:
    """An officer with every role."""
    token = new_token(lambda length: name.encode().ljust(length, b"."))
    return await add_officer(
        connection, name=name, roles=tuple(Role), token=token, actor="test", now_ms=NOW_MS
    )


async def test_a_draft_that_nobody_decided_in_time_is_drafted_anew(database: Database) -> None:
    async with database.transaction() as connection:
        ada, bob = await officer(connection, "ada"), await officer(connection, "bob")
        await open_wallet(connection, "bank", holder="bank", currency="EUR", now_ms=NOW_MS)
        order = SupplyOrder(
            draft_id=IDENTITY, action=SupplyAction.ISSUE, wallet="bank", amount=5, reason="test"
        )
        await supply.draft_supply(connection, order, officer=ada, now_ms=NOW_MS)
        named = OfficerOrder(
            draft_id=IDENTITY, name="eve", roles=frozenset({Role.LISTS}), token_hash=bytes(32)
        )
        await officer_drafts.draft_officer(connection, named, officer=ada, now_ms=NOW_MS)
        with pytest.raises(IssuerError, match="draft-expired"):
            await supply.approve_supply(connection, IDENTITY, officer=bob, now_ms=LATE_MS)
        with pytest.raises(IssuerError, match="draft-expired"):
            await officer_drafts.approve_officer(connection, IDENTITY, officer=bob, now_ms=LATE_MS)
        # At the last moment it counts; and rejecting it is never too late.
        made = await supply.approve_supply(
            connection, IDENTITY, officer=bob, now_ms=NOW_MS + drafts.EXPIRY_MS
        )
        assert made.state is supply.SupplyState.POSTED
        # What was approved in time stays so, whenever that is said again.
        again = await supply.approve_supply(connection, IDENTITY, officer=bob, now_ms=LATE_MS)
        assert again == made
        for _ in range(2):
            gone = await officer_drafts.reject_officer(
                connection, IDENTITY, officer=bob, now_ms=LATE_MS
            )
        assert gone.state is officer_drafts.OfficerState.REJECTED


async def test_the_same_policy_in_another_order_is_the_same_draft(database: Database) -> None:
    async with database.transaction() as connection:
        ada = await officer(connection, "ada")
        for codes in ((1, 4), (4, 1)):
            made = await policy_drafts.draft_policy(
                connection,
                draft_id=IDENTITY,
                currency="EUR",
                content=PolicyContent(tiers={0: dict.fromkeys(codes, 7)}, journal={}),
                officer=ada,
                now_ms=NOW_MS,
            )
        assert await policy_drafts.list_drafts(connection) == [made]
        with pytest.raises(IssuerError, match="draft-conflict"):
            await policy_drafts.draft_policy(
                connection,
                draft_id=IDENTITY,
                currency="CHF",
                content=made.content,
                officer=ada,
                now_ms=NOW_MS,
            )


async def test_who_may_not_decide_decides_nothing_and_what_was_done_is_in_the_log(
    story: Story, north: Box
) -> None:
    path = await story.closed(north)
    await story.pass_window(path)
    draft = await story.statement_draft(path)
    one, closure = bytes.fromhex(draft["statement_id"]), bytes.fromhex(draft["closure_id"])
    now_ms = story.cloud.clock.now_ms()
    async with story.database.transaction() as connection:
        rows = await connection.fetch(
            "SELECT action, detail, officer_id FROM audit_log JOIN officer ON name = actor"
            " WHERE action LIKE 'closure.%' OR action LIKE 'statement.%' ORDER BY sequence"
        )
        site = Site.alone(connection)
        for number, roles, code in (
            (10**6, (), "role-missing"),
            (rows[-1]["officer_id"], Role, "four-eyes"),
        ):
            who = Officer(officer_id=number, name="one", roles=frozenset(roles))
            with pytest.raises(IssuerError, match=code):
                await statements.reject_statement(site, one, officer=who, now_ms=now_ms)
            with pytest.raises(IssuerError, match=code):
                await closures.reject_closure(
                    site, story.cloud.cloud.desk, closure, officer=who, now_ms=now_ms
                )
    assert [row["action"] for row in rows] == [
        "closure.draft",
        "closure.approve",
        "statement.draft",
    ]
    assert json.loads(rows[-1]["detail"])["statement"] == draft["statement_id"]
