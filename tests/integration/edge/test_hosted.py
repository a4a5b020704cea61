"""Wallets that the gateway hosts: made with a PIN, paid from with it, locked by wrong ones."""

import json
from typing import Any

from edge.http.local import WalletsAnswer
from edge.http.types import WalletAnswer
from edge.local_client import LocalClient
from edge.pos.purse import DeviceKey
from tests.support.branch_local import Branch, Http
from wallet.protocol.ids import parse_wallet
from wallet.protocol.keys import from_cose_key
from wallet.store.hosted import get_hosted

Keys = dict[str, DeviceKey]
PIN = "2580"


async def hosted_wallet(branch: Branch, http: Http, *, funds: int = 10_000) -> str:
    """A hosted wallet that was enrolled and funded."""
    status, made = await http.post("/v1/wallets", {"hosted": {"pin": PIN, "tier": 1}}, key=True)
    assert (status, made["state"], made["hosted"]) == (202, "pending", True)
    (wish,) = [w for w in await branch.wishes() if w.wallet == parse_wallet(made["wallet"])]
    assert wish.hosted
    journal = branch.opened.journal.state.journal
    key = from_cose_key(wish.key)
    await branch.take(
        branch.issuer.enrolment(journal, key),
        branch.issuer.grant(
            journal, key.id, funds, sequence=branch.opened.journal.state.grants_next
        ),
    )
    assert await branch.wishes() == []
    text: str = made["wallet"]
    return text


def payment(wallet: str, payee: str | None, **changes: Any) -> dict[str, Any]:
    """The body of a hosted payment."""
    hosted = {"wallet": wallet, "pin": PIN, "payee": payee, "amount": 100, "currency": "EUR"}
    return {"hosted": {**hosted, **changes}}


async def test_a_hosted_wallet_pays_with_its_pin(branch: Branch, http: Http, keys: Keys) -> None:
    wallet, shop = await hosted_wallet(branch, http), keys["shop"].text
    status, paid = await http.post("/v1/payments", payment(wallet, shop, reference="r"), key=True)
    assert (status, paid["state"]) == (201, "accepted")
    assert (await http.get(f"/v1/wallets/{wallet}"))[1]["balance"] == 9_900
    status, problem = await http.post("/v1/payments", payment(wallet, shop))
    assert (status, problem["code"]) == (400, "idempotency-key-missing")
    status, problem = await http.post(
        "/v1/payments", payment(wallet, shop, currency="USD"), key=True
    )
    assert (status, problem["code"]) == (422, "wrong-currency")
    status, problem = await http.post("/v1/payments", payment(wallet, None), key=True)
    assert (status, problem["code"]) == (422, "body-invalid")
    status, problem = await http.post("/v1/payments", payment(shop, wallet), key=True)
    assert (status, problem["code"]) == (404, "unknown-wallet")
    status, problem = await http.post("/v1/payments", payment(wallet, shop, request="gA"), key=True)
    assert (status, problem["code"]) == (422, "malformed")


async def test_a_key_makes_a_hosted_payment_happen_once(
    branch: Branch, http: Http, keys: Keys
) -> None:
    wallet = await hosted_wallet(branch, http)
    session = http.client._session
    assert session is not None
    headers = {"Content-Type": "application/json", "Idempotency-Key": "one"}
    body = json.dumps(payment(wallet, keys["shop"].text))
    for _ in range(2):
        async with session.post("/v1/payments", data=body, headers=headers) as response:
            assert response.status == 201
    assert (await http.get(f"/v1/wallets/{wallet}"))[1]["balance"] == 9_900
    await branch.opened.database.write(lambda c: c.execute("UPDATE answers SET status = 102"))
    async with session.post("/v1/payments", data=body, headers=headers) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (409, "outcome-unknown")
    headers["Idempotency-Key"] = "x" * 200
    async with session.post("/v1/payments", data=body, headers=headers) as response:
        assert (await response.json(content_type=None))["code"] == "parameter-invalid"


async def test_wrong_pins_lock_and_a_refusal_frees_the_key(
    branch: Branch, http: Http, keys: Keys
) -> None:
    wallet, shop = await hosted_wallet(branch, http), keys["shop"].text
    session = http.client._session
    assert session is not None
    headers = {"Content-Type": "application/json", "Idempotency-Key": "same"}
    wrong = json.dumps(payment(wallet, shop, pin="0000"))
    lefts = []
    for _ in range(3):
        async with session.post("/v1/payments", data=wrong, headers=headers) as response:
            problem = await response.json(content_type=None)
            assert (response.status, problem["code"]) == (403, "pin-wrong")
            lefts.append(problem["left"])
    assert lefts == [2, 1, 0]
    status, problem = await http.post("/v1/payments", payment(wallet, shop), key=True)
    assert (status, problem["code"]) == (403, "wallet-locked")
    assert 0 < problem["retry_after"] <= 60
    assert (await http.get(f"/v1/wallets/{wallet}"))[1]["state"] == "locked"


async def test_a_hosted_merchant_asks_is_paid_and_gives_back(
    branch: Branch, http: Http, keys: Keys
) -> None:
    merchant, payer = await hosted_wallet(branch, http), await hosted_wallet(branch, http)
    asked = {"wallet": merchant, "amount": 70, "currency": "EUR", "reference": "bill 9"}
    status, request = await http.post("/v1/requests", {"hosted": asked}, key=True)
    assert (status, request["state"], request["wallet"]) == (201, "open", merchant)
    body = {"hosted": {"wallet": payer, "pin": PIN, "request": request["request"]}}
    status, paid = await http.post("/v1/payments", body, key=True)
    assert status == 201
    refund = {"wallet": merchant, "pin": PIN, "payment": paid["id"], "amount": 30}
    status, _ = await http.post("/v1/refunds", {"hosted": refund}, key=True)
    assert status == 201
    status, _ = await http.post(
        "/v1/refunds", {"hosted": {"wallet": merchant, "pin": PIN, "payment": paid["id"]}}, key=True
    )
    assert status == 201
    assert (await http.get(f"/v1/wallets/{payer}"))[1]["balance"] == 10_000
    foreign = {"wallet": merchant, "amount": 70, "currency": "USD"}
    status, problem = await http.post("/v1/requests", {"hosted": foreign}, key=True)
    assert (status, problem["code"]) == (422, "wrong-currency")
    stranger = {"wallet": keys["shop"].text, "amount": 70, "currency": "EUR"}
    status, problem = await http.post("/v1/requests", {"hosted": stranger}, key=True)
    assert (status, problem["code"]) == (404, "unknown-wallet")


async def test_the_technician_makes_and_lists_hosted_wallets(branch: Branch, http: Http) -> None:
    local = LocalClient(branch.folder)
    body = {"pin": PIN, "tier": 1, "label": "desk"}
    made = await local.call("POST", "/wallets", WalletAnswer, body=body)
    assert (made.state, made.hosted) == ("pending", True)
    listed = await local.call("GET", "/wallets", WalletsAnswer)
    assert made.wallet in [wallet.wallet for wallet in listed.wallets]
    assert len(listed.wallets) == 6


async def test_a_pin_is_stored_as_a_slow_hash_alone(branch: Branch, http: Http) -> None:
    wallet = await hosted_wallet(branch, http)
    stored = await branch.opened.database.read(lambda c: get_hosted(c, parse_wallet(wallet)))
    assert stored is not None
    assert stored.pin_hash.startswith("$argon2id$")
