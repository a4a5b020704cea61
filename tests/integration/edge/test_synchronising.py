"""Synchronisation with a cloud: entries go up in segments, what comes down settles and enrols."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from edge.config import SyncConfig
from edge.http.links import LineAnswer
from edge.http.local import SyncAnswer
from edge.http.trail import AuditCheck
from edge.journal_port import METER, JournalPort
from edge.local_client import LocalClient
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from edge.synchronising import synchronising
from sync.meter import Meter
from tests.support.branch import Command
from tests.support.branch_local import Branch, Http, config_of, provision_light, running
from tests.support.live_issuer import LiveIssuer, funded
from tests.support.sync_cloud import SyncCloud
from wallet.protocol.issued import decode_list
from wallet.store.audit import audit_anchor, verify_audit
from wallet.store.meta import get_meta
from wallet.trail import AuditHead

WAIT_S = 20
SEGMENT = {115: 4}


class World(msgspec.Struct):
    """A gateway, its cloud, and two wallets."""

    branch: Branch
    cloud: SyncCloud
    alice: DeviceKey
    shop: DeviceKey
    http: Http


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Both run."""
    alice, shop = DeviceKey(b"\x01" * 32), DeviceKey(b"\x02" * 32)
    cloud = SyncCloud(LiveIssuer(), tmp_path)
    objects = funded([alice, shop], journal=SEGMENT)
    cloud.objects = lambda journal: [*objects(cloud.issuer, journal), cloud.keys()]
    await cloud.start()
    await provision_light(tmp_path / "gateway", cloud)
    async with (
        running(config_of(tmp_path / "gateway"), cloud.issuer) as branch,
        Client(await branch.terminal()) as client,
    ):
        yield World(branch, cloud, alice, shop, Http(client))
    await cloud.stop()


async def sync(world: World) -> SyncAnswer:
    """Synchronise now, as the technician does."""
    return await LocalClient(world.branch.folder).call("POST", "/sync", SyncAnswer, body={})


async def wait_until(check: Callable[[], bool]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(WAIT_S):
        while not check():
            await asyncio.sleep(0.02)


async def test_payments_settle_and_the_cloud_holds_every_entry(world: World) -> None:
    _, paid = await world.http.pay(world.branch.order(world.alice, world.shop.public.id, 7))
    assert (await world.http.get("/v1/gateway"))[1]["state"] == "unknown"
    done = await sync(world)
    assert done.result == "completed", done
    _, now = await world.http.get(f"/v1/payments/{paid['id']}")
    assert (now["state"], now["finality"]) == ("settled", "final")
    size = len(world.cloud.entries)
    journal = world.branch.opened.journal
    assert world.cloud.entries == await journal.entries(0, size)
    assert journal.acknowledged == size
    assert world.cloud.ups[0].newest[0] == 0
    _, gateway = await world.http.get("/v1/gateway")
    assert (gateway["state"], gateway["acknowledged"]) == ("online", size)
    code, out, errors = await Command(world.branch.folder.root).edge("sync", "now")
    assert (code, "completed" in out) == (0, True), errors


async def test_every_byte_of_the_line_is_shown(world: World) -> None:
    local = LocalClient(world.branch.folder)
    assert (await local.call("GET", "/line", LineAnswer)).counted == []
    await sync(world)
    line = await local.call("GET", "/line", LineAnswer)
    assert (line.state, line.failures, line.held_s) == ("idle", 0, 0)
    counted = {one.purpose: one for one in line.counted}
    assert counted["probe"].sent > 1_000 and counted["exchange"].received > 500
    assert line.day_bytes == sum(one.sent + one.received for one in line.counted)
    text = world.branch.daemon.context.metrics.text().decode()
    assert f'direction="sent",link="{line.link}",purpose="probe"' in text
    code, out, _ = await Command(world.branch.folder.root).edge("status")
    assert (code, f"idle on {line.link} (free)" in out) == (0, True), out
    # What was counted outlives the engine.
    kept = await world.branch.opened.database.read(lambda c: get_meta(c, METER))
    assert Meter.decode(kept or b"").counted() == world.branch.daemon.counted()


async def test_each_exchange_tells_the_issuer_the_head_of_the_audit_log(world: World) -> None:
    await sync(world)
    told = (world.cloud.ups[-1].health or {})["audit"]
    database = world.branch.opened.database
    head = AuditHead(told["rows"], told["head"])
    assert await database.read(lambda c: verify_audit(c, [head])) > head
    assert await database.read(audit_anchor) == head
    await sync(world)
    assert (world.cloud.ups[-1].health or {})["audit"]["rows"] > head.seq
    check = await LocalClient(world.branch.folder).call("GET", "/audit/check", AuditCheck)
    assert check.told is not None and not check.told.startswith(f"{head.seq}:")


async def test_wished_wallets_are_enrolled_by_the_next_exchange(world: World) -> None:
    body = {"hosted": {"pin": "2580", "tier": 1, "label": "desk"}}
    status, made = await world.http.post("/v1/wallets", body, key=True)
    assert (status, made["state"]) == (202, "pending")
    # The wish wakes the synchronisation by itself.
    wallets = world.branch.opened.journal.state.wallets
    await wait_until(lambda: len(wallets) == 3)
    assert (await world.http.get(f"/v1/wallets/{made['wallet']}"))[1]["state"] == "enrolled"
    assert any("enrol" in (up.health or {}) for up in world.cloud.ups)
    # The wallet stands before the wish is forgotten.
    async with asyncio.timeout(WAIT_S):
        while await world.branch.wishes():
            await asyncio.sleep(0.02)


async def test_a_cloud_that_is_away_is_tried_again_until_it_is_back(world: World) -> None:
    await world.cloud.stop()
    assert (await sync(world)).result == "failed"
    _, gateway = await world.http.get("/v1/gateway")
    assert gateway["state"] == "offline"
    assert (await world.http.get("/readyz"))[0] == 200
    status, _ = await world.http.pay(world.branch.order(world.alice, world.shop.public.id, 7))
    assert status == 201
    code, _, _ = await Command(world.branch.folder.root).edge("sync", "now")
    assert code == 3
    await world.cloud.start()
    control = world.branch.daemon
    control.wake_sync()
    await wait_until(lambda: control.online() is True)


async def test_an_answer_that_is_no_answer_changes_nothing(world: World) -> None:
    cloud, journal = world.cloud, world.branch.opened.journal
    cloud.problem = "fork"
    assert (await sync(world)).detail == "exchange-problem: fork"
    cloud.problem, cloud.status = None, 500
    assert "status 500" in ((await sync(world)).detail or "")
    cloud.status, cloud.stuck = 200, True
    assert "took no entry" in ((await sync(world)).detail or "")
    _, gateway = await world.http.get("/v1/gateway")
    assert gateway["state"] == "online"
    cloud.stuck, cloud.other_exchange = False, True
    assert "something else" in ((await sync(world)).detail or "")
    assert journal.acknowledged == 0
    cloud.other_exchange = False
    cloud.entries.clear()
    assert (await sync(world)).result == "completed"


async def test_a_cloud_that_froze_this_gateway_is_asked_again_only_when_somebody_wants_it(
    world: World,
) -> None:
    world.cloud.problem = "frozen-by-issuer"
    assert (await sync(world)).detail == "exchange-problem: frozen-by-issuer"
    _, gateway = await world.http.get("/v1/gateway")
    assert gateway["state"] == "online"
    world.cloud.problem = None
    assert (await sync(world)).result == "completed"


async def test_an_issuer_that_forgot_its_lists_is_shown_them_until_it_has_caught_up(
    world: World,
) -> None:
    world.cloud.problem = "parent-missing"
    assert (await sync(world)).detail == "exchange-problem: parent-missing"
    world.cloud.problem = None
    for _ in range(2):
        assert (await sync(world)).result == "completed"
    shown = [(up.health or {}).get("lists", []) for up in world.cloud.ups]
    assert [decode_list(raw).list_id for raws in shown for raw in raws] == [1, 2, 5, 6]
    assert (shown[0], shown[-1]) == ([], [])


async def test_a_gateway_without_the_issuers_keys_cannot_send_and_says_so(
    branch: Branch,
) -> None:
    done = await LocalClient(branch.folder).call("POST", "/sync", SyncAnswer, body={})
    assert (done.result, "no key" in (done.detail or "")) == ("failed", True)


async def test_a_transport_certificate_that_does_not_fit_stops_no_payment(world: World) -> None:
    opened = world.branch.opened
    opened.identity = msgspec.structs.replace(opened.identity, transport_certificate="nothing")
    config = config_of(world.branch.folder.root, sync=SyncConfig(url=world.cloud.url))
    clock = world.branch.daemon.context.gateway.clock
    port = JournalPort(opened, folder=world.branch.folder, clock=clock)
    broken = synchronising(opened, port, config, clock=clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(broken.run())
        result, detail = await broken.now()
        task.cancel()
    assert (result, "certificates" in detail) == ("failed", True)
    status, _ = await world.http.pay(world.branch.order(world.alice, world.shop.public.id, 7))
    assert status == 201
