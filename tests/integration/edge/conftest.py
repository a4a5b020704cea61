"""A provisioned gateway to copy, and one that runs with a paired terminal."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from tests.support.branch_local import Branch, Http, copied, provision_light
from tests.support.live_issuer import EnrolmentCloud, LiveIssuer, funded
from tests.support.refusals import Scene, scene_of

NAMES = ("alice", "bob", "shop", "poor", "limited")
FUNDS = 100_000
TIERS = {1: {1: 50_000, 4: 1_000_000}, 2: {1: 100, 3: 50, 6: 150}}
JOURNAL = {119: 3, 120: 60}


class Template(msgspec.Struct, frozen=True):
    """A provisioned folder, its issuer, and the keys of its wallets."""

    folder: Path
    issuer: LiveIssuer
    keys: dict[str, DeviceKey]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Made once; tests run on copies."""
    folder = tmp_path_factory.mktemp("template")
    keys = {name: DeviceKey(bytes([number]) * 32) for number, name in enumerate(NAMES, 1)}
    issuer = LiveIssuer()

    def objects(journal: bytes) -> list[bytes]:
        made = funded([keys["alice"], keys["bob"], keys["shop"]], tiers=TIERS, journal=JOURNAL)(
            issuer, journal
        )
        made.append(issuer.enrolment(journal, keys["poor"].public))
        made.append(issuer.enrolment(journal, keys["limited"].public, tier=2))
        made.append(issuer.grant(journal, keys["limited"].public.id, FUNDS, sequence=3))
        return made

    async def make() -> None:
        cloud = EnrolmentCloud(issuer, folder)
        cloud.objects = objects
        await cloud.start()
        await provision_light(folder / "gateway", cloud)
        await cloud.stop()

    asyncio.run(make())
    return Template(folder / "gateway", issuer, keys)


@pytest.fixture
def keys(template: Template) -> dict[str, DeviceKey]:
    """Keys of device wallets, by name."""
    return template.keys


@pytest.fixture
async def branch(template: Template, tmp_path: Path) -> AsyncIterator[Branch]:
    """A running gateway."""
    async with copied(template.folder, tmp_path / "gateway", template.issuer) as running:
        yield running


@pytest.fixture
async def http(branch: Branch) -> AsyncIterator[Http]:
    """A paired terminal's calls."""
    async with Client(await branch.terminal()) as client:
        yield Http(client)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    template: Template, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Scene]:
    """Two running gateways for all refusals of a file: those leave nothing behind."""
    folder = tmp_path_factory.mktemp("stage")
    async with scene_of(folder, template.folder, template.issuer) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def scene(stage: Scene) -> Scene:
    """The two gateways, without limits and with empty lists."""
    await stage.reset()
    return stage
