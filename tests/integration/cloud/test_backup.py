"""A cloud that is restored from an older backup: journals tell it again what it has forgotten.

What cannot come back by itself is who paid online for a grant that was made after the backup. That
value is in a journal, rightly; it stands in suspense, beside the grant, until a person finds the
holder. Nothing is created or lost without a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.http.octets import to_text
from edge.pos.purse import DeviceKey
from tests.support.cloud_branch import (
    FUNDS,
    MERCHANT,
    Funded,
    check_books,
    copy_database,
    database_of,
    done,
    funded_branch,
    identity,
    restore_database,
)
from tests.support.cloud_process import running_cloud
from wallet.protocol.ids import WalletId, journal_text
from wallet.protocol.lists import ListId

HELD, LOST, LATER = 500, 700, 300
NEWCOMER = DeviceKey(b"\x03" * 32)


async def sign_policy(made: Funded) -> None:
    """The next policy, by two officers."""
    limits = {str(MERCHANT): {"1": 5_000_000}}
    draft = {"draft_id": identity(), "currency": "EUR", "tiers": limits, "journal": {}}
    async with made.cloud.api(made.cloud.officer("first")) as first:
        await done(first, "/v1/issuer/policies", draft)
    async with made.cloud.api(made.cloud.officer("second")) as second:
        await done(second, f"/v1/issuer/policies/{draft['draft_id']}/approve", {})


async def decide(made: Funded) -> None:
    """Officers sanction somebody, sign a policy, and enrol a wallet: all after the backup."""
    await sign_policy(made)
    async with made.cloud.api(made.cloud.officer("first")) as first:
        await done(first, "/v1/issuer/lists/sanctioned", {"add": [{"id": "S1", "names": ["X Y"]}]})
        body = {
            "journal": journal_text(made.journal.state.journal),
            "key": to_text(NEWCOMER.public.cose_key),
            "tier": MERCHANT,
        }
        await done(first, "/v1/issuer/enrolments", body)
    await made.synchronise()
    state = made.journal.state
    assert NEWCOMER.public.id in state.wallets and state.policy.sequence == 1
    assert state.lists[ListId.SANCTIONED].items == {"S1"}


async def shown(made: Funded, path: str) -> Any:
    """What an officer sees."""
    async with made.cloud.api(made.cloud.officer("first")) as first:
        status, value = await first.get(path)
    assert status == 200, value
    return value


async def events(made: Funded) -> list[str]:
    """Names of the branch's events."""
    stored = made.branch.opened.events
    await stored.flush()
    return [event.name for event in await stored.after(0, limit=10_000)]


async def test_a_restored_cloud_learns_what_it_forgot_and_says_what_it_cannot_learn(
    tmp_path: Path,
) -> None:
    async with (
        running_cloud(tmp_path / "cloud") as cloud,
        funded_branch(cloud, tmp_path / "one") as made,
    ):
        await made.pay(*range(1, 21))
        await made.synchronise()
        await made.fund(HELD)
        assert await cloud.stop() == 0
        await copy_database(cloud, tmp_path / "backup")
        await cloud.start()

        # Granted after the backup: of value that the backup knows to be held, and of other value.
        await made.synchronise()
        await made.fund(LOST)
        await decide(made)
        await made.pay(*range(21, 41))
        await made.synchronise()
        funds = FUNDS + HELD + LOST
        assert made.balance(made.payer) == funds - sum(range(1, 41))
        acknowledged = made.journal.acknowledged

        assert await cloud.stop() == 0
        await restore_database(cloud, tmp_path / "backup")
        await cloud.start()
        await made.pay(*range(41, 51))
        assert "sync.rewound" not in await events(made)
        await made.synchronise()
        assert (await events(made)).count("sync.rewound") == 1
        assert made.journal.acknowledged > acknowledged
        await check_books(made, size=made.journal.acknowledged, suspense=-LOST)
        assert made.balance(made.payer) == funds - sum(range(1, 51))
        assert made.journal.state.settled_size > acknowledged

        # What it cannot know is told: one grant, of an unknown payer.
        (journal,) = (await shown(made, "/v1/issuer/journals"))["journals"]
        assert (journal["state"], journal["lost_grants"]) == ("open", 1)
        async with database_of(cloud) as connection:
            row = await connection.fetchrow("SELECT sequence, amount FROM lost_grant")
            assert tuple(row) == (2, LOST)
            told = "SELECT count(*) FROM outbox WHERE topic = 'grant.lost'"
            assert await connection.fetchval(told) == 1

        await _check_goes_on(made, funds - sum(range(1, 51)))


async def _check_goes_on(made: Funded, balance: int) -> None:
    """New value comes in, and what officers decided after the backup is still in force."""
    await made.fund(LATER)
    await made.synchronise()
    assert made.balance(made.payer) == balance + LATER
    await check_books(made, size=made.journal.acknowledged, suspense=-LOST)
    lists = {item["list"]: item for item in (await shown(made, "/v1/issuer/lists"))["lists"]}
    held = made.journal.state.lists[ListId.SANCTIONED]
    assert (held.items, held.sequence) == ({"S1"}, lists["sanctioned"]["sequence"])
    async with made.cloud.api(made.cloud.officer("first")) as first:
        await done(first, "/v1/issuer/lists/sanctioned", {"add": [{"id": "S2", "names": ["Z"]}]})
    await sign_policy(made)
    await made.synchronise()
    assert made.journal.state.lists[ListId.SANCTIONED].items == {"S1", "S2"}
    assert made.journal.state.policy.sequence == 2
    body = {
        "funding_id": identity(),
        "journal": journal_text(made.journal.state.journal),
        "offline_wallet": NEWCOMER.text,
        "amount": LATER,
    }
    async with made.cloud.api(made.holder) as api:
        await done(api, "/v1/wallets/bank-eur/fundings", body)
    await made.synchronise()
    assert made.journal.state.wallets[WalletId(NEWCOMER.public.id)].settled == LATER
