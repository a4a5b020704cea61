"""The counter's window: chosen for the first policy, and changed later by two officers."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cloud.config import Config, IssuerConfig
from cloud.database import Database
from cloud.errors import CloudError
from cloud.issuer.policies import policy_in_force
from cloud.policy_commands import approve_policy, draft_window, list_policies
from cloud.service import open_desk
from hsm import software
from hsm.keyfile import LIGHT
from tests.support.attested import Trust
from tests.support.cloud_local import NOW_MS, LocalCloud, local_cloud
from tests.support.tokens import closing
from wallet.protocol.policy import JournalLimit, Policy

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
