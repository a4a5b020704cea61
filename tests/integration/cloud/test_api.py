"""The API of officers and holders: who may what, under whose eyes, once for each key."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from cloud.database import Database
from cloud.http.app import BODY_BYTES_MAX
from cloud.http.octets import to_text
from cloud.http.wallets import TARGET_CONTEXT
from cloud.issuer.officers import Role
from tests.support.cloud_local import LocalCloud, NewGateway, local_cloud
from tests.support.cloud_process import Api
from tests.support.issuer import Key
from wallet.protocol.ids import journal_text, wallet_text


@pytest.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[LocalCloud]:
    """A cloud of two currencies."""
    async with local_cloud(database, tmp_path, currencies=("EUR", "CHF")) as opened:
        yield opened


@pytest.fixture
async def first(cloud: LocalCloud) -> AsyncIterator[Api]:
    """An officer."""
    async with cloud.api(await cloud.officer("first")) as api:
        yield api


@pytest.fixture
async def second(cloud: LocalCloud) -> AsyncIterator[Api]:
    """Another officer."""
    async with cloud.api(await cloud.officer("second")) as api:
        yield api


def identity() -> str:
    """A new one."""
    return secrets.token_hex(32)


async def holder(first: Api, name: str, *, currency: str = "EUR") -> str:
    """A holder with one wallet; the token."""
    body = {"holder": name, "wallet": f"{name}-{currency.lower()}", "currency": currency}
    status, made = await first.post("/v1/issuer/holders", body)
    assert status == 201
    token: str = made["token"]
    return token


async def issue(first: Api, second: Api, wallet: str, amount: int) -> None:
    """Value comes into the world."""
    body = {"draft_id": identity(), "action": "issue", "wallet": wallet, "amount": amount}
    status, draft = await first.post("/v1/issuer/supply", {**body, "reason": "test"})
    assert (status, draft["state"]) == (201, "draft")
    path = f"/v1/issuer/supply/{draft['draft_id']}/approve"
    status, posted = await second.post(path, {})
    assert (status, posted["state"]) == (201, "posted")


async def enrolled(cloud: LocalCloud, first: Api, name: str = "one") -> NewGateway:
    """A gateway."""
    body = {"name": name, "currency": "EUR", "tiers": [0, 1], "level": "software"}
    _, made = await first.post("/v1/issuer/gateways", body)
    gateway = NewGateway(name)
    assert (await gateway.enrol(cloud, made["token"]))[0] == 201
    return gateway


async def test_nobody_is_heard_without_a_token_that_is_known(cloud: LocalCloud) -> None:
    for token, code in ((None, "token-missing"), ("cbo_abc", "token-unknown")):
        async with cloud.api(token) as api:
            for path in ("/v1/issuer/account", "/v1/wallets"):
                status, problem = await api.get(path)
                assert (status, problem["code"]) == (401, code)
    async with cloud.api("cbo_" + "A" * 43) as api:
        status, problem = await api.get("/v1/wallets")
        assert (status, problem["code"]) == (401, "token-unknown")


async def test_an_officer_does_what_the_role_allows(cloud: LocalCloud) -> None:
    async with cloud.api(await cloud.officer("auditor", Role.AUDITOR)) as api:
        assert (await api.get("/v1/issuer/account"))[0] == 200
        status, page = await api.get("/v1/issuer/audit?after=0")
        assert (status, page["lines"][-1]["subject"]) == (200, "auditor")
        body = {"name": "one", "currency": "EUR", "tiers": [1]}
        status, problem = await api.post("/v1/issuer/gateways", body)
        assert (status, problem["code"]) == (403, "role-missing")
        draft = {"draft_id": identity(), "action": "issue", "wallet": "w", "amount": 1}
        status, problem = await api.post("/v1/issuer/supply", {**draft, "reason": "x"})
        assert (status, problem["code"]) == (403, "role-missing")


async def test_what_cannot_be_read_is_a_problem_and_never_a_trace(
    cloud: LocalCloud, first: Api
) -> None:
    for raw in (b"", b"{", b'{"holder":"a"}', b"[]", b"\xff", b'{"holder":1,"wallet":"w"}'):
        status, problem = await first.raw("POST", "/v1/issuer/holders", raw)
        assert (status, problem["code"]) == (400, "body-invalid")
    body = {"holder": "a", "wallet": "w", "currency": "EUR"}
    for changed in ({"more": 1}, {"holder": "a\x00"}, {"wallet": "w\n"}, {"currency": "EUR\n"}):
        status, problem = await first.post("/v1/issuer/holders", {**body, **changed})
        assert (status, problem["code"]) == (400, "body-invalid"), changed
    status, problem = await first.raw("POST", "/v1/issuer/holders", b" " * (BODY_BYTES_MAX + 1))
    assert (status, problem["code"]) == (413, "body-too-large")
    status, problem = await first.get("/v1/nothing")
    assert (status, problem["code"]) == (404, "route-unknown")
    status, problem = await first.raw("DELETE", "/v1/issuer/account", None)
    assert (status, problem["code"]) == (405, "method-not-allowed")
    for path in ("/v1/issuer/audit?after=x", "/v1/issuer/account?more=1"):
        status, problem = await first.get(path)
        assert (status, problem["code"]) == (422, "parameter-invalid")
    for path in ("supply/xyz/approve", "supply/abcd/approve", "wishes/-1/approve"):
        status, problem = await first.post(f"/v1/issuer/{path}", {})
        assert status in (400, 422)


async def test_a_key_does_its_work_once_and_is_of_one_body(first: Api) -> None:
    body = {"name": "gate", "currency": "EUR", "tiers": [1]}
    status, made = await first.post("/v1/issuer/gateways", body, key="k1")
    assert status == 201
    assert await first.post("/v1/issuer/gateways", body, key="k1") == (200, made)
    status, problem = await first.post("/v1/issuer/gateways", {**body, "tiers": [2]}, key="k1")
    assert (status, problem["code"]) == (422, "idempotency-conflict")
    status, problem = await first.post("/v1/issuer/gateways", body, key="k" * 129)
    assert (status, problem["code"]) == (400, "body-invalid")


async def test_supply_needs_two_officers(first: Api, second: Api) -> None:
    await holder(first, "bank")
    body = {"draft_id": identity(), "action": "issue", "wallet": "bank-eur", "amount": 500}
    _, draft = await first.post("/v1/issuer/supply", {**body, "reason": "test"})
    path = f"/v1/issuer/supply/{draft['draft_id']}"
    status, problem = await first.post(f"{path}/approve", {})
    assert (status, problem["code"]) == (403, "four-eyes")
    assert [d["draft_id"] for d in (await second.get("/v1/issuer/supply"))[1]["drafts"]] == [
        draft["draft_id"]
    ]
    assert (await second.post(f"{path}/reject", {}))[1]["state"] == "rejected"
    status, problem = await second.post(f"{path}/approve", {})
    assert (status, problem["code"]) == (409, "draft-decided")
    status, problem = await second.post(f"/v1/issuer/supply/{identity()}/approve", {})
    assert (status, problem["code"]) == (404, "draft-unknown")
    await issue(first, second, "bank-eur", 700)
    _, account = await first.get("/v1/issuer/account")
    assert (account["currencies"][0]["issued"], account["currencies"][0]["online"]) == (700, 700)


async def test_a_policy_is_signed_when_another_officer_approves(first: Api, second: Api) -> None:
    body: dict[str, Any] = {"currency": "EUR", "tiers": {"1": {"1": 100}}, "journal": {"101": 5}}
    draft, other = identity(), identity()
    status, made = await first.post("/v1/issuer/policies", {**body, "draft_id": draft})
    assert (status, made["state"], made["sequence"]) == (201, "draft", None)
    assert await first.post("/v1/issuer/policies", {**body, "draft_id": draft}) == (201, made)
    status, problem = await first.post(
        "/v1/issuer/policies", {**body, "draft_id": draft, "journal": {}}
    )
    assert (status, problem["code"]) == (409, "draft-conflict")
    path = f"/v1/issuer/policies/{draft}"
    for act in ("approve", "reject"):
        status, problem = await first.post(f"{path}/{act}", {})
        assert (status, problem["code"]) == (403, "four-eyes")
    status, made = await second.post(f"{path}/approve", {})
    assert (status, made["state"], made["sequence"]) == (201, "signed", 1)
    assert (await second.post(f"{path}/approve", {}))[1] == made
    status, problem = await second.post(f"{path}/reject", {})
    assert (status, problem["code"]) == (409, "draft-decided")
    await first.post("/v1/issuer/policies", {**body, "draft_id": other})
    for _ in range(2):
        rejected = (await second.post(f"/v1/issuer/policies/{other}/reject", {}))[1]
        assert (rejected["state"], rejected["sequence"]) == ("rejected", None)
    _, page = await first.get("/v1/issuer/policies")
    assert sorted(item["state"] for item in page["policies"]) == ["rejected", "signed"]
    for changed, code in (
        ({"tiers": {"1": {"99": 1}}}, "limit-unknown"),
        ({"journal": {"1": 1}}, "limit-unknown"),
    ):
        status, problem = await first.post(
            "/v1/issuer/policies", {**body, **changed, "draft_id": identity()}
        )
        assert (status, problem["code"]) == (422, code)
    unknown = identity()
    await first.post("/v1/issuer/policies", {**body, "draft_id": unknown, "currency": "USD"})
    status, problem = await second.post(f"/v1/issuer/policies/{unknown}/approve", {})
    assert (status, problem["code"]) == (404, "policy-unknown")
    status, problem = await second.post(f"/v1/issuer/policies/{identity()}/approve", {})
    assert (status, problem["code"]) == (404, "draft-unknown")


async def test_each_list_takes_items_of_its_own_form(cloud: LocalCloud, first: Api) -> None:
    wallet, journal = wallet_text(bytes(20)), journal_text(bytes(20))
    items: dict[str, dict[str, Any]] = {
        "journals": {"id": journal, "epoch": 1},
        "wallets": {"id": wallet},
        "categories": {"id": "5411", "set": 1},
        "sanctioned": {"id": "S1", "names": ["A B", "B A"]},
        "frozen": {"id": wallet},
        "certificates": {"id": "01ff"},
    }
    for name, item in items.items():
        path = f"/v1/issuer/lists/{name}"
        status, made = await first.post(path, {"add": [item]})
        assert (status, made["list"], made["sequence"], made["items"]) == (201, name, 1, 1)
        status, problem = await first.post(path, {"add": [item]})
        assert (status, problem["code"]) == (409, "list-unchanged")
        assert (await first.post(path, {"remove": [item]}))[1]["items"] == 0
    _, shown = await first.get("/v1/issuer/lists")
    assert [(item["list"], item["sequence"]) for item in shown["lists"]] == [
        (name, 2) for name in items
    ]
    status, problem = await first.post("/v1/issuer/lists/others", {"add": []})
    assert (status, problem["code"]) == (404, "list-unknown")
    for name, item in (
        ("journals", {"id": journal}),
        ("journals", {"id": wallet, "epoch": 1}),
        ("categories", {"id": "5411"}),
        ("categories", {"id": "54", "set": 1}),
        ("categories", {"id": "541x", "set": 1}),
        ("certificates", {"id": "xy"}),
        ("certificates", {"id": "00" * 21}),
        ("frozen", {"id": journal}),
    ):
        status, problem = await first.post(f"/v1/issuer/lists/{name}", {"add": [item]})
        assert (status, problem["code"]) == (400, "body-invalid")


async def test_a_holder_sees_and_moves_its_own_value_alone(
    cloud: LocalCloud, first: Api, second: Api
) -> None:
    alice, bob = await holder(first, "alice"), await holder(first, "bob")
    assert await holder(first, "alice") == alice
    await issue(first, second, "alice-eur", 1_000)
    async with cloud.api(alice) as api:
        body = {"identity": identity(), "payee": "bob-eur", "amount": 300, "reference": "rent"}
        status, made = await api.post("/v1/wallets/alice-eur/transfers", body)
        assert (status, made["finality"]) == (201, "final")
        assert (await api.get("/v1/wallets/alice-eur"))[1]["balance"] == 700
        assert [w["wallet"] for w in (await api.get("/v1/wallets"))[1]["wallets"]] == ["alice-eur"]
        status, page = await api.get("/v1/wallets/alice-eur/statement?limit=1")
        assert (page["lines"][0]["change"], page["lines"][0]["reference"]) == (-300, "rent")
        status, page = await api.get(
            f"/v1/wallets/alice-eur/statement?limit=5&cursor={page['cursor']}"
        )
        assert [(line["change"], line["kind"]) for line in page["lines"]] == [(1_000, "issue")]
        assert page["cursor"] is None
        status, problem = await api.post(
            "/v1/wallets/alice-eur/transfers", {**body, "identity": identity(), "amount": 701}
        )
        assert (status, problem["code"]) == (402, "insufficient-funds")
    async with cloud.api(bob) as api:
        for path in ("/v1/wallets/alice-eur", "/v1/wallets/nothing"):
            status, problem = await api.get(path)
            assert (status, problem["code"]) == (404, "unknown-wallet")
        status, problem = await api.get("/v1/issuer/account")
        assert (status, problem["code"]) == (401, "token-unknown")


async def test_value_goes_to_wallets_that_the_journal_knows_alone(
    cloud: LocalCloud, first: Api, second: Api
) -> None:
    gateway = await enrolled(cloud, first)
    bank = await holder(first, "bank")
    francs = await holder(first, "bank", currency="CHF")
    assert francs == bank
    await issue(first, second, "bank-eur", 1_000)
    key = Key("wallet").public
    body = {
        "funding_id": identity(),
        "journal": journal_text(gateway.journal),
        "offline_wallet": wallet_text(key.id),
        "amount": 400,
    }
    async with cloud.api(bank) as api:
        status, problem = await api.post("/v1/wallets/bank-eur/fundings", body)
        assert (status, problem["code"]) == (404, "unknown-wallet")
        enrolment = {"journal": body["journal"], "key": to_text(key.cose_key), "tier": 1}
        status, made = await first.post("/v1/issuer/enrolments", {**enrolment, "label": "a"})
        assert (status, made["wallet"]) == (201, body["offline_wallet"])
        status, made = await api.post("/v1/wallets/bank-eur/fundings", body)
        assert (status, made["state"]) == (201, "held")
        path = f"/v1/wallets/bank-eur/fundings/{body['funding_id']}"
        assert await api.get(path) == (200, made)
        status, problem = await api.get(path.replace("bank-eur", "bank-chf"))
        assert (status, problem["code"]) == (404, "unknown-funding")
        status, problem = await api.post("/v1/wallets/bank-chf/fundings", body)
        assert (status, problem["code"]) == (422, "wrong-currency")
        status, problem = await api.post(
            "/v1/wallets/bank-eur/fundings", {**body, "journal": journal_text(bytes(20))}
        )
        assert (status, problem["code"]) == (404, "gateway-unknown")
    status, page = await first.get("/v1/issuer/gateways")
    assert [item["journal"] for item in page["gateways"]] == [body["journal"]]
    assert await first.get("/v1/issuer/journals") == (200, {"journals": []})


async def test_redemptions_go_where_the_wallet_in_the_journal_consents(
    cloud: LocalCloud, first: Api
) -> None:
    key = Key("redeemer")
    alice, mallory = await holder(first, "alice"), await holder(first, "mallory")
    proof = key.sign(TARGET_CONTEXT + hashlib.sha256(b"alice-eur").digest())
    body = {"key": to_text(key.public.cose_key), "proof": to_text(proof)}
    async with cloud.api(mallory) as api:
        status, problem = await api.post("/v1/wallets/mallory-eur/redeem-target", body)
        assert (status, problem["code"]) == (422, "bad-signature")
    async with cloud.api(alice) as api:
        status, made = await api.post("/v1/wallets/alice-eur/redeem-target", body)
        assert (status, made["offline_wallet"]) == (201, wallet_text(key.public.id))
    hosted = {"offline_wallet": wallet_text(bytes(20)), "wallet": "alice-eur"}
    assert await first.post("/v1/issuer/redeem-targets", hosted) == (201, hosted)


async def test_two_currencies_are_exchanged_at_a_quote(
    cloud: LocalCloud, first: Api, second: Api
) -> None:
    for name in ("dealer", "alice"):
        token = await holder(first, name)
        await holder(first, name, currency="CHF")
    await issue(first, second, "alice-eur", 1_000)
    await issue(first, second, "dealer-chf", 5_000)
    offer = {"receives": "dealer-eur", "pays": "dealer-chf", "numerator": 95, "denominator": 100}
    offer |= {"valid_until_ms": cloud.clock.now_ms() + 60_000}
    assert (await first.post("/v1/issuer/offers", offer))[0] == 201
    async with cloud.api(token) as api:
        body = {"quote_id": identity(), "target": "alice-chf", "amount": 101}
        status, quote = await api.post("/v1/wallets/alice-eur/quotes", body)
        assert (status, quote["target_amount"], quote["remainder"]) == (201, 95, 95)
        path = f"/v1/wallets/alice-eur/quotes/{body['quote_id']}/accept"
        status, quote = await api.post(path, {})
        assert (status, quote["accepted_ms"]) == (201, cloud.clock.now_ms())
        assert (await api.get("/v1/wallets/alice-chf"))[1]["balance"] == 95


async def test_the_description_is_openapi_and_health_needs_no_token(cloud: LocalCloud) -> None:
    async with cloud.api() as api:
        status, description = await api.get("/v1/openapi.json")
        assert status == 200
        validate(description)
        assert (await api.get("/healthz"))[1] == {"status": "alive"}
        assert (await api.get("/readyz"))[1] == {"status": "ready"}
        assert (await api.get("/statusz"))[1]["currencies"] == []
    async with cloud.api() as api, api.session.get("/metrics") as response:
        assert b"cbdc_gateways 0.0" in await response.read()


async def test_a_database_that_is_gone_is_said_to_be(cloud: LocalCloud) -> None:
    await cloud.cloud.database.close()
    async with cloud.api() as api, api.session.get("/readyz") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "2")
        assert json.loads(await response.read())["code"] == "database-unavailable"
