"""How the API cares for itself: what it keeps, forgets, renews, records and does not wait for."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.client import Api
from cloud.commands import gateway_list
from cloud.database import Database
from cloud.errors import CloudError, ConfigError, DatabaseError
from cloud.http.answers import KEPT_MS
from cloud.http.app import answer, application
from cloud.http.routes import TRIES_MAX, Call, Route, add_routes, read_body
from cloud.http.types import Nothing
from cloud.issuer.profiles import SERVER_MS
from tests.support.cloud_local import LocalCloud, NewGateway, local_cloud
from tests.support.cloud_process import Api as Caller
from wallet.protocol.ids import wallet_text


@pytest.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[LocalCloud]:
    """A cloud of two currencies."""
    async with local_cloud(database, tmp_path, currencies=("EUR", "CHF")) as opened:
        yield opened


@pytest.fixture
async def first(cloud: LocalCloud) -> AsyncIterator[Caller]:
    """An officer."""
    async with cloud.api(await cloud.officer("first")) as api:
        yield api


async def holder(first: Caller, name: str, *, currency: str = "EUR") -> str:
    """A holder with one wallet; the token."""
    body = {"holder": name, "wallet": f"{name}-{currency.lower()}", "currency": currency}
    status, made = await first.post("/v1/issuer/holders", body)
    assert status == 201
    token: str = made["token"]
    return token


async def test_a_stored_answer_shows_no_token_and_is_forgotten(
    cloud: LocalCloud, first: Caller
) -> None:
    body = {"holder": "bank", "wallet": "bank-eur", "currency": "EUR"}
    _, made = await first.post("/v1/issuer/holders", body, key="k1")
    assert await first.post("/v1/issuer/holders", body, key="k1") == (200, made)
    async with cloud.cloud.database.transaction() as c:
        (stored,) = [row["answer"] for row in await c.fetch("SELECT answer FROM api_answer")]
    assert made["token"].encode() not in stored
    for wait_ms, left in ((0, 1), (KEPT_MS + 1, 0)):
        cloud.clock.wall_ms += wait_ms
        await cloud.cloud.refresh()
        async with cloud.cloud.database.transaction() as c:
            assert await c.fetchval("SELECT count(*) FROM api_answer") == left


async def test_what_officers_open_is_in_the_audit_log(first: Caller) -> None:
    await holder(first, "bank")
    hosted = {"offline_wallet": wallet_text(bytes(20)), "wallet": "bank-eur"}
    await first.post("/v1/issuer/redeem-targets", hosted)
    _, page = await first.get("/v1/issuer/audit")
    acts = [(line["actor"], line["action"], line["subject"]) for line in page["lines"][-2:]]
    assert acts == [
        ("first", "holder.open", "bank-eur"),
        ("first", "redeem-target.set", wallet_text(bytes(20))),
    ]


async def test_the_servers_certificate_is_renewed_while_it_serves(cloud: LocalCloud) -> None:
    async def shown() -> bytes:
        port = cloud.ports["api_port"]
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    before = await shown()
    await cloud.cloud.refresh()
    assert await shown() == before
    cloud.clock.wall_ms += SERVER_MS - 1
    await cloud.cloud.refresh()
    assert await shown() != before


async def test_a_gateway_is_of_a_currency_with_a_policy(first: Caller) -> None:
    body = {"name": "gate", "currency": "USD", "tiers": [1]}
    status, problem = await first.post("/v1/issuer/gateways", body)
    assert (status, problem["code"]) == (404, "policy-unknown")


async def test_nobody_is_waited_for_who_sends_a_body_slowly() -> None:
    async def take(request: web.Request) -> web.Response:
        await read_body(request, within_s=0.05)
        return answer(len(await request.read()))

    app = application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
    async with asyncio.timeout(20):
        assert b" 408 " in await reader.readline()
    writer.close()
    await runner.cleanup()


async def test_a_quote_is_accepted_at_a_wallet_of_the_caller(
    cloud: LocalCloud, first: Caller
) -> None:
    token = await holder(first, "alice")
    await holder(first, "bob")
    async with cloud.api(token) as api:
        path = f"/v1/wallets/bob-eur/quotes/{secrets.token_hex(32)}/accept"
        status, problem = await api.post(path, {})
        assert (status, problem["code"]) == (404, "unknown-wallet")
        status, problem = await api.post(path.replace("bob", "alice"), {})
        assert (status, problem["code"]) == (404, "unknown-quote")


async def test_work_that_was_in_anothers_way_is_done_again(cloud: LocalCloud) -> None:
    failures = [TRIES_MAX - 1]

    async def work(call: Call) -> Any:
        failures[0] -= 1
        if failures[0] >= 0:
            raise DatabaseError("database-busy")
        return Nothing()

    app = application()
    add_routes(app, cloud.cloud, [Route(method="POST", path="/", work=work, answer=Nothing)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    headers = {"Authorization": f"Bearer {await cloud.officer('o')}", "Idempotency-Key": "k"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for count, status in ((TRIES_MAX, 503), (TRIES_MAX - 1, 201), (0, 200)):
            failures[0] = count
            async with session.post(url) as response:
                assert response.status == status
    await runner.cleanup()


async def test_commands_understand_whatever_the_cloud_answers(
    cloud: LocalCloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, pki = cloud.cloud.config, cloud.cloud.desk.pki
    with pytest.raises(ConfigError) as unready:
        await Api(config).get("/healthz")
    assert unready.value.code == "not-running"
    authority = pki.transport.certificate.public_bytes(Encoding.PEM)
    (config.folder / "transport-ca.pem").write_bytes(authority)
    token = config.folder / "officer-first.token"
    token.write_text(await cloud.officer("first"))
    api = Api(config, token)
    assert await api.get("/healthz") == {"status": "alive"}
    with pytest.raises(CloudError) as unreadable:
        await api.get("/metrics")
    assert unreadable.value.code == "answer-unreadable"
    with pytest.raises(CloudError) as unknown:
        await api.get("/v1/nothing")
    assert unknown.value.code == "route-unknown"
    made = await api.post(
        "/v1/issuer/gateways", {"name": "g", "currency": "EUR", "tiers": [], "level": "software"}
    )
    assert (await NewGateway("g").enrol(cloud, made["token"]))[0] == 201
    await gateway_list(config, argparse.Namespace(json=False, officer_file=None))
    assert capsys.readouterr().out.endswith("  g  epoch 1  active\n")
    (config.folder / "ports.json").write_text("[]")
    with pytest.raises(ConfigError):
        await api.get("/healthz")
