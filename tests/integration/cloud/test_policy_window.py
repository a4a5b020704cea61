"""The counter's window: chosen for the first policy, and changed later by two officers."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec
import pytest

from cloud.config import Config, IssuerConfig
from cloud.database import Database
from cloud.errors import CloudError
from cloud.issuer.policies import (
    DEFAULT_JOURNAL,
    VALID_MS,
    longest_window,
    next_policy,
    policy_in_force,
)
from cloud.policy_commands import approve_policy, draft_window, list_policies
from cloud.service import open_desk
from hsm import software
from hsm.keyfile import LIGHT
from tests.support.attested import Trust
from tests.support.cloud_local import NOW_MS, LocalCloud, local_cloud
from tests.support.tokens import closing
from wallet.protocol.policy import JournalLimit, Policy

DAY_S = 86_400
ENTRIES, SECONDS = JournalLimit.WINDOW_ENTRIES, JournalLimit.WINDOW_S


async def test_the_first_policy_has_the_window_of_the_configuration(
    database: Database, tmp_path: Path
) -> None:
    config = Config(folder=tmp_path, issuer=IssuerConfig(counter_window="long"))
    made = await software.create(tmp_path / "token", passphrase=b"words", cost=LIGHT)
    async with closing(made) as token:
        await open_desk(config, database, token, now_ms=NOW_MS)
    async with database.transaction() as c:
        policy = await policy_in_force(c, "EUR")
    assert (policy.journal[ENTRIES], policy.journal[SECONDS]) == (1_000_000, 3_600)


@pytest.mark.parametrize(
    ("changed", "detail"),
    [
        ({JournalLimit.CLAIMS_WINDOW_S: 35 * DAY_S - 1}, "lists are good for 3024000 s (108)"),
        ({JournalLimit.SANCTIONS_AGE_HARD_S: 36 * DAY_S}, "lists are good for 3110400 s (110)"),
        ({JournalLimit.REVOCATION_AGE_HARD_S: None}, "lists are good for no end (108)"),
    ],
)
async def test_a_claims_window_shorter_than_lists_are_good_is_not_published(
    database: Database, tmp_path: Path, changed: dict[int, int | None], detail: str
) -> None:
    limits = {int(code): limit for code, limit in {**DEFAULT_JOURNAL, **changed}.items()}
    journal = {str(code): limit for code, limit in limits.items() if limit is not None}
    async with (
        local_cloud(database, tmp_path) as cloud,
        cloud.api(await cloud.officer("first")) as first,
        cloud.api(await cloud.officer("second")) as second,
    ):
        body = {"draft_id": "1" * 64, "currency": "EUR", "tiers": {}}
        status, problem = await first.post("/v1/issuer/policies", {**body, "journal": journal})
        assert (status, problem["code"]) == (422, "claims-window-short")
        assert detail in problem["detail"]
        # A draft from before this was asked for is not signed either.
        good = {str(int(code)): limit for code, limit in DEFAULT_JOURNAL.items()}
        await first.post("/v1/issuer/policies", {**body, "journal": good})
        async with database.transaction() as connection:
            await connection.execute("DROP TRIGGER policy_draft_guard ON policy_draft")
            await connection.execute(
                "UPDATE policy_draft SET content = $1",
                msgspec.json.encode({"tiers": {}, "journal": journal}).decode(),
            )
        status, problem = await second.post(f"/v1/issuer/policies/{'1' * 64}/approve", {})
        assert (status, problem["code"]) == (422, "claims-window-short")


async def test_a_closure_waits_as_long_as_lists_of_older_policies_are_good(
    database: Database, tmp_path: Path
) -> None:
    async with local_cloud(database, tmp_path) as cloud:
        for window_s, age_s in ((None, None), (60, 60), (50, 40), (30, 20)):
            limits: dict[int, int] = {}
            if window_s is not None and age_s is not None:
                limits = {JournalLimit.CLAIMS_WINDOW_S: window_s}
                limits[JournalLimit.REVOCATION_AGE_HARD_S] = age_s
            async with database.transaction() as connection:
                await next_policy(
                    connection,
                    cloud.cloud.desk,
                    "EUR",
                    tiers={},
                    journal=limits,
                    actor="test",
                    now_ms=NOW_MS,
                )
        async with database.transaction() as connection:
            later_ms = NOW_MS + VALID_MS
            for now_ms, wanted in ((NOW_MS, 35 * DAY_S), (later_ms, 30)):
                assert await longest_window(connection, "EUR", now_ms=now_ms) == wanted
            assert await longest_window(connection, "CHF", now_ms=NOW_MS) is None


async def test_two_officers_change_the_window_and_nothing_else(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with local_cloud(database, tmp_path) as cloud:
        trust = await Trust.of(cloud)
        before = await policy_of(cloud)
        assert before.journal[ENTRIES] == 1_000
        config = cloud.cloud.config
        (config.folder / "transport-ca.pem").write_bytes(cloud.authority)
        first, second = tmp_path / "first", tmp_path / "second"
        first.write_text(trust.first)
        second.write_text(trust.second)
        drafting = argparse.Namespace(officer_file=first, currency="EUR", window="long")
        await draft_window(config, drafting)
        draft = capsys.readouterr().out.split()[1].rstrip(":")
        with pytest.raises(CloudError, match="four-eyes"):
            await approve_policy(config, argparse.Namespace(officer_file=first, draft=draft))
        await approve_policy(config, argparse.Namespace(officer_file=second, draft=draft))
        said = "EUR: signed as number 1, window of 1000000 entries or 3600 s"
        assert capsys.readouterr().out == said + "\n"
        await list_policies(config, drafting)
        assert capsys.readouterr().out == f"{draft}  {said}\n"
        after = await policy_of(cloud)
        assert after.tiers == before.tiers
        assert after.journal == {**before.journal, ENTRIES: 1_000_000}
        with pytest.raises(CloudError, match="policy-unknown"):
            await draft_window(
                config, argparse.Namespace(officer_file=first, currency="JPY", window="long")
            )


async def policy_of(cloud: LocalCloud) -> Policy:
    """The one in force."""
    async with cloud.cloud.database.transaction() as c:
        return await policy_in_force(c, "EUR")
