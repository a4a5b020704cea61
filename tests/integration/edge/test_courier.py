"""A gateway's side of a courier: what each answer comes to, in whatever state it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from edge.carried import Stage, list_carried
from edge.courier import Courier, Exported
from edge.errors import DaemonRefused
from edge.http.local_courier import ExportedAnswer, TakenAnswer, WrittenAnswer
from edge.http.octets import to_text
from edge.local_client import LocalClient
from edge.pos.purse import DeviceKey
from sync.courier import Fate, Outcome
from sync.errors import Code
from sync.exchange import open_up
from tests.support.branch_local import Branch, config_of, provision_light, running
from tests.support.live_issuer import LiveIssuer, funded
from tests.support.sync_cloud import SyncCloud
from wallet.journal import Receipted
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import Up
from wallet.store.audit import audit_anchor
from wallet.store.objects import CollectedReceipt, add_receipt, oldest_receipts
from wallet.trail import AuditHead

SEGMENT = {115: 3}


class Site(msgspec.Struct):
    """A gateway that no line reaches, and its issuer."""

    branch: Branch
    cloud: SyncCloud
    alice: DeviceKey
    shop: DeviceKey

    @property
    def courier(self) -> Courier:
        """Who makes reports."""
        return self.branch.daemon.courier()

    @property
    def local(self) -> LocalClient:
        """What the commands talk to."""
        return LocalClient(self.branch.folder)

    async def pay(self, count: int = 1) -> None:
        """Payments of a cent."""
        for _ in range(count):
            order = self.branch.order(self.alice, self.shop.public.id, 1)
            assert isinstance(await self.branch.opened.journal.pay(order), Receipted)

    async def export(self) -> list[Exported]:
        """All reports, as they lie on a stick."""
        made: list[Exported] = []
        while not made or made[-1].label.end < made[-1].size:
            made.append(await self.courier.export(made[-1].label.end if made else None))
            assert await self.courier.written(made[-1].exchange)
        return made

    def opened(self, made: Exported) -> Up:
        """What the issuer finds in it."""
        root = TrustAnchor(self.cloud.issuer.root)
        return open_up(made.sealed, keys=self.cloud.hpke, root=root).claims

    def answer(self, made: Exported) -> bytes:
        """The issuer's answer."""
        return self.cloud.answer(self.opened(made))

    async def stages(self) -> list[Stage]:
        """How far each report came."""
        return [held.stage for held in await self.branch.opened.database.read(list_carried)]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Segments of three entries."""
    alice, shop = DeviceKey(b"\x01" * 32), DeviceKey(b"\x02" * 32)
    cloud = SyncCloud(LiveIssuer(), tmp_path)
    objects = funded([alice, shop], journal=SEGMENT)
    cloud.objects = lambda journal: [*objects(cloud.issuer, journal), cloud.keys()]
    await cloud.start()
    await provision_light(tmp_path / "gateway", cloud)
    async with running(config_of(tmp_path / "gateway"), cloud.issuer) as branch:
        yield Site(branch, cloud, alice, shop)
    await cloud.stop()


async def test_reports_follow_each_other_and_their_answers_may_come_in_any_order(
    site: Site,
) -> None:
    await site.pay(4)
    made = await site.export()
    labels = [one.label for one in made]
    assert len(made) > 2 and labels[0].first == 0 and labels[-1].end == made[-1].size
    assert [one.first for one in labels[1:]] == [one.end for one in labels[:-1]]
    answers = [site.answer(one) for one in made]
    outcomes = [await site.courier.take(sealed) for sealed in reversed(answers)]
    assert {one.code for one in outcomes} <= {Fate.TAKEN, Fate.KNOWN}
    journal = site.branch.opened.journal
    assert journal.acknowledged == made[-1].size == len(site.cloud.entries)
    assert set(await site.stages()) == {Stage.ANSWERED}
    assert (await site.courier.take(answers[0])).code == Fate.KNOWN
    # The issuer's settlement became an entry, which the next stick tells of.
    assert (await site.courier.export()).label.first == made[-1].size


async def test_an_answer_that_says_less_than_the_report_knew_goes_back_once(site: Site) -> None:
    journal = site.branch.opened.journal
    (first,) = [await site.courier.export()]
    await site.courier.take(site.answer(first))
    second = await site.courier.export()
    site.cloud.entries.clear()
    lost = site.cloud.answer(msgspec.structs.replace(site.opened(second), entries=()), keep=False)
    rewound = await site.courier.take(lost)
    assert (rewound.code, journal.acknowledged) == (Fate.REWOUND, 0)
    assert not rewound.well
    # Of the audit log it may have lost as much.
    assert await site.branch.opened.database.read(audit_anchor) == AuditHead()
    # Once it has all again, the old word counts for nothing.
    again = await site.courier.export()
    await site.courier.take(site.answer(again))
    held = journal.acknowledged
    assert held > 0
    repeated = await site.courier.take(lost)
    assert (repeated.code, journal.acknowledged) == (Fate.KNOWN, held)


async def test_a_stick_that_came_before_the_one_it_follows_is_to_be_brought_again(
    site: Site,
) -> None:
    await site.pay(4)
    first, second, *_ = await site.export()
    read = site.branch.opened.database.read
    anchor = await read(audit_anchor)
    early = await site.courier.take(site.cloud.answer(site.opened(second), keep=False))
    assert (early.code, early.well) == (Fate.EARLY, False)
    assert f"from {first.label.first} on" in early.sentence
    assert (await site.stages())[:2] == [Stage.WRITTEN, Stage.WRITTEN]
    # The issuer has not followed the audit log that it told: the next report tells it again.
    assert await read(audit_anchor) == anchor
    assert (await site.courier.take(site.answer(first))).code == Fate.TAKEN
    assert await read(audit_anchor) > anchor


async def test_a_report_of_which_nothing_was_kept_stands_for_nothing(site: Site) -> None:
    made = await site.export()
    size = made[-1].size
    assert await site.courier.reached() == size
    site.cloud.problem = "frozen-by-issuer"
    refused = await site.courier.take(site.answer(made[0]))
    assert (refused.code, "frozen-by-issuer" in refused.sentence) == (Fate.REFUSED, True)
    assert await site.courier.reached() == 0


async def refused(site: Site, sealed: bytes) -> tuple[str, str]:
    """Code and sentence of what changes nothing."""
    before = site.branch.opened.journal.acknowledged
    outcome = await site.courier.take(sealed)
    assert site.branch.opened.journal.acknowledged == before
    assert not outcome.well
    return outcome.code, outcome.sentence


async def test_answers_that_are_not_ours_are_told_apart(site: Site) -> None:
    made = await site.courier.export()
    up = site.opened(made)
    good = site.answer(made)
    other = msgspec.structs.replace(up, exchange=b"\x01" * 16)
    assert (await refused(site, site.cloud.answer(other, keep=False)))[0] == Code.UNKNOWN_REPORT
    elsewhere = msgspec.structs.replace(up, epoch=7)
    assert await refused(site, site.cloud.answer(elsewhere, keep=False)) == (
        Code.FOREIGN_ANSWER,
        "it is for another journal or epoch",
    )
    code, sentence = await refused(site, good[:-40])
    assert (code, "copy the file" in sentence) == ("not-opened", True)
    assert (await refused(site, good[:20]))[1] == "it is no sealed answer"
    # A gateway's own report lies where its answer should.
    assert await refused(site, made.sealed) == ("unknown-key", "it is sealed for another gateway")
    stranger = LiveIssuer("stranger")
    forged = site.cloud.answer(up, keep=False, issuer=stranger)
    assert await refused(site, forged) == (
        "certificate-invalid",
        "who signed it is not this gateway's issuer",
    )
    site.cloud.entries += [b"x"] * 50
    beyond = site.cloud.answer(up, keep=False)
    assert (await refused(site, beyond))[0] == Code.ACKNOWLEDGED_BEYOND


async def test_collected_receipts_travel_with_the_first_and_stay_until_it_is_answered(
    site: Site,
) -> None:
    database = site.branch.opened.database
    kept = CollectedReceipt(hash=b"\x07" * 32, entry=b"\x80", receipt=b"\x80", state="kept")
    await database.write(lambda c: add_receipt(c, kept))
    await site.pay(4)
    made = await site.export()
    assert [len(site.opened(one).collected) for one in made[:2]] == [1, 0]
    answers = [site.answer(one) for one in made]
    await site.courier.take(answers[1])
    assert len(await database.read(lambda c: oldest_receipts(c, 9))) == 1
    await site.courier.take(answers[0])
    assert await database.read(lambda c: oldest_receipts(c, 9)) == []


async def test_the_issuer_was_told_the_audit_log_once_its_answer_came(site: Site) -> None:
    made = await site.courier.export()
    told = (site.opened(made).health or {})["audit"]
    database = site.branch.opened.database
    assert (await database.read(audit_anchor)).seq == 0
    await site.courier.take(site.answer(made))
    assert (await database.read(audit_anchor)).seq == told["rows"]


async def test_the_local_socket_makes_reports_confirms_them_and_takes_answers(site: Site) -> None:
    body = {"first": 2**53 - 1}
    made = await site.local.call("POST", "/courier/reports", ExportedAnswer, body=body)
    assert made.first == made.end == made.size
    made = await site.local.call("POST", "/courier/reports", ExportedAnswer, body={})
    assert made.name.endswith(".up.cbs") and made.first == 0
    path = f"/courier/reports/{made.exchange}/written"
    done = await site.local.call("POST", path, WrittenAnswer, body={})
    assert (done.reached, done.size) == (made.end, made.size)
    body = {"further": True}
    more = await site.local.call("POST", "/courier/reports", ExportedAnswer, body=body)
    assert more.first == made.end
    for wrong in ("00" * 16, "zz"):
        with pytest.raises(DaemonRefused) as caught:
            path = f"/courier/reports/{wrong}/written"
            await site.local.call("POST", path, WrittenAnswer, body={})
        assert caught.value.problem == "parameter-invalid"
    answer = {"sealed": to_text(b"nothing of the kind")}
    taken = await site.local.call("POST", "/courier/answers", TakenAnswer, body=answer)
    assert (taken.code, taken.acknowledged) == ("malformed", 0)


async def test_a_gateway_without_the_issuers_keys_writes_no_report(branch: Branch) -> None:
    with pytest.raises(DaemonRefused) as caught:
        await LocalClient(branch.folder).call("POST", "/courier/reports", ExportedAnswer, body={})
    assert caught.value.problem == "sync-unavailable"


def test_an_outcome_is_well_when_nothing_is_left_to_do() -> None:
    well = [fate for fate in Fate if Outcome(code=fate, sentence="").well]
    assert well == [Fate.TAKEN, Fate.KNOWN]
