"""Gateways tell each other newer lists; what a neighbour says counts by the issuer's name alone."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import shutil
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edge.config import NeighboursConfig
from edge.heard import Heard
from edge.http import neighbours as told
from edge.identity import Identity
from edge.neighbours import Neighbours, neighbour_tls
from tests.support.branch_local import Branch, config_of, provision_light, running
from tests.support.live_issuer import EnrolmentCloud, LiveIssuer
from wallet.clock import SystemClock
from wallet.journal import Mode
from wallet.protocol import issued, lists
from wallet.protocol.codec import encode
from wallet.protocol.issued import decode_list

WAIT_S = 20
SOMEBODY = b"\x07" * 20
WALLETS, JOURNALS, SANCTIONED, FROZEN = 2, 1, 4, 5
QUIET = 86_400
ANSWER_BYTES_MAX = 100_000


class Street(msgspec.Struct, frozen=True):
    """Two gateways of one issuer; south is to ask north."""

    north: Branch
    south: Branch
    cloud: EnrolmentCloud

    @property
    def issuer(self) -> LiveIssuer:
        return self.cloud.issuer

    def asking(self, *urls: str, timeout_s: int = 10) -> Neighbours:
        """What south does by itself, now."""
        url = f"https://127.0.0.1:{self.north.ports['neighbours_port']}"
        config = NeighboursConfig(urls=urls or (url,), timeout_s=timeout_s)
        return Neighbours(
            self.south.opened, config, clock=SystemClock(), answer_bytes_max=ANSWER_BYTES_MAX
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EnrolmentCloud]:
    """Two provisioned folders, and the cloud that enrolled them."""
    folder = tmp_path_factory.mktemp("street")
    cloud = EnrolmentCloud(LiveIssuer(), folder)
    issuer = cloud.issuer
    empty = [issuer.list(number, []) for number in (1, 2, 4, 5, 6)]
    cloud.objects = lambda journal: [issuer.policy(), *empty]

    async def make() -> None:
        await cloud.start()
        for name in ("north", "south"):
            cloud.enrolled = None
            await provision_light(folder / name, cloud)
        await cloud.stop()

    asyncio.run(make())
    return folder, cloud


@pytest.fixture
async def street(folders: tuple[Path, EnrolmentCloud], tmp_path: Path) -> AsyncIterator[Street]:
    """Both run."""
    folder, cloud = folders
    for name in ("north", "south"):
        shutil.copytree(folder / name, tmp_path / name)
    tells = NeighboursConfig(port=0)
    async with (
        running(config_of(tmp_path / "north", neighbours=tells), cloud.issuer) as north,
        running(config_of(tmp_path / "south"), cloud.issuer) as south,
    ):
        async with asyncio.timeout(WAIT_S):
            while "neighbours_port" not in north.ports:
                await asyncio.sleep(0)
        yield Street(north, south, cloud)


def delta(issuer: LiveIssuer, base: bytes, added: list[Any], *, sequence: int) -> bytes:
    """What changed since the list of these bytes."""
    now_ms = issuer.now_s * 1000
    before = decode_list(base)
    claims: dict[int, Any] = {2: before.list_id, 3: sequence, 4: now_ms, 5: now_ms + QUIET}
    return issuer.issue(issued.LIST_TYPE, {**claims, 6: before.hash, 7: lists.content([added, []])})


async def test_a_gateway_without_a_line_learns_from_its_neighbour(street: Street) -> None:
    issuer = street.issuer
    wallets = issuer.list(WALLETS, [SOMEBODY], sequence=7)
    names = issuer.list(SANCTIONED, [["id-1", ["Some Body"]]], sequence=3)
    assert (await street.north.take(wallets, names)).taken == 2
    asking = street.asking()
    assert await asking.ask_all() == 2
    held = street.south.opened.journal.state.lists
    assert held[WALLETS].items == {SOMEBODY} and held[WALLETS].sequence == 7
    assert held[SANCTIONED].names == {"id-1": ("Some Body",)}
    (heard,) = asking.heard
    assert (heard.lists, heard.failure) == (2, None) and heard.heard_ms >= heard.asked_ms > 0
    # All is known now: nothing is an entry twice.
    size = street.south.opened.journal.state.size
    assert await asking.ask_all() == 0
    assert street.south.opened.journal.state.size == size


async def test_changes_travel_as_the_issuer_signed_them(street: Street) -> None:
    issuer, full = street.issuer, street.issuer.list(WALLETS, [SOMEBODY], sequence=1)
    chain = [full]
    for sequence in (2, 3, 4):
        chain.append(delta(issuer, chain[-1], [bytes([sequence]) * 20], sequence=sequence))
    assert (await street.north.take(*chain)).taken == 4
    # One that holds an older one gets the full list and what changed since.
    assert await street.asking().ask_all() == 4
    wanted = {SOMEBODY, *[bytes([sequence]) * 20 for sequence in (2, 3, 4)]}
    assert street.south.opened.journal.state.lists[WALLETS].items == wanted
    # One that holds the one before gets the change alone.
    last = delta(issuer, chain[-1], [b"\x09" * 20], sequence=5)
    assert (await street.north.take(last)).taken == 1
    north = street.north.opened
    after = await north.database.read(lambda c: told.lists_after(c, {WALLETS: 4}))
    assert after[1:] == [] or decode_list(after[0]).list_id != WALLETS
    assert last in after and full not in after
    assert await street.asking().ask_all() == 1


async def test_a_chain_that_never_ends_in_a_full_list_is_told_from_where_it_lacks(
    street: Street,
) -> None:
    chain = [street.issuer.list(WALLETS, [SOMEBODY], sequence=1)]
    for sequence in range(2, told.CHAIN_MAX + 4):
        chain.append(delta(street.issuer, chain[-1], [bytes([sequence]) * 20], sequence=sequence))
    await street.north.take(*chain)
    north = street.north.opened.database
    known = dict.fromkeys(range(1, 7), len(chain))

    async def lacking(held: int, bytes_max: int) -> list[bytes]:
        asked = known | {WALLETS: held}
        return await north.read(lambda c: told.lists_after(c, asked, bytes_max=bytes_max))

    assert await lacking(0, 10**6) == chain
    assert await lacking(2, 10**6) == chain[2:]
    # In several answers each part is the list as it once was.
    assert await lacking(2, 1) == chain[2:3]
    assert await street.asking().ask_all() == len(chain)
    wanted = {SOMEBODY, *[bytes([sequence]) * 20 for sequence in range(2, told.CHAIN_MAX + 4)]}
    assert street.south.opened.journal.state.lists[WALLETS].items == wanted


async def test_a_suspension_reaches_the_suspended_and_its_neighbours(street: Street) -> None:
    south = street.south.opened.journal
    suspended = street.issuer.list(JOURNALS, [[south.state.journal, 1]], sequence=1)
    assert (await street.north.take(suspended)).taken == 1
    await street.asking().ask_all()
    frozen = south.mode
    # And the end of it.
    assert (await street.north.take(street.issuer.list(JOURNALS, [], sequence=2))).taken == 1
    await street.asking().ask_all()
    assert (frozen, south.mode) == (Mode.FROZEN_BY_ISSUER, Mode.OPEN)


async def test_an_answer_holds_what_fits_and_at_least_one_list(street: Street) -> None:
    fresh = [street.issuer.list(number, [], sequence=1) for number in (WALLETS, FROZEN, 6)]
    await street.north.take(*fresh)
    read, held = street.north.opened.database.read, {JOURNALS: 0, SANCTIONED: 0}
    told_of: list[int] = []
    while lists := await read(lambda c: told.lists_after(c, held, bytes_max=1)):
        (listed,) = map(decode_list, lists)
        told_of.append(listed.list_id)
        held[listed.list_id] = listed.sequence
    assert told_of == [WALLETS, FROZEN, 6]
    both = await read(lambda c: told.lists_after(c, {}, bytes_max=2 * len(fresh[0])))
    assert len(both) == 2


# ---- who asks -----------------------------------------------------------------------------


async def post(street: Street, identity: Identity, body: Any) -> tuple[int, Any]:
    """A call at north's port with this transport certificate."""
    url = f"https://127.0.0.1:{street.north.ports['neighbours_port']}{told.PATH}"
    tls = neighbour_tls(identity, serving=False)
    async with aiohttp.ClientSession() as session, session.post(url, json=body, ssl=tls) as got:
        return got.status, await got.json(content_type=None)


async def test_only_gateways_are_told(street: Street) -> None:
    identity = street.south.opened.identity
    key = street.cloud._key
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    held = x509.load_pem_x509_certificate(identity.transport_certificate.encode())
    other = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(held.issuer)
        .public_key(held.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = other.public_bytes(Encoding.PEM).decode()
    nobody = msgspec.structs.replace(identity, transport_certificate=pem)
    status, problem = await post(street, nobody, {"held": {}})
    assert (status, problem["code"]) == (403, "neighbour-unknown")
    status, answer = await post(street, identity, {"held": {}})
    assert status == 200 and len(answer["lists"]) == 5


async def test_without_a_certificate_nobody_comes_in(street: Street) -> None:
    tls = ssl.create_default_context(cadata=street.south.opened.identity.cloud_ca)
    tls.check_hostname = False
    url = f"https://127.0.0.1:{street.north.ports['neighbours_port']}{told.PATH}"
    with pytest.raises(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session:
            await session.post(url, json={"held": {}}, ssl=tls)


@pytest.mark.parametrize(
    "body", [{}, {"held": {"1": -2}}, {"held": {"x": 1}}, {"held": {}, "a": 1}]
)
async def test_what_is_no_question_is_refused(street: Street, body: Any) -> None:
    status, problem = await post(street, street.south.opened.identity, body)
    assert (status, problem["code"]) == (422, "body-invalid")


# ---- who answers --------------------------------------------------------------------------

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def liar(street: Street, handler: Handler) -> AsyncIterator[str]:
    """A gateway of this issuer, by its certificate, that answers as it likes."""
    app = web.Application()
    app.router.add_post(told.PATH, handler)
    # Who is silent is not waited for at the end.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    tls = neighbour_tls(street.north.opened.identity, serving=True)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def answering(*raw: bytes) -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=encode({"lists": list(raw)}), content_type="application/cbor")

    return answer


async def asked(street: Street, handler: Handler) -> tuple[int, Heard]:
    async with liar(street, handler) as url:
        asking = street.asking(url, timeout_s=1)
        return await asking.ask_all(), asking.heard[0]


async def test_a_list_that_the_issuer_did_not_sign_is_refused(street: Street) -> None:
    size = street.south.opened.journal.state.size
    forged = bytearray(street.issuer.list(WALLETS, [SOMEBODY], sequence=9))
    forged[-1] ^= 1
    taken, heard = await asked(street, answering(bytes(forged)))
    assert (taken, heard.failure) == (0, "its lists were refused: bad-signature")
    assert street.south.opened.journal.state.size == size


async def test_a_list_of_another_issuer_is_refused(street: Street) -> None:
    foreign = LiveIssuer("elsewhere").list(WALLETS, [SOMEBODY], sequence=9)
    taken, heard = await asked(street, answering(foreign))
    assert (taken, heard.failure) == (0, "its lists were refused: certificate-invalid")


async def test_an_older_list_changes_nothing(street: Street) -> None:
    await street.south.take(street.issuer.list(WALLETS, [SOMEBODY], sequence=5))
    size = street.south.opened.journal.state.size
    taken, heard = await asked(street, answering(street.issuer.list(WALLETS, [], sequence=4)))
    assert (taken, heard.failure) == (0, None)
    assert street.south.opened.journal.state.size == size
    assert street.south.opened.journal.state.lists[WALLETS].items == {SOMEBODY}


async def test_a_neighbour_brings_nothing_but_lists(street: Street) -> None:
    taken, heard = await asked(street, answering(street.issuer.policy(sequence=9)))
    assert (taken, heard.failure) == (0, "it sent what is no list: unknown-type")
    policy = street.south.opened.journal.state.policy
    assert policy is not None and policy.sequence != 9


async def test_a_change_without_its_base_is_refused(street: Street) -> None:
    base = street.issuer.list(WALLETS, [], sequence=30)
    orphan = delta(street.issuer, base, [SOMEBODY], sequence=31)
    taken, heard = await asked(street, answering(orphan))
    assert (taken, heard.failure) == (0, "its lists were refused: parent-missing")


async def test_answers_that_are_none_are_said_and_forgotten(street: Street) -> None:
    async def words(request: web.Request) -> web.Response:
        return web.Response(body=b"hello")

    async def refuses(request: web.Request) -> web.Response:
        return web.Response(status=503)

    async def silent(request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError("it was waited for")

    for handler, failure in [
        (words, "an answer that is none"),
        (refuses, "it answered with status 503"),
        (silent, "no answer in time"),
    ]:
        taken, heard = await asked(street, handler)
        assert taken == 0 and heard.failure is not None and heard.failure.startswith(failure)


async def test_an_answer_without_an_end_is_cut_off(street: Street) -> None:
    taken, heard = await asked(street, answering(bytes(ANSWER_BYTES_MAX)))
    assert (taken, heard.failure) == (0, f"an answer of more than {ANSWER_BYTES_MAX} bytes")


async def test_who_is_not_there_is_said_once_and_heard_again(
    street: Street, caplog: pytest.LogCaptureFixture
) -> None:
    asking = street.asking("https://127.0.0.1:9")
    for _ in range(2):
        assert await asking.ask_all() == 0
    assert asking.heard[0].failure is not None and asking.heard[0].heard_ms == 0
    failed = [r for r in caplog.records if r.getMessage().startswith("neighbour.failed")]
    assert len(failed) == 1


async def test_the_daemon_asks_by_itself_and_says_what_came_of_it(
    street: Street, tmp_path: Path
) -> None:
    await street.north.take(street.issuer.list(FROZEN, [SOMEBODY], sequence=4))
    url = f"https://127.0.0.1:{street.north.ports['neighbours_port']}"
    street.south.daemon.stop()
    await street.south.ended()
    asks = NeighboursConfig(urls=(url, "https://127.0.0.1:9"), interval_s=QUIET)
    config = config_of(tmp_path / "south", neighbours=asks)
    async with running(config, street.issuer) as south, asyncio.timeout(WAIT_S):
        local = aiohttp.UnixConnector(path=str(south.folder.socket))
        async with aiohttp.ClientSession(connector=local) as session:
            while True:
                async with session.get("http://gateway/neighbours") as got:
                    (good, bad) = (await got.json())["neighbours"]
                if bad.get("failure"):
                    break
        assert (good["lists"], good.get("failure")) == (1, None)
        assert south.opened.journal.state.lists[FROZEN].items == {SOMEBODY}
