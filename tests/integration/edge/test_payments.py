"""Payments over mutual TLS: receipts, repetition, batches, refusals with their problem details."""

import asyncio
import io
import json

import pytest

from edge.http.octets import from_text, to_text
from edge.pos.purse import DeviceKey
from tests.support.branch_local import Branch, Http
from wallet.protocol.codec import decode, encode
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt

Keys = dict[str, DeviceKey]


async def test_a_signed_order_gets_a_receipt_that_the_root_alone_verifies(
    branch: Branch, http: Http, keys: Keys
) -> None:
    status, paid = await http.pay(branch.order(keys["alice"], keys["shop"].public.id, 1_234))
    assert (status, paid["state"], paid["finality"]) == (201, "accepted", "provisional")
    verified = verify_receipt(
        from_text(paid["receipt"]),
        from_text(paid["entry"]),
        root=branch.opened.journal.anchor,
        grace_s=0,
        revoked=NOTHING_REVOKED,
    )
    assert verified.leaf.hex() == paid["id"]
    assert "reprint" not in paid


async def test_an_order_sent_again_gets_its_receipt_again(
    branch: Branch, http: Http, keys: Keys
) -> None:
    order = branch.order(keys["alice"], keys["shop"].public.id, 100)
    _, first = await http.pay(order)
    status, again = await http.pay(order)
    assert (status, again["id"], again["reprint"]) == (200, first["id"], True)
    assert (await http.get(f"/v1/wallets/{keys['alice'].text}"))[1]["balance"] == 99_900


async def test_a_payment_is_found_by_its_id_and_by_its_reference(
    branch: Branch, http: Http, keys: Keys
) -> None:
    order = branch.order(keys["alice"], keys["shop"].public.id, 100, reference="till 1/7")
    _, paid = await http.pay(order)
    status, found = await http.get(f"/v1/payments/{paid['id']}")
    assert (status, found["id"], found["reprint"]) == (200, paid["id"], True)
    status, listed = await http.get("/v1/payments?reference=till+1/7")
    assert (status, [item["id"] for item in listed["payments"]]) == (200, [paid["id"]])
    assert await http.get("/v1/payments?reference=nothing") == (200, {"payments": []})
    status, problem = await http.get(f"/v1/payments/{'0' * 64}")
    assert (status, problem["code"]) == (404, "payment-unknown")


async def test_cbor_goes_in_and_comes_out(branch: Branch, http: Http, keys: Keys) -> None:
    order = branch.order(keys["alice"], keys["shop"].public.id, 100)
    session = http.client._session
    assert session is not None
    headers = {"Content-Type": "application/cbor"}
    async with session.post(
        "/v1/payments", data=encode({"order": order}), headers=headers
    ) as response:
        assert (response.status, response.content_type) == (201, "application/cbor")
        paid = decode(await response.read(), bytes_max=65536)
    assert isinstance(paid["receipt"], bytes)
    async with session.post(
        "/v1/payments", data=b"\xa1\x65order\x18\x01", headers=headers
    ) as response:
        assert response.status == 422
        assert (await response.json(content_type=None))["code"] == "body-invalid"


REFUSALS = [
    ("payer too poor", "poor", {}, 402, "insufficient-funds"),
    ("above the tier's limit", "limited", {"amount_minor": 101}, 402, "payment-above-limit"),
    ("needs a PIN", "limited", {"amount_minor": 60}, 402, "authorisation-required"),
    ("another journal", "alice", {"payer_journal": bytes(20)}, 422, "wrong-journal"),
    ("another epoch", "alice", {"payer_epoch": 2}, 422, "wrong-journal"),
    ("another currency", "alice", {"currency": "USD"}, 422, "wrong-currency"),
    ("a later sequence", "alice", {"sequence": 7}, 409, "sequence-gap"),
    ("expired", "alice", {"created_ms": 1, "expires_ms": 2}, 422, "order-expired"),
    ("of the future", "alice", {"created_ms": 2**45, "expires_ms": 2**46}, 422, None),
    ("unknown payee", "alice", {"payee": bytes(20)}, 404, "unknown-wallet"),
    ("names a request that did not come", "alice", {"request": bytes(32)}, 404, "unknown-request"),
    ("refunds nothing", "alice", {"kind": 1, "refunded": bytes(32)}, 404, "refund-unknown"),
]


@pytest.mark.parametrize(("payer", "changes", "status", "code"), [r[1:] for r in REFUSALS])
async def test_a_refused_order_gets_problem_details_and_leaves_no_entry(
    branch: Branch,
    http: Http,
    keys: Keys,
    payer: str,
    changes: dict[str, object],
    status: int,
    code: str | None,
) -> None:
    size = branch.opened.journal.state.size
    changed = {"amount_minor": 10, **changes}
    order = branch.order(keys[payer], keys["shop"].public.id, 10, **changed)
    got, problem = await http.pay(order)
    assert (got, problem["code"]) == (status, code or "order-from-the-future")
    assert (problem["status"], problem["type"]) == (got, f"urn:cbdc:problem:{problem['code']}")
    assert branch.opened.journal.state.size == size


async def test_a_limit_says_its_value_and_what_is_left(
    branch: Branch, http: Http, keys: Keys
) -> None:
    for _ in range(3):
        order = branch.order(keys["limited"], keys["shop"].public.id, 50)
        assert (await http.pay(order))[0] == 201
    order = branch.order(keys["limited"], keys["shop"].public.id, 1)
    status, problem = await http.pay(order)
    assert (status, problem["code"]) == (402, "spent-above-limit")
    assert (problem["limit"], problem["left"]) == (150, 0)


async def test_a_used_sequence_with_other_words_conflicts(
    branch: Branch, http: Http, keys: Keys
) -> None:
    assert (await http.pay(branch.order(keys["alice"], keys["shop"].public.id, 1)))[0] == 201
    again = branch.order(keys["alice"], keys["shop"].public.id, 2, sequence=0)
    status, problem = await http.pay(again)
    assert (status, problem["code"]) == (409, "sequence-used")


HOSTILE = [
    (b"{", 422, "body-invalid"),
    (b"[]", 422, "body-invalid"),
    (b'{"order": 5}', 422, "body-invalid"),
    (b'{"order": "AA=="}', 422, "body-invalid"),
    (b'{"order": "AA", "more": 1}', 422, "body-invalid"),
    (b"{}", 422, "body-invalid"),
    (b'{"order": "GAA"}', 422, "not-canonical"),
    (b'{"order": "9g"}', 422, "malformed"),
    (b'{"order": "' + b"A" * 40_000 + b'"}', 413, "too-large"),
    (b'{"order":"AA","offline":"require_online"}', 503, "online-unavailable"),
    (b"[" * 100_000, 422, "body-invalid"),
]


@pytest.mark.parametrize(("body", "status", "code"), HOSTILE)
async def test_hostile_bodies_are_refused_by_code(
    http: Http, body: bytes, status: int, code: str
) -> None:
    got, raw = await http.client.raw("POST", "/v1/payments", body)
    assert (got, json.loads(raw)["code"]) == (status, code)
    assert b"Traceback" not in raw


async def test_a_wrong_signature_is_forbidden(branch: Branch, http: Http, keys: Keys) -> None:
    order = branch.order(keys["alice"], keys["shop"].public.id, 10)
    status, problem = await http.pay(order[:-1] + bytes([order[-1] ^ 1]))
    assert (status, problem["code"]) == (403, "bad-signature")


async def test_a_body_above_the_cap_is_refused(branch: Branch, http: Http) -> None:
    size = branch.config.limits.body_bytes_max
    session = http.client._session
    assert session is not None
    headers = {"Content-Type": "application/json"}
    async with session.post(
        "/v1/payments", data=io.BytesIO(b" " * (size + 1)), headers=headers
    ) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (413, "body-too-large")


async def test_a_batch_has_an_answer_for_each_order_in_their_order(
    branch: Branch, http: Http, keys: Keys
) -> None:
    shop = keys["shop"].public.id
    orders = [
        branch.order(keys["alice"], shop, 10, sequence=0),
        branch.order(keys["alice"], shop, 11, sequence=1),
        branch.order(keys["poor"], shop, 10),
        branch.order(keys["bob"], shop, 12),
    ]
    body = {"orders": [{"order": to_text(order)} for order in orders]}
    status, answer = await http.post("/v1/payments:batch", body)
    assert status == 200
    assert [item["status"] for item in answer["answers"]] == [201, 201, 402, 201]
    assert answer["answers"][2]["code"] == "insufficient-funds"
    status, again = await http.post("/v1/payments:batch", body)
    assert [item["status"] for item in again["answers"]] == [200, 200, 402, 200]


async def test_an_idempotency_key_repeats_the_answer_and_refuses_another_body(
    branch: Branch, http: Http, keys: Keys
) -> None:
    session = http.client._session
    assert session is not None
    order = branch.order(keys["alice"], keys["shop"].public.id, 10)
    headers = {"Content-Type": "application/json", "Idempotency-Key": "k1"}
    answers = []
    for _ in range(2):
        async with session.post(
            "/v1/payments", data=json.dumps({"order": to_text(order)}), headers=headers
        ) as response:
            answers.append((response.status, await response.json()))
    assert answers[0] == answers[1]
    other = {"order": to_text(branch.order(keys["alice"], keys["shop"].public.id, 11))}
    async with session.post("/v1/payments", data=json.dumps(other), headers=headers) as response:
        problem = await response.json(content_type=None)
        assert (response.status, problem["code"]) == (422, "idempotency-key-reused")


async def test_a_key_is_free_again_after_bytes_that_are_no_order(http: Http) -> None:
    session = http.client._session
    assert session is not None
    headers = {"Content-Type": "application/json", "Idempotency-Key": "again"}
    for _ in range(2):
        async with session.post("/v1/refunds", data=b'{"order": "9g"}', headers=headers) as got:
            problem = await got.json(content_type=None)
            assert (got.status, problem["code"]) == (422, "malformed")


async def test_many_terminals_pay_at_once_and_value_is_conserved(
    branch: Branch, http: Http, keys: Keys
) -> None:
    shop = keys["shop"].public.id
    before = branch.opened.journal.state.balance_total()
    orders = [branch.order(keys["alice"], shop, 10, sequence=number) for number in range(40)]
    for order in orders:
        # One payer's orders go one after another; a repetition changes nothing.
        answers = await asyncio.gather(*[http.pay(order) for _ in range(3)])
        assert sorted(status for status, _ in answers) == [200, 200, 201]
        assert len({paid["id"] for _, paid in answers}) == 1
    assert branch.opened.journal.state.balance_total() == before
