"""The cloud's process is killed while a report is on its way; the same report comes again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from sync.errors import TransportError
from tests.support.cloud_branch import (
    Funded,
    Report,
    check_books,
    database_of,
    funded_branch,
    kill_with_database,
    waits_for,
)
from tests.support.cloud_process import CloudProcess, running_cloud
from wallet.protocol.envelope import Down
from wallet.protocol.issued import Settlement, decode_issued

PAYMENTS = 25


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cloud stands when it is killed: it waits for `table`, which a test keeps locked.

    Without a table it has answered. `power`: PostgreSQL dies with it.
    """

    table: str | None
    power: bool


# In the order in which a report touches them: postings are being written; then entries; then the
# settlement, the last before the commit; then all is committed and not answered; then it is.
MOMENTS = [
    Moment(table="ledger_transfer", power=True),
    Moment(table="journal_segment", power=False),
    Moment(table="settlement", power=False),
    Moment(table="gateway", power=True),
    Moment(table=None, power=False),
]


async def kill_at(made: Funded, report: Report, moment: Moment) -> None:
    """Send the report and kill the cloud at the moment; nobody hears the answer."""
    if moment.table is None:
        await made.send(report)
        await kill(made.cloud, moment)
        return
    async with database_of(made.cloud) as holding, database_of(made.cloud) as watching:
        await holding.execute(f"BEGIN; LOCK TABLE {moment.table} IN EXCLUSIVE MODE")
        sending = asyncio.create_task(made.send(report))
        await waits_for(watching, moment.table)
        await kill(made.cloud, moment)
        with pytest.raises(TransportError):
            await sending


async def kill(cloud: CloudProcess, moment: Moment) -> None:
    """SIGKILL."""
    await (kill_with_database(cloud) if moment.power else cloud.kill())


def settlements(down: Down) -> list[Settlement]:
    """Those in an answer."""
    found = [decode_issued(raw) for raw in down.objects if raw[:1] != b"\x30"]
    return [item for item in found if isinstance(item, Settlement)]


async def test_a_report_that_a_kill_cut_off_comes_again_and_counts_once(tmp_path: Path) -> None:
    async with (
        running_cloud(tmp_path / "cloud") as cloud,
        funded_branch(cloud, tmp_path / "one") as made,
    ):
        for number, moment in enumerate(MOMENTS):
            await made.pay(*range(number * PAYMENTS + 1, (number + 1) * PAYMENTS + 1))
            report = await made.report()
            await kill_at(made, report, moment)
            await cloud.start()
            first = await made.send(report)
            again = await made.send(report)
            # It holds all of it, and says so to whoever asks again: by the same settlement.
            assert (first.problem, first.acknowledged_size) == (None, report.size), moment
            (settlement,) = settlements(first)
            root = await made.journal.root_at(report.size)
            assert (settlement.size, settlement.root) == (report.size, root)
            assert settlement.verdicts == ()
            assert again.acknowledged_size == report.size
            assert settlements(again) == [settlement]
            await check_books(made, size=report.size)
            await made.port.take(first)
            assert made.journal.state.settled_size == report.size
        paid = sum(range(1, len(MOMENTS) * PAYMENTS + 1))
        assert made.balance(made.payee) == paid
        await made.synchronise()
        await check_books(made, size=made.journal.acknowledged)
