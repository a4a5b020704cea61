"""Two gateways of one issuer: value moves between them by a note, without a network."""

from pathlib import Path

from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from tests.support.branch_local import Http, config_of, provision_light, running
from tests.support.live_issuer import EnrolmentCloud, LiveIssuer, funded


async def provision(folder: Path, issuer: LiveIssuer, key: DeviceKey) -> None:
    """One gateway with one funded wallet."""
    folder.mkdir()
    cloud = EnrolmentCloud(issuer, folder)
    cloud.objects = lambda journal: funded([key])(issuer, journal)
    await cloud.start()
    await provision_light(folder / "gateway", cloud)
    await cloud.stop()


async def test_a_note_is_redeemed_once_in_the_one_journal_that_it_names(tmp_path: Path) -> None:
    issuer = LiveIssuer()
    alice, shop = DeviceKey(b"\x01" * 32), DeviceKey(b"\x02" * 32)
    for name, key in (("one", alice), ("two", shop)):
        await provision(tmp_path / name, issuer, key)
    async with (
        running(config_of(tmp_path / "one" / "gateway"), issuer) as one,
        running(config_of(tmp_path / "two" / "gateway"), issuer) as two,
        Client(await one.terminal()) as first,
        Client(await two.terminal()) as second,
    ):
        there = two.opened.journal.state.journal
        order = one.order(alice, shop.public.id, 4_200, payee_journal=there)
        status, paid = await Http(first).pay(order)
        assert status == 201
        note = {"entry": paid["entry"], "receipt": paid["receipt"]}
        _, gateway = await Http(second).get("/v1/gateway")
        assert paid["note_for"] == gateway["id"]
        status, kept = await Http(second).post("/v1/receipts", {"receipts": [note, note]})
        assert [item["kept"] for item in kept["answers"]] == ["new", "known"]
        status, redeemed = await Http(second).post("/v1/notes", note)
        assert (status, redeemed["state"]) == (201, "accepted")
        status, again = await Http(second).post("/v1/notes", note)
        assert (status, again["id"], again["reprint"]) == (200, redeemed["id"], True)
        status, problem = await Http(first).post("/v1/notes", note)
        assert (status, problem["code"]) == (422, "note-not-for-us")
        _, wallet = await Http(second).get(f"/v1/wallets/{shop.text}")
        assert (wallet["balance"], wallet["unsettled"]) == (104_200, 4_200)
        _, page = await Http(second).get(f"/v1/wallets/{shop.text}/statement?limit=1")
        assert (page["entries"][0]["kind"], page["entries"][0]["amount"]) == ("transfer-in", 4_200)
