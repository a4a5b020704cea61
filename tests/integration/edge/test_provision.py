"""Provisioning: once, resumable after a kill, and refusing what does not hold."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.errors import AlreadyProvisioned, EnrolmentFailed
from edge.folder import Folder
from edge.gateway import Gateway
from edge.provision import Wish, provision
from hsm import software
from hsm.keyfile import LIGHT
from tests.support.branch import Command
from tests.support.branch_local import PASSPHRASE, config_of, provision_light
from tests.support.live_issuer import ENROLMENT_TOKEN, EnrolmentCloud, LiveIssuer
from wallet.clock import SystemClock
from wallet.journal import Mode


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[EnrolmentCloud]:
    """A cloud that enrols."""
    made = EnrolmentCloud(LiveIssuer(), tmp_path)
    await made.start()
    yield made
    await made.stop()


async def prepare(folder: Path) -> None:
    """Keys that open fast."""
    Folder(folder).prepare()
    await (await software.create(Folder(folder).token, passphrase=PASSPHRASE, cost=LIGHT)).close()


async def attempt(folder: Path, made: EnrolmentCloud, **changes: str) -> str:
    """One run of the command."""
    given = {"cloud": made.url, "cloud_ca": made.ca.read_text()}
    wish = msgspec.convert({"enrolment_token": ENROLMENT_TOKEN, **given, **changes}, Wish)
    steps: list[str] = []
    journal = await provision(
        config_of(folder), wish, secret=PASSPHRASE, clock=SystemClock(), say=steps.append
    )
    assert steps == ["keys", "enrolment", "journal"]
    return journal


async def test_a_gateway_is_provisioned_once(cloud: EnrolmentCloud, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    await prepare(folder)
    journal = await attempt(folder, cloud)
    assert cloud.enrolled is not None and cloud.enrolled.calls == 1
    with pytest.raises(AlreadyProvisioned):
        await attempt(folder, cloud)
    gateway = Gateway(config_of(folder), secret=PASSPHRASE, clock=SystemClock())
    assert await gateway.open() is Mode.OPEN
    assert await gateway.open() is Mode.OPEN
    assert gateway.opened is not None
    assert gateway.opened.journal.status().journal == journal
    await gateway.close()
    await gateway.close()


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_keys(
    cloud: EnrolmentCloud, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    await prepare(folder)
    cloud.fail_next = True
    with pytest.raises(EnrolmentFailed, match="status 502"):
        await attempt(folder, cloud)
    assert cloud.enrolled is not None
    first = cloud.enrolled.body
    await attempt(folder, cloud)
    assert cloud.enrolled.body == first and cloud.enrolled.calls == 2
    gateway = Gateway(config_of(folder), secret=PASSPHRASE, clock=SystemClock())
    assert await gateway.open() is Mode.OPEN
    await gateway.close()


async def test_a_gateway_killed_between_its_steps_goes_on_where_it_was(
    cloud: EnrolmentCloud, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    await prepare(folder)
    # Objects that fail after the journal was opened: the run stops half way.
    calls = 0

    def objects(journal: bytes) -> list[bytes]:
        nonlocal calls
        calls += 1
        return [cloud.issuer.policy(sequence=calls)]

    cloud.objects = objects
    (folder / "tls").rmdir()
    (folder / "tls").write_text("in the way of the certificates")
    with pytest.raises(OSError, match="tls"):
        await attempt(folder, cloud)
    (folder / "tls").unlink()
    gateway = Gateway(config_of(folder), secret=PASSPHRASE, clock=SystemClock())
    assert await gateway.open() is Mode.NOT_PROVISIONED
    await attempt(folder, cloud)
    assert await gateway.open() is Mode.OPEN
    await gateway.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enrolment_token": "another"}, "token-unknown no such token"),
        ({"cloud": "http://127.0.0.1:1"}, "begins with https"),
        ({"cloud": "https://127.0.0.1:1"}, "does not answer"),
        ({"cloud_ca": "no certificate"}, "holds no certificate"),
    ],
)
async def test_a_refused_or_lost_call_says_why(
    cloud: EnrolmentCloud, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    folder = tmp_path / "gateway"
    await prepare(folder)
    with pytest.raises(EnrolmentFailed, match=message):
        await attempt(folder, cloud, **changes)


async def test_answers_that_do_not_hold_are_refused(cloud: EnrolmentCloud, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    await prepare(folder)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"journal": "jnl1nothing"}, "do not hold"),
        ({"root": "AA"}, "do not hold"),
        ({"epoch": 7}, "another journal or key"),
        ({"journal": 5}, "cannot be read"),
        ({"objects": []}, "no policy"),
        ({"objects": ["gA"]}, "opening is refused"),
    ]
    for changes, message in cases:
        cloud.changes = changes
        with pytest.raises(EnrolmentFailed, match=message):
            await attempt(folder, cloud)
    cloud.changes = {}
    await attempt(folder, cloud)


async def test_two_commands_do_not_provision_one_folder(
    cloud: EnrolmentCloud, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    await prepare(folder)
    first = asyncio.create_task(attempt(folder, cloud))
    with pytest.raises(AlreadyProvisioned, match="another command"):
        await asyncio.gather(attempt(folder, cloud), attempt(folder, cloud))
    with pytest.raises((AlreadyProvisioned, asyncio.CancelledError)):
        await first
        await attempt(folder, cloud)


@pytest.mark.parametrize(
    ("cloud_url", "words"),
    [
        ("http://127.0.0.1:1", "begins with https://"),
        ("https://", "names no host or port"),
        ("https://cloud:0", "names no host or port"),
        ("https://cloud:nine", "cloud:nine"),
        ("https://127.0.0.1:1", "no cloud of this CA is found"),
    ],
)
async def test_no_keys_are_made_for_a_cloud_that_is_not_there(
    cloud: EnrolmentCloud, tmp_path: Path, cloud_url: str, words: str
) -> None:
    folder = tmp_path / "gateway"
    with pytest.raises(EnrolmentFailed, match=words):
        await attempt(folder, cloud, cloud=cloud_url)
    assert not list(Folder(folder).token.glob("*"))


async def test_no_keys_are_made_under_a_ca_that_is_not_the_cloud_s(
    cloud: EnrolmentCloud, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    folder, other = tmp_path / "gateway", EnrolmentCloud(LiveIssuer("other"), tmp_path / "other")
    await other.start()
    await other.stop()
    for authority, words in (
        ("no certificate", "no certificate"),
        (other.ca.read_text(), "of this CA"),
    ):
        with pytest.raises(EnrolmentFailed, match=words):
            await attempt(folder, cloud, cloud_ca=authority)
        assert not list(Folder(folder).token.glob("*"))
    # The cloud is there: the keys are made, and it enrols.
    assert await attempt(folder, cloud)


async def test_the_commands_say_what_is_wrong(tmp_path: Path) -> None:
    command = Command(tmp_path / "gateway")
    assert (await command.edge())[0] == 2
    code, _, errors = await command.edge("status")
    assert (code, "edge-daemon-silent" in errors) == (1, True)
    code, _, errors = await command.edge("--set", "listen.prot=1", "status")
    assert (code, "edge-config-invalid" in errors) == (2, True)
    code, _, errors = await command.edge("--set", "listen.port", "status")
    assert (code, "KEY=VALUE" in errors) == (2, True)
    code, out, _ = await command.edge("doctor", "--offline")
    assert (code, "does not exist" in out) == (1, True)
    code, _, errors = await command.edge(
        "provision", "--cloud", "https://x", "--cloud-ca", "/nothing", "--token-file", "/nothing"
    )
    assert (code, "edge-file-unreadable" in errors) == (1, True)


async def test_a_provisioned_folder_shows_its_key(cloud: EnrolmentCloud, tmp_path: Path) -> None:
    folder = tmp_path / "gateway"
    await provision_light(folder, cloud)
    command = Command(folder)
    code, out, _ = await command.edge("key", "show")
    assert code == 0
    assert "eddsa" in out and "jnl1" in out
    code, out, _ = await command.edge("key", "show", "--json")
    assert (code, '"counter": "software"' in out) == (0, True)
