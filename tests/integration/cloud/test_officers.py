"""Officers come, change and get new tokens by two administrators: one alone gets nowhere."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from cloud.database import Database
from cloud.errors import CloudError
from cloud.issuer.officers import Role, new_token, token_hash
from tests.support.cloud_commands import Commands
from tests.support.cloud_local import LocalCloud, local_cloud
from tests.support.cloud_process import Api

OFFICERS = "/v1/issuer/officers"


@pytest.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[LocalCloud]:
    """A cloud."""
    async with local_cloud(database, tmp_path) as opened:
        yield opened


@pytest.fixture
async def ada(cloud: LocalCloud) -> AsyncIterator[Api]:
    """An administrator."""
    async with cloud.api(await cloud.officer("ada", Role.ADMIN, Role.SUPPLY)) as api:
        yield api


@pytest.fixture
async def bob(cloud: LocalCloud) -> AsyncIterator[Api]:
    """Another one."""
    async with cloud.api(await cloud.officer("bob", Role.ADMIN)) as api:
        yield api


def made_token() -> tuple[str, str]:
    """A token that an officer makes, and its hash."""
    token = new_token(secrets.token_bytes)
    return token, token_hash(token).hex()


def order(name: str, *roles: str, token: str | None = None) -> dict[str, Any]:
    """What an administrator drafts."""
    body = {"draft_id": secrets.token_hex(32), "name": name, "roles": list(roles)}
    return body if token is None else {**body, "token_hash": token}


async def drafted(api: Api, body: dict[str, Any]) -> str:
    """The path of a draft."""
    status, made = await api.post(OFFICERS, body)
    assert (status, made["state"]) == (201, "draft"), made
    return f"{OFFICERS}/{body['draft_id']}"


async def refused(api: Api, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """Status and code of what must be refused."""
    status, problem = await api.post(path, body or {})
    return status, problem["code"]


async def test_an_officer_comes_by_two_administrators_and_keeps_the_token(
    cloud: LocalCloud, ada: Api, bob: Api
) -> None:
    token, hashed = made_token()
    path = await drafted(ada, order("eve", "supply", token=hashed))
    async with cloud.api(token) as eve:
        assert (await eve.get("/v1/issuer/account"))[0] == 401
        assert await refused(ada, f"{path}/approve") == (403, "four-eyes")
        assert await refused(ada, f"{path}/reject") == (403, "four-eyes")
        _, shown = await bob.get(OFFICERS)
        assert [(d["name"], d["roles"], d["token_hash"]) for d in shown["drafts"]] == [
            ("eve", ["supply"], hashed)
        ]
        status, made = await bob.post(f"{path}/approve", {})
        # No answer shows a token: nobody has one that is another person's.
        assert (status, made["state"], "token" in made) == (201, "approved", False)
        assert (await bob.post(f"{path}/approve", {}))[1] == made
        assert (await eve.get("/v1/issuer/account"))[0] == 200
    _, shown = await bob.get(OFFICERS)
    assert [officer["name"] for officer in shown["officers"]] == ["ada", "bob", "eve"]
    assert shown["drafts"] == []


async def test_one_administrator_alone_issues_no_money(
    cloud: LocalCloud, ada: Api, bob: Api
) -> None:
    # Ada has the supply herself and drafts two more officers whose tokens are hers.
    for name in ("one", "two"):
        token, hashed = made_token()
        path = await drafted(ada, order(name, "supply", "admin", token=hashed))
        async with cloud.api(token) as made:
            for api in (ada, made):
                assert (await api.post(f"{path}/approve", {}))[0] in (401, 403)
    # Nor does she take over the other administrator's name.
    token, hashed = made_token()
    path = await drafted(ada, order("bob", "admin", "supply", token=hashed))
    assert await refused(ada, f"{path}/approve") == (403, "four-eyes")
    async with cloud.api(token) as api:
        assert (await api.get("/v1/issuer/account"))[0] == 401
    assert (await bob.get("/v1/issuer/account"))[0] == 200


async def test_roles_and_tokens_change_by_two_administrators(
    cloud: LocalCloud, ada: Api, bob: Api
) -> None:
    old = await cloud.officer("eve", Role.AUDITOR)
    path = await drafted(ada, order("eve", "lists"))
    assert (await bob.post(f"{path}/approve", {}))[0] == 201
    async with cloud.api(old) as eve:
        status, problem = await eve.get("/v1/issuer/audit")
        assert (status, problem["code"]) == (403, "role-missing")
        token, hashed = made_token()
        path = await drafted(bob, order("eve", "lists", token=hashed))
        assert (await ada.post(f"{path}/approve", {}))[0] == 201
        assert (await eve.get("/v1/issuer/lists"))[0] == 401
    async with cloud.api(token) as eve:
        assert (await eve.get("/v1/issuer/lists"))[0] == 200


async def test_a_draft_is_decided_once_and_its_identity_is_of_one_content(
    ada: Api, bob: Api
) -> None:
    _, hashed = made_token()
    body = order("eve", "lists", token=hashed)
    path = await drafted(ada, body)
    assert await drafted(ada, body) == path
    for api, changed in ((ada, {"roles": ["admin"]}), (bob, {})):
        answer = await refused(api, OFFICERS, {**body, **changed})
        assert answer == (409, "draft-conflict")
    for _ in range(2):
        assert (await bob.post(f"{path}/reject", {}))[1]["state"] == "rejected"
    assert await refused(bob, f"{path}/approve") == (409, "draft-decided")
    assert await refused(bob, f"{OFFICERS}/{'0' * 64}/approve") == (404, "draft-unknown")


async def test_what_cannot_be_an_officer_is_refused(cloud: LocalCloud, ada: Api, bob: Api) -> None:
    assert await refused(ada, OFFICERS, order("eve", "king")) == (400, "body-invalid")
    assert await refused(ada, OFFICERS, order("eve", "lists")) == (422, "officer-token-missing")
    token = await cloud.officer("eve", Role.LISTS)
    path = await drafted(ada, order("new", "lists", token=token_hash(token).hex()))
    assert await refused(bob, f"{path}/approve") == (409, "token-known")
    gone = {"draft_id": secrets.token_hex(32), "name": "eve"}
    assert (await bob.post(f"{OFFICERS}/disable", gone))[0] == 201
    assert (await ada.post(f"{OFFICERS}/{gone['draft_id']}/approve", {}))[0] == 201
    path = await drafted(ada, order("eve", "lists"))
    assert await refused(bob, f"{path}/approve") == (409, "officer-disabled")
    async with cloud.api(token) as eve:
        assert (await eve.post(OFFICERS, order("x", "lists")))[0] == 401


async def test_an_officer_is_disabled_by_two_administrators(
    cloud: LocalCloud, ada: Api, bob: Api
) -> None:
    token = await cloud.officer("eve", Role.ADMIN, Role.LISTS)
    body = {"draft_id": secrets.token_hex(32), "name": "eve"}
    path = f"{OFFICERS}/{body['draft_id']}"
    unknown = {"draft_id": secrets.token_hex(32), "name": "nobody"}
    assert await refused(ada, f"{OFFICERS}/disable", unknown) == (404, "officer-unknown")
    async with cloud.api(token) as eve:
        status, made = await ada.post(f"{OFFICERS}/disable", body)
        assert (status, made["disabled"], made["roles"]) == (201, True, [])
        # As long as another one has not approved it, nothing has changed.
        assert (await eve.get(OFFICERS))[0] == 200
        assert await refused(ada, f"{path}/approve") == (403, "four-eyes")
        assert await refused(ada, f"{OFFICERS}/disable", {**body, "name": "bob"}) == (
            409,
            "draft-conflict",
        )
        for _ in range(2):
            status, made = await bob.post(f"{path}/approve", {})
            assert (status, made["state"]) == (201, "approved")
        assert (await eve.get(OFFICERS))[0] == 401
    _, shown = await bob.get(OFFICERS)
    assert [officer["name"] for officer in shown["officers"]] == ["ada", "bob"]
    # For ever: nobody comes back by another draft, and nobody is disabled twice.
    again = {"draft_id": secrets.token_hex(32), "name": "eve"}
    assert (await ada.post(f"{OFFICERS}/disable", again))[0] == 201
    path = f"{OFFICERS}/{again['draft_id']}"
    assert await refused(bob, f"{path}/approve") == (409, "officer-disabled")
    # Two administrators have to remain.
    last = {"draft_id": secrets.token_hex(32), "name": "bob"}
    assert (await ada.post(f"{OFFICERS}/disable", last))[0] == 201
    path = f"{OFFICERS}/{last['draft_id']}"
    assert await refused(bob, f"{path}/approve") == (409, "admins-too-few")


async def test_only_administrators_disable(cloud: LocalCloud, ada: Api) -> None:
    roles = [role for role in Role if role is not Role.ADMIN]
    body = {"draft_id": secrets.token_hex(32), "name": "ada"}
    async with cloud.api(await cloud.officer("eve", *roles)) as eve:
        assert await refused(eve, f"{OFFICERS}/disable", body) == (403, "role-missing")


async def test_two_administrators_disable_by_commands(cloud: LocalCloud) -> None:
    commands = await Commands.by(cloud, "ada", "bob", "eve")
    out = await commands.typed("ada", "issuer", "disable", "--name", "eve")
    draft = out.split()[1].rstrip(":")
    assert f"draft {draft}: eve: disabled\n" in await commands.typed("bob", "issuer", "officers")
    out = await commands.typed("bob", "issuer", "approve-officer", draft)
    assert out == "eve: disabled\n"
    with pytest.raises(CloudError, match="token-unknown"):
        await commands.typed("eve", "issuer", "officers")


async def test_two_administrators_always_remain(cloud: LocalCloud, ada: Api, bob: Api) -> None:
    paths = [
        (await drafted(ada, order("bob", "lists")), bob),
        (await drafted(bob, order("ada", "lists")), ada),
    ]
    for path, api in paths:
        assert await refused(api, f"{path}/approve") == (409, "admins-too-few")
    await cloud.officer("eve", Role.ADMIN)
    # Both at once: one of them finds that the other came first.
    answers = await asyncio.gather(*(api.post(f"{path}/approve", {}) for path, api in paths))
    assert sorted(status for status, _ in answers)[0] == 201
    assert sorted(status for status, _ in answers)[1] in (403, 409)


async def test_only_administrators_see_and_draft_officers(cloud: LocalCloud) -> None:
    roles = [role for role in Role if role is not Role.ADMIN]
    async with cloud.api(await cloud.officer("eve", *roles)) as eve:
        assert (await eve.get(OFFICERS))[0] == 403
        assert await refused(eve, OFFICERS, order("x", "admin")) == (403, "role-missing")


async def test_postgresql_holds_the_rule_of_four_eyes_as_well(cloud: LocalCloud, ada: Api) -> None:
    await drafted(ada, order("eve", "supply", token=made_token()[1]))
    for change in (
        "state = 'approved', decided_by = drafted_by, decided_ms = 1",
        "roles = ARRAY['admin']",
    ):
        with pytest.raises(asyncpg.PostgresError):
            async with cloud.cloud.database.transaction() as connection:
                await connection.execute(f"UPDATE officer_draft SET {change}")
