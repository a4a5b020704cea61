"""What the issuer sends without being asked: `cbdc-cloud sync export`, and the gateway's import."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cloud.attestation.levels import Level
from cloud.issuer import lists
from cloud.issuer.gateways import find_gateway
from cloud.issuer.lists import ListChange
from cloud.unasked import unasked
from edge.courier import Courier
from edge.folder import Folder
from edge.journal_port import JournalPort
from sync.courier import Kind, read_label
from sync.exchange import UNASKED
from tests.integration.cloud.test_couriers import Done, Route, codes, files, route, stick
from tests.support.cloud_process import CloudProcess
from tests.support.recovery import ANNA, BERT, Box, balance
from wallet.protocol.certificates import parse_certificate
from wallet.protocol.envelope import Down, down_payload
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.lists import ListId
from wallet.protocol.sealed import seal

__all__ = ["route"]
REVOKED = b"\x07" * 20
DAY_MS = 86_400_000


async def revoke(route: Route, wallet: bytes) -> None:
    """An officer puts a wallet on list 2."""
    cloud = route.story.cloud.cloud
    async with route.story.database.transaction() as connection:
        await lists.change_list(
            connection,
            cloud.desk,
            ListId.WALLETS,
            ListChange(added={wallet: ()}),
            actor="test",
            now_ms=route.story.cloud.clock.now_ms(),
        )


async def exported(route: Route, folder: Path, *more: str) -> Done:
    """The cloud's command."""
    process = CloudProcess(route.story.cloud.cloud.config.folder)
    words = ("sync", "export", str(folder), "--officer-file", str(route.token), *more)
    return await process.command(*words)


def revoked(route: Route) -> set[bytes]:
    """Who is revoked, as the gateway holds it."""
    return set(route.branch.opened.journal.state.lists[ListId.WALLETS].items)


def courier(route: Route) -> Courier:
    """The gateway's side, without a stick."""
    opened, clock = route.branch.opened, route.story.cloud.clock
    return Courier(
        opened, JournalPort(opened, folder=Folder(route.box.folder), clock=clock), clock=clock
    )


async def sent(route: Route) -> bytes:
    """What the issuer sends unasked now."""
    cloud = route.story.cloud.cloud
    made = await unasked(cloud.shards, cloud.desk, cloud.reconciler, journal=route.box.journal)
    return made.sealed


async def answered(route: Route) -> bytes:
    """The sealed answer to the gateway's next report."""
    made, cloud = await courier(route).export(), route.story.cloud
    now_ms = cloud.clock.now_ms()
    return (await cloud.cloud.exchange.answer_carried(made.sealed, now_ms=now_ms)).sealed


def _is_for(path: Path, journal: bytes) -> bool:
    label = read_label(path.name)
    assert label is not None and (label.first, label.end) == (0, 0)
    return label.journal == journal and label.exchange == UNASKED[:4]


async def test_a_stick_brings_each_gateway_what_is_its_own(
    route: Route, south: Box, tmp_path: Path
) -> None:
    folder, other = stick(tmp_path / "stick"), stick(tmp_path / "other")
    await exported(route, folder)
    before = files(folder, Kind.ANSWER)
    await route.pay()
    await revoke(route, REVOKED)
    held, acknowledged, size = await route.held(), route.acknowledged, route.size
    code, out, errors = await exported(route, folder)
    # An export again replaces the one before.
    assert (code, len(before)) == (0, len(files(folder, Kind.ANSWER))), errors
    assert set(before).isdisjoint(files(folder, Kind.ANSWER)) and "for north" in out
    (own,) = [path for path in files(folder, Kind.ANSWER) if _is_for(path, route.box.journal)]
    (foreign,) = [path for path in files(folder, Kind.ANSWER) if path != own]
    content = own.read_bytes()
    shutil.copy(foreign, other)
    (other / own.name).write_bytes(content[: len(content) // 2])
    (other / "renamed.cbs").write_bytes(content[:-1])
    done = await route.edge("sync", "import", str(other))
    assert (done[0], set(codes(done))) == (1, {"unknown-key", "courier-file-cut", "not-opened"})
    assert revoked(route) == set()
    done = await route.edge("sync", "import", str(folder))
    assert (done[0], sorted(codes(done))) == (3, ["courier-taken", "unknown-key"]), done
    assert revoked(route) == {REVOKED}
    # Nobody is said to hold anything by it, and what was paid is as it was.
    assert (route.acknowledged, await route.held()) == (acknowledged, held)
    assert (balance(route.branch, BERT), route.size > size) == (50, True)
    assert (await courier(route).take(content)).code == "courier-known"


async def test_what_cannot_be_exported_is_told(route: Route, tmp_path: Path) -> None:
    folder = stick(tmp_path / "stick")
    code, _, errors = await exported(route, folder, "--journal", "jnl1unknown")
    assert (code, "gateway-unknown" in errors) == (1, True)
    code, _, errors = await exported(route, tmp_path / "gone")
    assert (code, "courier-folder-gone" in errors) == (1, True)
    assert (await exported(route, folder, "--journal", journal_text(route.box.journal)))[0] == 0
    assert len(files(folder, Kind.ANSWER)) == 1


async def test_grants_that_are_signed_come_and_none_is_signed_for_it(route: Route) -> None:
    story, before = route.story, balance(route.branch, ANNA)
    await story.fund(route.box, ANNA, 70)
    # A report of the gateway has this one signed; the answer is lost on its way back, for now.
    late = await answered(route)
    await story.fund(route.box, ANNA, 5)
    assert (await courier(route).take(await sent(route))).code == "courier-taken"
    assert balance(route.branch, ANNA) == before + 70
    async with story.database.transaction() as connection:
        states = await connection.fetch("SELECT amount, state FROM funding")
    assert {row["amount"]: row["state"] for row in states}[5] == "held"
    # The answer comes after all: the grant counts once.
    assert (await courier(route).take(late)).code in ("courier-taken", "courier-known")
    assert balance(route.branch, ANNA) == before + 70
    await story.where()


async def test_what_was_on_its_way_for_long_takes_nothing_back(route: Route) -> None:
    old, first = await sent(route), route.branch.opened.journal.chain
    route.story.cloud.clock.wall_ms += 8 * DAY_MS
    await revoke(route, REVOKED)
    # A report gets the certificates renewed.
    assert (await courier(route).take(await answered(route))).well
    chain, size = route.branch.opened.journal.chain, route.size
    ends = [parse_certificate(certificates[0]).not_after_s for certificates in (first, chain)]
    assert ends[0] < ends[1] and revoked(route) == {REVOKED}
    assert (await courier(route).take(old)).code == "courier-known"
    assert (route.branch.opened.journal.chain, route.size) == (chain, size)
    assert revoked(route) == {REVOKED}


async def test_an_epoch_that_is_not_this_one_takes_nothing(route: Route) -> None:
    async with route.story.database.transaction() as connection:
        await connection.execute("UPDATE gateway SET epoch = epoch + 1")
    assert (await courier(route).take(await sent(route))).code == "exchange-foreign-answer"


async def test_objects_that_are_refused_are_named(route: Route) -> None:
    desk = route.story.cloud.cloud.desk
    down = Down(
        journal=JournalId(route.box.journal),
        epoch=1,
        exchange=UNASKED,
        acknowledged_size=0,
        objects=(b"\x80",),
    )
    async with route.story.database.transaction() as connection:
        gateway = await find_gateway(connection, route.box.journal)
    signed = await desk.sign_down(down_payload(down))
    outcome = await courier(route).take(seal(signed, recipient=gateway.hpke_key))
    assert (outcome.code, outcome.well) == ("courier-refused", False)


@pytest.mark.parametrize("state", ["suspended", "tpm"])
async def test_who_is_suspended_or_has_to_prove_itself_gets_no_value(
    route: Route, state: str
) -> None:
    story, before = route.story, balance(route.branch, ANNA)
    await story.fund(route.box, ANNA, 70)
    await answered(route)
    await revoke(route, REVOKED)
    async with story.database.transaction() as connection:
        if state == "tpm":
            # Its hardware is of no matter here: what it would have shown is left out.
            await connection.execute(
                "ALTER TABLE gateway_attestation DROP CONSTRAINT gateway_attestation_proven"
            )
            await connection.execute("UPDATE gateway_attestation SET level = $1", Level.TPM)
        else:
            await connection.execute("UPDATE gateway SET state = 'suspended'")
    assert (await courier(route).take(await sent(route))).code == "courier-taken"
    assert (revoked(route), balance(route.branch, ANNA)) == ({REVOKED}, before)
