"""The other routes of the branch: wallets, requests, notes, receipts, events, health, OpenAPI."""

import asyncio
import json
import secrets
from typing import Any

import aiohttp
import pytest
from openapi_spec_validator import validate

from edge.http.octets import from_text, to_text
from edge.pos.purse import DeviceKey
from edge.qr import from_qr
from tests.support.branch_local import Branch, Http
from wallet.clock import SystemClock
from wallet.protocol.messages import decode_request

Keys = dict[str, DeviceKey]


def request_of(branch: Branch, key: DeviceKey, amount: int, **changes: Any) -> bytes:
    """A request that the payee's device signed."""
    now = SystemClock().now_ms()
    claims = {
        "nonce": secrets.token_bytes(16),
        "payee_journal": branch.opened.journal.state.journal,
        "amount_minor": amount,
        "currency": "EUR",
        "created_ms": now,
        "expires_ms": now + 60_000,
        "reference": "table 4",
    }
    return key.sign_request(**{**claims, **changes})


async def test_a_wallet_tells_its_balance_and_what_is_left_of_its_limits(
    branch: Branch, http: Http, keys: Keys
) -> None:
    await http.pay(branch.order(keys["limited"], keys["shop"].public.id, 40))
    status, wallet = await http.get(f"/v1/wallets/{keys['limited'].text.upper()}")
    assert (status, wallet["state"], wallet["balance"]) == (200, "enrolled", 99_960)
    left = {limit["code"]: limit["left"] for limit in wallet["limits"]}
    assert left["payment_max"] == 100
    assert left["out_amount_since_hard"] == 110
    status, problem = await http.get(f"/v1/wallets/{DeviceKey(bytes(32)).text}")
    assert (status, problem["code"]) == (404, "unknown-wallet")
    status, problem = await http.get("/v1/wallets/wal1nothing")
    assert (status, problem["code"]) == (422, "parameter-invalid")


async def test_a_statement_pages_by_an_opaque_cursor(
    branch: Branch, http: Http, keys: Keys
) -> None:
    shop = keys["shop"]
    for amount in (1, 2, 3):
        await http.pay(branch.order(keys["alice"], shop.public.id, amount, reference=f"r{amount}"))
    amounts: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        path = f"/v1/wallets/{shop.text}/statement?limit=2{cursor}"
        status, page = await http.get(path)
        assert status == 200
        amounts += [entry["amount"] for entry in page["entries"]]
        cursor = f"&cursor={page['cursor']}" if "cursor" in page else None
    assert amounts == [3, 2, 1, 100_000, 0]
    status, page = await http.get(f"/v1/wallets/{keys['alice'].text}/statement?limit=1")
    entry = page["entries"][0]
    assert (entry["amount"], entry["other"], entry["reference"]) == (-3, shop.text, "r3")
    for query, code in (("cursor=7", "cursor-invalid"), ("limit=0", "parameter-invalid")):
        status, problem = await http.get(f"/v1/wallets/{shop.text}/statement?{query}")
        assert (status, problem["code"]) == (422, code)
    status, problem = await http.get(f"/v1/wallets/{DeviceKey(bytes(32)).text}/statement")
    assert (status, problem["code"]) == (404, "unknown-wallet")


async def test_a_brought_request_is_shown_as_a_code_and_is_paid_once(
    branch: Branch, http: Http, keys: Keys
) -> None:
    signed = request_of(branch, keys["shop"], 250)
    status, asked = await http.post("/v1/requests", {"request": to_text(signed)})
    assert (status, asked["state"], asked["amount"]) == (201, "open", 250)
    assert from_qr(asked["qr"]) == signed
    assert (await http.post("/v1/requests", {"request": to_text(signed)}))[0] == 200
    identity = decode_request(signed).identity
    shop = keys["shop"].public.id
    order = branch.order(keys["alice"], shop, 250, request=identity)
    assert (await http.pay(order, signed))[0] == 201
    status, asked = await http.get(f"/v1/requests/{asked['id']}")
    assert (status, asked["state"]) == (200, "paid")
    assert (await http.get(f"/v1/payments/{asked['payment']}"))[0] == 200
    status, found = await http.get("/v1/requests?reference=table+4")
    assert [item["id"] for item in found["requests"]] == [asked["id"]]
    order = branch.order(keys["alice"], shop, 250, request=identity)
    status, problem = await http.pay(order, signed)
    assert (status, problem["code"]) == (409, "request-paid")


async def test_a_void_request_cannot_be_paid(branch: Branch, http: Http, keys: Keys) -> None:
    signed = request_of(branch, keys["shop"], 250)
    _, asked = await http.post("/v1/requests", {"request": to_text(signed)})
    session = http.client._session
    assert session is not None
    for _ in range(2):
        async with session.delete(f"/v1/requests/{asked['id']}") as response:
            assert (response.status, (await response.json())["state"]) == (200, "void")
    identity = bytes.fromhex(asked["id"])
    order = branch.order(keys["alice"], keys["shop"].public.id, 250, request=identity)
    status, problem = await http.pay(order, signed)
    assert (status, problem["code"]) == (409, "request-void")


async def test_requests_that_do_not_belong_here_are_refused(
    branch: Branch, http: Http, keys: Keys
) -> None:
    cases = [
        (request_of(branch, keys["shop"], 1, payee_journal=bytes(20)), 422, "wrong-journal"),
        (request_of(branch, keys["shop"], 1, currency="USD"), 422, "wrong-currency"),
        (request_of(branch, DeviceKey(bytes(32)), 1), 404, "unknown-wallet"),
        (request_of(branch, keys["shop"], 1)[:-1] + b"\xff", 403, "bad-signature"),
        (b"\x80", 422, "malformed"),
    ]
    for signed, expected, code in cases:
        status, problem = await http.post("/v1/requests", {"request": to_text(signed)})
        assert (status, problem["code"]) == (expected, code)
    status, problem = await http.get(f"/v1/requests/{'0' * 64}")
    assert (status, problem["code"]) == (404, "unknown-request")
    signed = request_of(branch, keys["shop"], 9, created_ms=1, expires_ms=2)
    status, asked = await http.post("/v1/requests", {"request": to_text(signed)})
    assert (status, asked["state"]) == (201, "expired")


async def test_a_device_wallet_waits_until_an_enrolment_is_brought(
    branch: Branch, http: Http
) -> None:
    key = DeviceKey(b"\x77" * 32)
    wish = {"device": {"key": to_text(key.public.cose_key), "tier": 1, "label": "phone"}}
    for _ in range(2):
        status, wallet = await http.post("/v1/wallets", wish)
        assert (status, wallet["state"], wallet["wallet"]) == (202, "pending", key.text)
    journal = branch.opened.journal.state.journal
    enrolment = branch.issuer.enrolment(journal, key.public)
    status, wallet = await http.post("/v1/wallets", {"enrolment": to_text(enrolment)})
    assert (status, wallet["state"]) == (201, "enrolled")
    bad = {"device": {"key": to_text(b"\xa3")}}
    status, problem = await http.post("/v1/wallets", bad)
    assert (status, problem["code"]) == (422, "not-canonical")
    status, problem = await http.post("/v1/wallets", {})
    assert (status, problem["code"]) == (422, "body-invalid")


async def test_refunds_are_linked_and_stay_within_the_payment(
    branch: Branch, http: Http, keys: Keys
) -> None:
    alice, shop = keys["alice"], keys["shop"]
    _, paid = await http.pay(branch.order(alice, shop.public.id, 100))
    leaf = bytes.fromhex(paid["id"])

    def refund(amount: int) -> dict[str, str]:
        order = branch.order(shop, alice.public.id, amount, kind=1, refunded=leaf)
        return {"order": to_text(order)}

    assert (await http.post("/v1/refunds", refund(60)))[0] == 201
    status, problem = await http.post("/v1/refunds", refund(41))
    assert (status, problem["code"], problem["left"]) == (402, "refund-above-payment", 40)
    order = branch.order(alice, shop.public.id, 5)
    status, problem = await http.post("/v1/refunds", {"order": to_text(order)})
    assert (status, problem["code"]) == (422, "body-invalid")
    status, report = await http.get("/v1/reports/x")
    lines = {line["kind"]: (line["count"], line["amount"]) for line in report["lines"]}
    assert (lines["payment"], lines["refund"]) == ((1, 100), (1, 60))


async def test_a_payment_to_another_journal_comes_back_as_a_note(
    branch: Branch, http: Http, keys: Keys
) -> None:
    order = branch.order(keys["alice"], bytes(20), 50, payee_journal=bytes(range(20)))
    status, paid = await http.pay(order)
    assert (status, paid["note_for"][:4]) == (201, "jnl1")
    note = {"entry": paid["entry"], "receipt": paid["receipt"]}
    status, problem = await http.post("/v1/notes", note)
    assert (status, problem["code"]) == (422, "note-not-for-us")
    status, kept = await http.post("/v1/receipts", {"receipts": [note]})
    assert (status, kept["answers"][0]["kept"]) == (200, "known")
    broken = {"entry": paid["entry"], "receipt": to_text(b"\x80")}
    status, kept = await http.post("/v1/receipts", {"receipts": [broken]})
    assert (kept["answers"][0]["kept"], kept["answers"][0]["code"]) == ("refused", "malformed")
    assert from_text(paid["entry"])


async def read_events(response: aiohttp.ClientResponse, name: str) -> list[tuple[int, Any]]:
    """Events of a stream until one of a name came."""
    found: list[tuple[int, Any]] = []
    number, kind = 0, ""
    async with asyncio.timeout(20):
        async for raw in response.content:
            line = raw.decode().strip()
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("event: "):
                kind = line[7:]
            elif line.startswith("data: ") and kind == name:
                found.append((number, json.loads(line[6:])))
                return found
    return found


async def test_events_stream_from_where_a_listener_left_off(
    branch: Branch, http: Http, keys: Keys
) -> None:
    session = http.client._session
    assert session is not None
    async with session.get("/v1/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        _, paid = await http.pay(branch.order(keys["alice"], keys["shop"].public.id, 5))
        ((number, data),) = await read_events(response, "payment.accepted")
    assert [payment["id"] for payment in data["payments"]] == [paid["id"]]
    headers = {"Last-Event-ID": str(number - 1)}
    async with session.get("/v1/events", headers=headers) as response:
        assert await read_events(response, "payment.accepted") == [(number, data)]
    async with session.get("/v1/events", headers={"Last-Event-ID": "x"}) as response:
        assert response.status == 422


async def test_health_status_and_metrics_are_for_machines(
    branch: Branch, http: Http, keys: Keys
) -> None:
    await http.pay(branch.order(keys["alice"], keys["shop"].public.id, 5))
    await http.pay(branch.order(keys["poor"], keys["shop"].public.id, 5))
    for path in ("/healthz", "/readyz"):
        assert await http.get(path) == (200, {"status": "ok"})
    status, gateway = await http.get("/v1/gateway")
    assert (status, gateway["mode"], gateway["counter_driver"]) == (200, "open", "software")
    assert (await http.get("/statusz"))[1]["id"] == gateway["id"]
    url = f"http://127.0.0.1:{branch.ports['metrics_port']}"
    async with aiohttp.ClientSession(url) as session, session.get("/metrics") as response:
        text = await response.text()
    assert "cbdc_payments_total 1.0" in text
    assert 'cbdc_refusals_total{code="insufficient-funds"} 1.0' in text
    assert "cbdc_open 1.0" in text


async def test_unknown_paths_and_methods_are_problems_too(http: Http) -> None:
    status, problem = await http.get("/v1/nothing")
    assert (status, problem["code"]) == (404, "route-unknown")
    session = http.client._session
    assert session is not None
    async with session.put("/v1/payments", data=b"") as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (405, "method-not-allowed")
        assert response.headers["Allow"] == "GET, POST"


async def test_openapi_is_valid_and_names_every_route(http: Http) -> None:
    status, description = await http.get("/v1/openapi.json")
    assert status == 200
    validate(description)
    assert "/v1/payments:batch" in description["paths"]


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
async def test_other_content_types_are_refused(http: Http, kind: str) -> None:
    session = http.client._session
    assert session is not None
    headers = {"Content-Type": kind}
    async with session.post("/v1/payments", data=b"{}", headers=headers) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (415, "body-type-unknown")
