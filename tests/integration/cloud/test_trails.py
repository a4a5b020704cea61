"""A gateway's audit log that was written anew, with its head and all, is found by the issuer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloud.database import Database
from cloud.issuer.gateways import Gateway, find_gateway
from cloud.trails.findings import Trail, reports_of, trails
from cloud.trails.following import FINDINGS_MAX, Breach, follow
from edge.errors import DaemonRefused
from edge.http.trail import AuditCheck
from edge.local_client import LocalClient
from sync.trail import HEALTH, Told, from_health, to_health
from tests.support.attested import Trust
from tests.support.cloud_branch import Funded, database_of, funded_branch
from tests.support.cloud_local import NOW_MS, LocalCloud, NewGateway, local_cloud
from tests.support.cloud_process import CloudProcess, running_cloud
from tests.unit.sync.test_trail import told
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import Up, verify_up
from wallet.protocol.ids import journal_text
from wallet.store.audit import page_audit
from wallet.store.connection import Connection
from wallet.store.meta import put_meta
from wallet.trail import AuditHead, next_head


def write_anew(connection: Connection, *, without: str) -> None:
    """What a thief with the store's key does: one act leaves, everything else is made to fit."""
    rows = [row for row in page_audit(connection, 0, 10_000) if row.action != without]
    connection.execute("DELETE FROM audit")
    place = AuditHead()
    for row in rows:
        following = next_head(place, time_ms=row.time_ms, action=row.action, details=row.details)
        connection.execute(
            "INSERT INTO audit (seq, time_ms, action, details, previous, hash)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (following.seq, row.time_ms, row.action, row.details, place.hash, following.hash),
        )
        place = following
    for name in ("audit-head", "audit-anchor"):
        put_meta(connection, name, str(place).encode())


async def shown(cloud: CloudProcess, *arguments: str) -> tuple[int, str]:
    """What `cbdc-cloud gateway audit` answers."""
    officer = str(cloud.officer_file("first"))
    code, out, errors = await cloud.command(
        "gateway", "audit", "--officer-file", officer, *arguments
    )
    assert errors == ""
    return code, out


async def check(made: Funded) -> AuditCheck:
    """What the gateway itself says of its log."""
    return await LocalClient(made.branch.folder).call("GET", "/audit/check", AuditCheck)


async def test_a_log_that_was_written_anew_with_its_head_is_found_with_evidence(
    tmp_path: Path,
) -> None:
    async with (
        running_cloud(tmp_path / "cloud") as cloud,
        funded_branch(cloud, tmp_path / "branch") as made,
    ):
        local = LocalClient(made.branch.folder)
        with pytest.raises(DaemonRefused):
            await local.call("DELETE", "/terminals/nobody", msgspec.Raw)
        await made.synchronise()
        await made.pay(5)
        await made.synchronise()
        code, out = await shown(cloud)
        assert (code, "in order" in out) == (0, True)

        act = "technician DELETE /terminals/{terminal}"
        await made.branch.opened.database.write(lambda c: write_anew(c, without=act))
        # The gateway's own check passes: nothing on its disk contradicts anything.
        assert (await check(made)).finding is None
        await made.synchronise()

        code, out = await shown(cloud, "--evidence", str(tmp_path / "evidence"))
        assert (code, "contradicts itself" in out) == (3, True), out
        value = json.loads((await shown(cloud, "--json"))[1])["trails"][0]
        (finding,) = value["findings"]
        assert finding["code"] in (Breach.REWRITTEN, Breach.SHORTENED), finding
        # Anybody who has the root can see it: both reports are the journal's, and contradict.
        root = TrustAnchor((cloud.folder / "root.der").read_bytes())
        logs = []
        for name in ("earlier", "later"):
            file = tmp_path / "evidence" / f"finding-{finding['finding']}-{name}.cose"
            up = verify_up(file.read_bytes(), root=root).claims
            assert journal_text(up.journal) == value["journal"]
            logs.append(from_health((up.health or {})[HEALTH]))
        assert logs[0].head not in logs[1].places
        # It warns, and stops nobody; what is found once is not found again.
        await made.pay(5)
        await made.synchronise()
        assert len(json.loads((await shown(cloud, "--json"))[1])["trails"][0]["findings"]) == 1
        async with database_of(cloud) as connection:
            topics = await connection.fetch("SELECT topic FROM outbox")
            states = await connection.fetch("SELECT state FROM journal_epoch")
        assert "gateway.audit-log" in [row["topic"] for row in topics]
        assert [row["state"] for row in states] == ["open"]


# ---- what the issuer keeps ----------------------------------------------------------------


class Site:
    """One enrolled gateway, and what it tells."""

    def __init__(self, cloud: LocalCloud, gateway: NewGateway) -> None:
        self.cloud = cloud
        self.gateway = gateway

    async def tell(
        self, log: Told | None, *, acknowledged: int = 0, raw: Any = None
    ) -> Breach | None:
        """One report."""
        health = {HEALTH: raw if log is None else to_health(log)}
        up = Up(
            journal=self.gateway.journal,
            epoch=1,
            exchange=bytes(16),
            acknowledged_size=acknowledged,
            entries=(),
            checkpoint=b"\x80",
            newest={},
            health=None if log is None and raw is None else health,
        )
        async with self.cloud.cloud.database.transaction() as c:
            gateway: Gateway = await find_gateway(c, up.journal)
            report = b"report %d" % (0 if log is None else log.head.seq)
            return await follow(c, gateway, up, report, now_ms=NOW_MS)

    async def trail(self) -> Trail:
        """What officers see."""
        async with self.cloud.cloud.database.transaction() as c:
            (found,) = await trails(c)
        return found


@pytest.fixture
async def site(database: Database, tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway that is enrolled."""
    async with local_cloud(database, tmp_path) as cloud:
        trust = await Trust.of(cloud)
        gateway = NewGateway("one")
        status, _ = await gateway.enrol(cloud, await trust.token("software"))
        assert status == 201
        yield Site(cloud, gateway)


async def test_the_newest_head_is_kept_and_a_report_that_comes_again_changes_nothing(
    site: Site,
) -> None:
    first, second = told("a", "b"), told("a", "b", "c")
    for log in (first, second, second, first):
        assert await site.tell(log) is None
    found = await site.trail()
    assert (found.row, found.hash, found.findings) == (3, second.head.hash, [])


async def test_after_a_contradiction_the_next_one_is_found_as_well(site: Site) -> None:
    logs = [told("a", "b"), told("a", "x"), told("a", "y", "c")]
    assert [await site.tell(log) for log in logs] == [None, Breach.REWRITTEN, Breach.REWRITTEN]
    # The same row of the same epoch is noted once: both reports of the first time stay.
    (one,) = (await site.trail()).findings
    assert (one.row, one.told) == (2, 2)
    async with site.cloud.cloud.database.transaction() as c:
        reports = await reports_of(c, one.finding_id)
    assert (reports.earlier, reports.later) == (b"report 2", b"report 2")


@pytest.mark.parametrize("raw", [None, {"rows": 3, "head": bytes(32)}, "nonsense"])
async def test_who_told_of_a_log_once_has_to_go_on(site: Site, raw: Any) -> None:
    assert await site.tell(None, raw=raw) is None
    assert await site.tell(told("a")) is None
    assert await site.tell(None, raw=raw) is Breach.UNTOLD
    (one,) = (await site.trail()).findings
    assert (one.code, one.row, one.told) == (Breach.UNTOLD, 1, None)
    assert "row 1 was told" in one.sentence


async def test_an_issuer_that_has_forgotten_entries_accuses_nobody(site: Site) -> None:
    await site.tell(told("a"))
    later = told("d", since=told("a", "b", "c").head)
    assert await site.tell(later, acknowledged=7) is None
    assert await site.tell(told("a", "b", "c", "d")) is None


async def test_findings_are_bounded(site: Site) -> None:
    await site.tell(told("a"))
    for number in range(1, FINDINGS_MAX + 3):
        await site.tell(told(*[str(number)] * (number + 1)))
    assert len((await site.trail()).findings) == FINDINGS_MAX


async def test_officers_see_it_and_others_do_not(site: Site) -> None:
    await site.tell(told("a"))
    await site.tell(told("x", "b"))
    async with site.cloud.api(await site.cloud.officer("looks")) as api:
        status, page = await api.get("/v1/issuer/trails")
        assert status == 200
        (trail,) = page["trails"]
        (finding,) = trail["findings"]
        assert trail["head"] == str(told("x", "b").head)
        assert finding["code"] == "audit-log-rewritten"
        status, reports = await api.get(f"/v1/issuer/trails/{finding['finding']}")
        assert (status, len(reports)) == (200, 2)
        status, problem = await api.get("/v1/issuer/trails/999")
        assert (status, problem["code"]) == (404, "finding-unknown")
    async with site.cloud.api() as api:
        assert (await api.get("/v1/issuer/trails"))[0] == 401
