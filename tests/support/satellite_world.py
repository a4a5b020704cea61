"""A whole branch and a whole cloud over a satellite, whose bytes cost, with budgets that run out.

Run as a program in a user namespace (`run_satellite`). The branch was away and has much to tell, a
large list waits for it; then it has nothing to tell; then its budgets end, that of probes at a
portal in the way and that of the day by payments; and a person asks all the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from edge.http.links import LineAnswer
from edge.http.local import SyncAnswer
from edge.pos.client import Client
from edge.pos.terminal import Terminal
from sync.line import EXCHANGE_BYTES_MIN, PROBE_BYTES
from tests.support.branch_world import FUNDS, GOOD, WAIT_S, World, played
from tests.support.cloud_branch import database_of, done
from tests.support.link_world import CASES, run_apart
from tests.support.packets import Passed
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.entry import EntryKind, decode_entry
from wallet.protocol.envelope import verify_up
from wallet.protocol.ids import wallet_text

MOST_S = 200.0
SATELLITE = CASES["satellite"].quality
# More than a first segment holds, and a list that no first answer has room for.
BACKLOG, LISTED = 80, 900
# The backlog, the list and a few sessions, in which no other may begin with too little; one probe.
DAY_BYTES, PROBES_BYTES = EXCHANGE_BYTES_MIN + 59_000, PROBE_BYTES + 3_500
# Nothing is told by itself while this one holds.
_AWAY = '[sync]\ninterval_s = 3600\n[[sync.links]]\ninterface = "tun-*"\nkind = "metered"\n'
_SATELLITE = """
[sync]
interval_s = 1
timeout_s = 10
[[sync.links]]
interface = "tun-*"
kind = "satellite"
day_bytes_max = {day}
probe_day_bytes_max = {probes}
"""
# Payments, or seconds, in which the timer wakes the engine more than once.
QUIET_PAYMENTS, QUIET_S = 12, 2
STILL_S, SILENT_S_MAX, STATE_S_MAX = 1.0, 30, 60
# The cloud keeps one report of a journal; here each of them is kept, and none of them judged.
_KEEP_REPORTS = """
CREATE TABLE kept_report (number bigint GENERATED ALWAYS AS IDENTITY, report bytea NOT NULL);
CREATE FUNCTION keep_report() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO kept_report (report) VALUES (NEW.report); RETURN NULL; END $$;
DELETE FROM gateway_trail;
CREATE TRIGGER keep_report BEFORE INSERT ON gateway_trail
FOR EACH ROW EXECUTE FUNCTION keep_report();
"""


class Satellite(World):
    """The same two, with another afternoon."""

    async def _play(self) -> None:
        self.began_s = time.monotonic()
        await self.cloud_side.run(self._found())
        self._enter("enrol")
        await self._enrol()
        self._enter("pair")
        till = await self.daemon.pair(self.folder / "till")
        # A till knows its gateway by the port that it was paired with.
        self.daemon.settings = [f"listen.port={self.daemon.ports['port']}"]
        async with Client(till) as client:
            self._enter("paying")
            for _ in range(BACKLOG):
                await self._pay_once(client)
        await self.cloud_side.run(self._watch_reports())
        await self._over_the_satellite()
        await self._tell_all()
        await self._spend(till)
        self.wire.quality = GOOD
        self._enter("agreeing")
        await self._agree(till_url=till.url)

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.told.setdefault("entered_s", {})[phase] = time.monotonic() - self.began_s

    async def _funded(self) -> None:
        async with asyncio.timeout(WAIT_S):
            while (await self._status()).balance_total != FUNDS:
                await self._ask()

    async def _over_the_satellite(self) -> None:
        """Start the gateway anew: its budgets are these on top of what it has spent."""
        line = await self._line()
        day, most = line.day_bytes + DAY_BYTES, line.probe_day_bytes + PROBES_BYTES
        self.told |= {"day_max": day, "probes_max": most}
        assert await self.daemon.stop() == 0
        self.config.write_text(_SATELLITE.format(day=day, probes=most))
        self.wire.quality = SATELLITE
        self.passed = self.wire.passed(self.branch.end)
        await self.daemon.start()
        # What was counted before came with it.
        self.counted = await self._counted()

    # ---- value first ------------------------------------------------------------------------
    async def _tell_all(self) -> None:
        """The backlog goes, the list comes; then there is nothing to tell, and nothing is told."""
        self._enter("backlog")
        size = (await self._status()).size or 0
        await self._until(lambda line: line.state == "metered")
        status = await self._status()
        self.told["backlog"] = {"size": size, "settled": status.settled}
        self._enter("rest")
        left_s = status.certificate_left_s or 0

        async def rested() -> None:
            nonlocal left_s
            left_s -= QUIET_S
            await self.daemon.wait_for(lambda status: (status.certificate_left_s or 0) <= left_s)

        await self._silent(rested)
        self.told["rest"] = await self._counts()
        self.told["reports"] = await self.cloud_side.run(self._reported())

    # ---- budgets ----------------------------------------------------------------------------
    async def _spend(self, till: Terminal) -> None:
        """Somebody pays; probes end at a portal, and the day's bytes by what is told."""
        async with Client(till) as client, self._paying(client):
            self._enter("probes")
            self.wire.turn(self.branch.end, self.portal_side.end)
            await self._until(lambda line: line.state == "captive" and line.held_s > 0)
            # The portal goes; the gateway must not look for that.
            self.wire.turn(self.branch.end, self.cloud_side.end)
            await self._silent(self._paid_some)
            self.told["probes"] = await self._counts()
            self._enter("asked")
            self.told["asked"] = (await self._ask()).result
            self._enter("day")
            await self._until(lambda line: line.state == "metered" and line.held_s > 0)
            command = asyncio.create_task(self.daemon.command.edge("status"))
            await self._silent(self._paid_some)
            self.told["day"] = await self._counts()
            status = await self._status()
            self.told["waiting"] = (status.size or 0) - (status.acknowledged or 0)
            _, self.told["shown"], _ = await command

    async def _paid_some(self) -> None:
        goal = len(self.paid) + QUIET_PAYMENTS
        async with asyncio.timeout(WAIT_S):
            while len(self.paid) < goal:
                await asyncio.sleep(0.05)

    async def _until(self, check: Callable[[LineAnswer], bool]) -> None:
        async with asyncio.timeout(STATE_S_MAX):
            while not check(await self._line()):
                await asyncio.sleep(0.05)

    async def _silent(self, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Wait until nothing goes over the line meanwhile: a connection may still be ending."""
        async with asyncio.timeout(SILENT_S_MAX):
            while True:
                before = await self._still()
                await meanwhile()
                if self.wire.passed(self.branch.end) == before:
                    return

    async def _still(self) -> Passed:
        """Wait until nothing went for longer than there and back; what had passed."""
        seen, since_s = self.wire.passed(self.branch.end), time.monotonic()
        while time.monotonic() - since_s < STILL_S:
            await asyncio.sleep(0.05)
            now = self.wire.passed(self.branch.end)
            if now != seen:
                seen, since_s = now, time.monotonic()
        return seen

    # ---- what is looked at ------------------------------------------------------------------
    async def _status(self) -> Any:
        return await self.daemon.wait_for(lambda status: True)

    async def _ask(self) -> SyncAnswer:
        return await self.daemon.local.call("POST", "/sync", SyncAnswer, body={})

    async def _counted(self) -> dict[str, int]:
        """Bytes each way, as the gateway shows them."""
        line = await self._line()
        return {way: sum(getattr(one, way) for one in line.counted) for way in ("sent", "received")}

    async def _counts(self) -> dict[str, Any]:
        """The gateway's own count since it started, the wire's, and what is shown."""
        line, counted = await self._line(), await self._counted()
        own = {way: counted[way] - before for way, before in self.counted.items()}
        passed: Passed = self.wire.passed(self.branch.end).since(self.passed)
        return {
            "own": own,
            "wire": {"sent": passed.sent, "received": passed.received},
            "connections": len(passed.ports),
            "kind": line.kind,
            "state": line.state,
            "held_s": line.held_s,
            "spent": line.day_bytes,
            "left": line.day_bytes_left,
            "probes_spent": line.probe_day_bytes,
            "probes_left": line.probe_day_bytes_left,
            "counted": sum(counted.values()),
            "probes_counted": sum(
                one.sent + one.received for one in line.counted if one.purpose == "probe"
            ),
            "metrics": await self._metrics(),
        }

    async def _metrics(self) -> int:
        """All bytes of the line, as the metrics have them."""
        url = f"http://127.0.0.1:{self.daemon.ports['metrics_port']}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            text = await response.text()
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "cbdc_sync_bytes_total"
        )

    # ---- the cloud ----------------------------------------------------------------------------
    async def _watch_reports(self) -> None:
        """Keep each report from now on; revoke many wallets that nobody has."""
        async with database_of(self.cloud) as connection:
            await connection.execute(_KEEP_REPORTS)
        add = [{"id": wallet_text(secrets.token_bytes(20))} for _ in range(LISTED)]
        async with self.cloud.api(self.cloud.officer("first")) as first:
            await done(first, "/v1/issuer/lists/wallets", {"add": add})

    async def _reported(self) -> list[dict[str, Any]]:
        """What each report told."""
        root = TrustAnchor((self.cloud.folder / "root.der").read_bytes())
        async with database_of(self.cloud) as connection:
            rows = await connection.fetch("SELECT report FROM kept_report ORDER BY number")
        ups = [verify_up(row["report"], root=root).claims for row in rows]
        return [
            {
                "first": up.acknowledged_size,
                "end": up.acknowledged_size + len(up.entries),
                "health": sorted(up.health or {}),
            }
            for up in ups
        ]

    async def _cloud_books(self) -> dict[str, Any]:
        async with database_of(self.cloud) as connection:
            rows = await connection.fetch("SELECT entry FROM journal_entry ORDER BY index")
        kinds = [EntryKind(decode_entry(row["entry"]).kind).name for row in rows]
        return {**await super()._cloud_books(), "kinds": kinds}


def run_satellite() -> dict[str, Any]:
    """Play it in a process with namespaces of its own; what came of it."""
    return run_apart("tests.support.satellite_world", most_s=MOST_S + 50)


if __name__ == "__main__":
    print(json.dumps(played(lambda folder: Satellite(folder, config=_AWAY), most_s=MOST_S)))
    sys.stdout.flush()
    os._exit(0)
