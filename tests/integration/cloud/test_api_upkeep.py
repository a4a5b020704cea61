"""How the API cares for itself: what it keeps, forgets, renews, records and does not wait for."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from cloud.database import Database
from cloud.http.answers import KEPT_MS
from cloud.http.app import answer, application
from cloud.http.routes import read_body
from cloud.issuer.profiles import SERVER_MS
from tests.support.cloud_local import LocalCloud, local_cloud
from tests.support.cloud_process import Api
from wallet.protocol.ids import wallet_text


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


async def holder(first: Api, name: str, *, currency: str = "EUR") -> str:
    """A holder with one wallet; the token."""
    body = {"holder": name, "wallet": f"{name}-{currency.lower()}", "currency": currency}
    status, made = await first.post("/v1/issuer/holders", body)
    assert status == 201
    token: str = made["token"]
    return token


async def test_a_stored_answer_shows_no_token_and_is_forgotten(
    cloud: LocalCloud, first: Api
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


async def test_what_officers_open_is_in_the_audit_log(first: Api) -> None:
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


async def test_a_gateway_is_of_a_currency_with_a_policy(first: Api) -> None:
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


async def test_a_quote_is_accepted_at_a_wallet_of_the_caller(cloud: LocalCloud, first: Api) -> None:
    token = await holder(first, "alice")
    await holder(first, "bob")
    async with cloud.api(token) as api:
        path = f"/v1/wallets/bob-eur/quotes/{secrets.token_hex(32)}/accept"
        status, problem = await api.post(path, {})
        assert (status, problem["code"]) == (404, "unknown-wallet")
        status, problem = await api.post(path.replace("bob", "alice"), {})
        assert (status, problem["code"]) == (404, "unknown-quote")
