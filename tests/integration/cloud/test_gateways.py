"""Gateways at the cloud: enrolment by a one-time token, and what each exchange brings."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloud.database import Database
from cloud.errors import CloudError, IssuerError
from cloud.funding import FundingRequest, hold
from cloud.http.octets import from_text, to_text
from cloud.issuer import enrolments, lists, supply
from cloud.issuer.gateways import TOKEN_LIFE_MS, find_gateway, require_trusted
from cloud.issuer.lists import DELTAS_MAX, ListChange
from cloud.issuer.officers import Role, authenticate
from cloud.issuer.profiles import JOURNAL_MS
from cloud.issuer.supply import SupplyAction, SupplyOrder
from cloud.issuer.sync_keys import KEY_MS
from cloud.reconciler.values import Ingested
from cloud.syncing import Exchange
from cloud.wallets import open_wallet
from tests.support.cloud_local import DAY_MS, NOW_MS, LocalCloud, NewGateway, local_cloud
from tests.support.issuer import Key
from wallet.protocol.certificates import parse_certificate
from wallet.protocol.codec import encode
from wallet.protocol.envelope import Down, VerifiedUp
from wallet.protocol.ids import parse_journal
from wallet.protocol.issued import (
    Enrolment,
    Grant,
    Keys,
    decode_issued,
    decode_keys,
    decode_list,
)
from wallet.protocol.lists import Held, ListId, SignedList
from wallet.protocol.lists import hold as hold_list
from wallet.protocol.policy import Policy
from wallet.protocol.refusals import Code, ProtocolError


class KeepsAll:
    """A reconciler that takes whatever comes and settles nothing: the exchange is tested here."""

    async def ingest(self, up: VerifiedUp, *, now_ms: int) -> Ingested:
        """All of it."""
        return Ingested(acknowledged=up.claims.acknowledged_size + len(up.claims.entries))

    async def settlements_after(self, journal: bytes, epoch: int, size: int) -> list[bytes]:
        """None."""
        return []


@pytest.fixture
async def cloud(database: Database, tmp_path: Path) -> AsyncIterator[LocalCloud]:
    """A cloud."""
    async with local_cloud(database, tmp_path) as opened:
        yield opened


async def token_for(cloud: LocalCloud, *tiers: int) -> str:
    """A one-time token."""
    async with cloud.api(await cloud.officer(f"o{len(tiers)}", Role.ENROLMENT)) as api:
        body = {"name": "branch", "currency": "EUR", "tiers": list(tiers), "level": "software"}
        _, made = await api.post("/v1/issuer/gateways", body)
        token: str = made["token"]
        return token


async def enrolled(cloud: LocalCloud, *tiers: int) -> NewGateway:
    """A gateway that may enrol wallets of these tiers."""
    gateway = NewGateway("one")
    status, answer = await gateway.enrol(cloud, await token_for(cloud, *tiers))
    assert status == 201, answer
    return gateway


def chain_of(gateway: NewGateway) -> tuple[bytes, ...]:
    """The certificates that it got."""
    return tuple(from_text(part) for part in gateway.answer["chain"])


async def exchange(
    cloud: LocalCloud, gateway: NewGateway, *, chain: tuple[bytes, ...] = (), **changed: Any
) -> Down:
    """One exchange, without the port."""
    sealed, _ = gateway.report(cloud, chain=chain or chain_of(gateway), **changed)
    answering = Exchange(
        database=cloud.cloud.database, desk=cloud.cloud.desk, reconciler=KeepsAll()
    )
    answer = await answering.answer(sealed, caller=gateway.journal, now_ms=cloud.clock.now_ms())
    return gateway.open(cloud, answer)


def kinds(down: Down) -> list[str]:
    """What came, in order."""
    return [
        "certificate" if raw.startswith(b"\x30") else type(decode_issued(raw)).__name__
        for raw in down.objects
    ]


async def test_a_token_enrols_one_gateway_and_answers_it_again(cloud: LocalCloud) -> None:
    token, gateway = await token_for(cloud, 0, 1), NewGateway("one")
    status, first = await gateway.enrol(cloud, token)
    assert (status, first["epoch"], first["currency"]) == (201, 1, "EUR")
    assert parse_journal(first["journal"]) == gateway.journal
    found = [decode_issued(from_text(raw)) for raw in first["objects"]]
    assert [type(item).__name__ for item in found].count("SignedList") == len(ListId)
    assert {Policy, Keys} <= {type(item) for item in found}
    assert await gateway.enrol(cloud, token) == (201, first)
    status, problem = await NewGateway("two").enrol(cloud, token)
    assert (status, problem["code"]) == (409, "token-used")
    status, problem = await gateway.enrol(cloud, await token_for(cloud, 1))
    assert (status, problem["code"]) == (409, "gateway-known")


async def test_enrolment_is_refused_without_proofs(cloud: LocalCloud) -> None:
    token, gateway = await token_for(cloud, 0), NewGateway("one")
    other = NewGateway("two").body(token)
    weak = {"algorithm": -8, "public_key": to_text(bytes(32))}
    for changed, code in (
        ({"proof": other["proof"]}, "key-proof-invalid"),
        ({"hpke_key": to_text(bytes(31))}, "key-proof-invalid"),
        ({"tls_csr": "no request"}, "key-proof-invalid"),
        ({"journal_key": weak}, "key-proof-invalid"),
        ({"proof": "*"}, "body-invalid"),
        ({"more": 1}, "body-invalid"),
    ):
        status, problem = await gateway.enrol(cloud, token, **changed)
        assert (status, problem["code"]) in ((403, code), (400, code)), changed
    status, problem = await gateway.enrol(cloud, "cbo_unknown")
    assert (status, problem["code"]) == (401, "token-unknown")
    status, problem = await gateway.enrol(cloud, "cbo_" + "A" * 43)
    assert (status, problem["code"]) == (401, "token-unknown")
    cloud.clock.wall_ms += TOKEN_LIFE_MS + 1
    status, problem = await gateway.enrol(cloud, token)
    assert (status, problem["code"]) == (403, "token-expired")


async def test_a_body_that_is_large_or_does_not_say_so_is_not_read(cloud: LocalCloud) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"{}"

    async with cloud.gateways() as session:
        for data in (parts(), b" " * 600_000):
            async with session.post("/v1/enrolment", data=data) as response:
                assert (response.status, (await response.json(content_type=None))["code"]) == (
                    413,
                    "body-too-large",
                )


async def test_an_exchange_is_by_the_certificate_of_that_gateway(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    gateway = await enrolled(cloud, 0)
    async with cloud.gateways() as session, session.post("/v1/sync", data=b"x") as response:
        assert response.status == 401
        assert (await response.json(content_type=None))["code"] == "certificate-missing"
    pem = tmp_path / "transport.pem"
    pem.write_text(gateway.tls_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=gateway.answer["transport_ca"])
    context.load_cert_chain(pem)
    connector = aiohttp.TCPConnector(ssl=context)
    url = f"https://127.0.0.1:{cloud.ports['gateway_port']}/v1/sync"
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(url, data=b"no envelope") as response,
    ):
        content = json.loads(await response.read())
        assert (response.status, content["code"]) == (422, "malformed")


async def test_a_report_of_another_journal_is_refused(cloud: LocalCloud) -> None:
    gateway = await enrolled(cloud, 0)
    sealed, _ = gateway.report(cloud, chain=chain_of(gateway))
    answering = cloud.cloud.exchange
    with pytest.raises(CloudError) as refused:
        await answering.answer(sealed, caller=bytes(20), now_ms=NOW_MS)
    assert refused.value.code == "wrong-gateway"
    with pytest.raises(ProtocolError) as broken:
        await answering.answer(sealed[:-1], caller=gateway.journal, now_ms=NOW_MS)
    assert broken.value.code == Code.NOT_OPENED


async def test_what_is_held_does_not_travel_again(cloud: LocalCloud) -> None:
    gateway = await enrolled(cloud, 0)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    assert kinds(await exchange(cloud, gateway, newest=newest)) == []
    down = await exchange(cloud, gateway)
    assert sorted(kinds(down)) == ["Keys", "Policy", *["SignedList"] * len(ListId)]


async def test_wallets_of_allowed_tiers_are_enrolled_until_they_are_entered(
    cloud: LocalCloud,
) -> None:
    gateway = await enrolled(cloud, 0)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    hosted, merchant = Key("hosted").public, Key("merchant").public
    wishes: list[Any] = [
        {"key": hosted.cose_key, "tier": 0, "label": "a", "hosted": True},
        {"key": merchant.cose_key, "tier": 2, "label": None, "hosted": False},
        *(7, {}, {"key": b"x", "tier": 0}, {"key": hosted.cose_key, "tier": -1}),
        {"key": hosted.cose_key, "tier": 0, "label": ""},
    ]
    health = {"enrol": wishes}
    down = await exchange(cloud, gateway, newest=newest, health=health)
    assert kinds(down) == ["Enrolment"]
    assert (await exchange(cloud, gateway, newest=newest)).objects == down.objects
    enrolment = decode_issued(down.objects[0])
    assert isinstance(enrolment, Enrolment)
    assert (enrolment.wallet, enrolment.tier, enrolment.label) == (hosted.id, 0, "a")
    entry = encode({1: 6, 2: 0, 3: NOW_MS, 4: 0, 5: down.objects[0]})
    broken = entry[:3] + b"\xff"
    down = await exchange(cloud, gateway, newest=newest, entries=(entry, broken, b"\xa0"))
    assert down.objects == ()
    # A gateway that asks again has lost it.
    assert kinds(await exchange(cloud, gateway, newest=newest, health=health)) == ["Enrolment"]

    async with cloud.api(await cloud.officer("enroller")) as api:
        _, page = await api.get("/v1/issuer/wishes")
        assert [(wish["tier"], wish["hosted"]) for wish in page["wishes"]] == [(2, False)]
        path = f"/v1/issuer/wishes/{page['wishes'][0]['wish']}"
        assert (await api.post(f"{path}/approve", {}))[0] == 201
        status, problem = await api.post(f"{path}/refuse", {})
        assert (status, problem["code"]) == (404, "wish-unknown")
        refused = {"key": Key("third").public.cose_key, "tier": 9}
        down = await exchange(cloud, gateway, newest=newest, health={"enrol": [refused]})
        assert kinds(down) == ["Enrolment", "Enrolment"]
        _, page = await api.get("/v1/issuer/wishes")
        path = f"/v1/issuer/wishes/{page['wishes'][0]['wish']}"
        assert (await api.post(f"{path}/refuse", {}))[0] == 201
        assert (await api.get("/v1/issuer/wishes"))[1] == {"wishes": []}


async def test_another_tier_travels_though_the_older_enrolment_is_entered(
    cloud: LocalCloud,
) -> None:
    gateway = await enrolled(cloud, 0, 1)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    wish = {"key": Key("w").public.cose_key, "tier": 0}
    down = await exchange(cloud, gateway, newest=newest, health={"enrol": [wish]})
    older = down.objects[0]
    cloud.clock.wall_ms += 1
    down = await exchange(cloud, gateway, newest=newest, health={"enrol": [{**wish, "tier": 1}]})
    newer = down.objects[0]
    assert (len(down.objects), newer != older) == (1, True)
    entry = encode({1: 6, 2: 0, 3: NOW_MS, 4: 0, 5: older})
    assert (await exchange(cloud, gateway, newest=newest, entries=(entry,))).objects == (newer,)
    entry = encode({1: 6, 2: 1, 3: NOW_MS, 4: 0, 5: newer})
    assert (await exchange(cloud, gateway, newest=newest, entries=(entry,))).objects == ()


async def test_a_suspended_journal_gets_lists_and_neither_value_nor_certificates(
    cloud: LocalCloud,
) -> None:
    gateway = await enrolled(cloud, 0)
    async with cloud.cloud.database.transaction() as c:
        await c.execute(
            "INSERT INTO journal_epoch (journal, epoch, state, reason, opened_ms, changed_ms)"
            " VALUES ($1, 1, 'suspended', 'fork', $2, $2)",
            *(gateway.journal, NOW_MS),
        )
        found = await find_gateway(c, gateway.journal)
        with pytest.raises(IssuerError) as caught:
            await require_trusted(c, found)
        assert caught.value.code == "journal-suspended"
    cloud.clock.wall_ms += JOURNAL_MS // 2
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId if list_id != ListId.JOURNALS}
    health = {"enrol": [{"key": Key("w").public.cose_key, "tier": 0}]}
    down = await exchange(cloud, gateway, newest=newest, health=health)
    assert kinds(down) == ["SignedList"]


async def held(cloud: LocalCloud, gateway: NewGateway) -> None:
    """Three holds for a gateway."""
    officers = [await cloud.officer(name) for name in ("first", "second")]
    async with cloud.cloud.database.transaction() as c:
        await open_wallet(c, "bank", holder="bank", currency="EUR", now_ms=NOW_MS)
        drafter, approver = [await authenticate(c, token) for token in officers]
        order = SupplyOrder(
            draft_id=bytes(32), action=SupplyAction.ISSUE, wallet="bank", amount=100, reason="x"
        )
        await supply.draft_supply(c, order, officer=drafter, now_ms=NOW_MS)
        await supply.approve_supply(c, bytes(32), officer=approver, now_ms=NOW_MS)
        for number in range(3):
            request = FundingRequest(
                funding_id=bytes([number]) * 32,
                wallet="bank",
                journal=gateway.journal,
                epoch=1,
                offline_wallet=bytes(20),
                amount=10 + number,
            )
            await hold(c, request, now_ms=NOW_MS + number)


async def test_what_is_held_for_a_journal_is_granted_in_order_and_once(cloud: LocalCloud) -> None:
    gateway = await enrolled(cloud, 0)
    await held(cloud, gateway)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    # Two exchanges of one gateway at a time sign each grant once.
    downs = await asyncio.gather(*(exchange(cloud, gateway, newest=newest) for _ in range(2)))
    assert downs[0].objects == downs[1].objects
    grants = [decode_issued(raw) for raw in downs[0].objects]
    assert [(g.sequence, g.amount_minor) for g in grants if isinstance(g, Grant)] == [
        (0, 10),
        (1, 11),
        (2, 12),
    ]
    down = await exchange(cloud, gateway, newest={**newest, 1: 1})
    assert down.objects == downs[0].objects[2:]


async def test_no_more_is_granted_at_a_time_than_travels(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await enrolled(cloud, 0)
    await held(cloud, gateway)
    monkeypatch.setitem(vars(enrolments), "TURN_MAX", 2)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    found = []
    held_grants: tuple[dict[int, int], ...] = ({}, {1: 1}, {1: 2})
    for sequences in held_grants:
        down = await exchange(cloud, gateway, newest={**newest, **sequences})
        grants = [decode_issued(raw) for raw in down.objects]
        found.append([grant.sequence for grant in grants if isinstance(grant, Grant)])
    assert found == [[0, 1], [2], []]


async def test_a_renewed_certificate_travels_until_it_is_shown(cloud: LocalCloud) -> None:
    gateway = await enrolled(cloud, 0)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    cloud.clock.wall_ms += JOURNAL_MS // 2 - DAY_MS
    assert kinds(await exchange(cloud, gateway, newest=newest)) == []
    cloud.clock.wall_ms += DAY_MS
    renewed = (await exchange(cloud, gateway, newest=newest)).objects
    assert [raw[:1] for raw in renewed] == [b"\x30", b"\x30"]
    leaf = parse_certificate(renewed[0])
    assert leaf.not_after_s > parse_certificate(chain_of(gateway)[0]).not_after_s
    assert (await exchange(cloud, gateway, newest=newest)).objects == renewed
    assert (await exchange(cloud, gateway, newest=newest, chain=renewed)).objects == ()


async def test_lists_go_as_deltas_and_now_and_then_in_full(cloud: LocalCloud) -> None:
    database, desk = cloud.cloud.database, cloud.cloud.desk
    held: Held | None = None
    for number in range(1, DELTAS_MAX + 2):
        async with database.transaction() as c:
            held = await lists.change_list(
                c,
                desk,
                ListId.FROZEN,
                ListChange(added={number.to_bytes(20, "big"): ()}),
                actor="test",
                now_ms=NOW_MS,
            )
    gateway = await enrolled(cloud, 0)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    down = await exchange(cloud, gateway, newest={**newest, 15: 2})
    found = [decode_list(raw) for raw in down.objects]
    # The newest full one, and what followed it.
    assert [(item.sequence, item.base is None) for item in found] == [(32, True), (33, False)]
    mine: Held | None = None
    for item in found:
        mine = hold_list(item, mine)
    assert mine is not None and mine == held
    assert len(mine.items) == DELTAS_MAX + 1
    down = await exchange(cloud, gateway, newest={**newest, 15: 32})
    assert [item.sequence for item in map(decode_list, down.objects)] == [33]


async def test_lists_and_keys_are_refreshed_before_they_grow_old(cloud: LocalCloud) -> None:
    await cloud.cloud.refresh()
    gateway = await enrolled(cloud, 0)
    newest = {0: 0, 2: 0} | {10 + list_id: 0 for list_id in ListId}
    cloud.clock.wall_ms += lists.REFRESH_MS
    await cloud.cloud.refresh()
    found = [decode_issued(raw) for raw in (await exchange(cloud, gateway, newest=newest)).objects]
    assert [item.sequence for item in found if isinstance(item, SignedList)] == [1] * len(ListId)
    sealed, _ = gateway.report(cloud, chain=chain_of(gateway))
    cloud.clock.wall_ms += KEY_MS // 2
    await cloud.cloud.refresh()
    assert len(cloud.cloud.desk.hpke) == 2
    # What was sealed to the older key is still opened.
    answer = await cloud.cloud.exchange.answer(
        sealed, caller=gateway.journal, now_ms=cloud.clock.now_ms()
    )
    raws = gateway.open(cloud, answer).objects
    keys = [decode_keys(raw) for raw in raws if b"cbdc-keys" in raw[:100]]
    assert [(item.sequence, len(item.keys)) for item in keys] == [(1, 2)]
