"""What the gateway reports of its journal: bounded segments, what is held, and to whom."""

import shutil
from pathlib import Path
from typing import Any

from edge.folder import Folder
from edge.health import gateway_answer
from edge.journal_port import JournalPort, fitting
from edge.pos.purse import DeviceKey
from hsm import software
from tests.integration.edge.conftest import Template
from tests.support.branch_local import (
    DAY_MS,
    PASSPHRASE,
    Branch,
    config_of,
    provision_light,
    running,
)
from tests.support.live_issuer import EnrolmentCloud, LiveIssuer
from wallet.protocol import issued
from wallet.protocol.receipt import verify_checkpoint
from wallet.protocol.sealed import short_id

EXCHANGE = bytes(16)


def port_of(branch: Branch) -> JournalPort:
    """The port of a running gateway."""
    return JournalPort(
        branch.opened, folder=branch.folder, clock=branch.daemon.context.gateway.clock
    )


async def limit(branch: Branch, sequence: int, journal: dict[int, int]) -> None:
    """A newer policy with these limits of the whole journal."""
    intake = await branch.take(branch.issuer.policy(journal=journal, sequence=sequence))
    assert (intake.taken, intake.refused) == (1, [])


async def end_of(branch: Branch, *, entries_max: int) -> int:
    """Where the journal itself would end a segment."""
    end = await branch.opened.journal.segment_end(entries_max=entries_max)
    assert end is not None
    return end[0]


async def test_a_segment_ends_at_the_last_checkpoint_that_its_bytes_allow(
    branch: Branch, keys: dict[str, DeviceKey]
) -> None:
    journal, port = branch.opened.journal, port_of(branch)
    name, alice = journal.state.journal, keys["alice"].public.id
    # Grants bring their certificates: fewer fit than are read at first.
    first = journal.state.grants_next
    grants = [branch.issuer.grant(name, alice, 1, sequence=first + n) for n in range(150)]
    assert (await branch.take(*grants)).taken == len(grants)
    least = await end_of(branch, entries_max=1)
    near = await end_of(branch, entries_max=100)
    far = await end_of(branch, entries_max=near + 80)
    assert 1 < least < near < far
    entries = await journal.entries(0, far)
    size = sum(map(len, entries))
    for sequence, bytes_max, end in ((1, size, far), (2, size - 1, near), (3, 1, least)):
        await limit(branch, sequence, {114: bytes_max, 115: 1_000})
        segment = await port.segment()
        assert segment is not None and segment.acknowledged == 0
        assert list(segment.entries) == entries[:end]
        head = verify_checkpoint(segment.checkpoint, root=journal.anchor, grace_s=0)
        assert head.size == end


async def test_a_journal_that_the_issuer_holds_whole_reports_no_entry(branch: Branch) -> None:
    journal = branch.opened.journal
    await journal.acknowledge(journal.state.size)
    prepared = await port_of(branch).up(EXCHANGE)
    assert prepared is not None
    up, leaves = prepared
    assert (up.entries, up.collected, leaves) == ((), (), [])
    assert up.acknowledged_size == journal.state.size


async def test_a_report_names_the_newest_of_everything_that_is_held(
    branch: Branch, tmp_path: Path
) -> None:
    assert await port_of(branch).held() == {0: 0, 1: 3, 11: 0, 12: 0, 15: 0, 16: 0}
    await branch.take(keys_of(branch.issuer, sequence=5, until=[DAY_MS]))
    assert (await port_of(branch).held())[2] == 5
    cloud = EnrolmentCloud(branch.issuer, tmp_path)
    await cloud.start()
    await provision_light(tmp_path / "bare", cloud)
    await cloud.stop()
    async with running(config_of(tmp_path / "bare"), branch.issuer) as bare:
        assert await port_of(bare).held() == {0: 0}


def keys_of(issuer: LiveIssuer, *, sequence: int, until: list[int]) -> bytes:
    """The issuer's signed keys; the public halves are the numbers of their places."""
    publics = [bytes([number]) * 32 for number, _ in enumerate(until, 1)]
    listed: list[Any] = [
        [short_id(public), public, end] for public, end in zip(publics, until, strict=True)
    ]
    return issuer.issue(issued.KEYS_TYPE, {2: sequence, 3: listed})


async def test_keys_that_have_run_out_are_better_than_never_synchronising_again(
    branch: Branch,
) -> None:
    port = port_of(branch)
    assert await port.recipient() is None
    await branch.take(keys_of(branch.issuer, sequence=0, until=[1, 3, 2]))
    assert await port.recipient() == b"\x02" * 32


async def test_a_store_that_was_rolled_back_reports_nothing(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    token = await software.open_token(Folder(folder).token, passphrase=PASSPHRASE)
    for _ in range(2):
        await token.counter.increment()
    await token.close()
    async with running(config_of(folder), template.issuer) as branch:
        assert branch.opened.journal.mode == "frozen-rollback"
        status = gateway_answer(branch.daemon.context.gateway, online=None)
        assert "enrol for the next one" in (status.cause or "")
        assert await port_of(branch).up(EXCHANGE) is None


def test_at_least_one_entry_fits_whatever_its_size() -> None:
    entries = [bytes(10), bytes(20), bytes(30)]
    assert [fitting(entries, bytes_max=size) for size in (1, 10, 29, 30, 59, 60, 99)] == [
        1,
        1,
        1,
        2,
        2,
        3,
        3,
    ]
