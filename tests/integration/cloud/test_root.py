"""A root that is kept away: what it certifies travels in files, and nothing else is taken."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.database import Connection, Database
from cloud.errors import IssuerError
from cloud.issuer import profiles, root
from cloud.issuer.pki import JOURNALS, Pki, Workshop, open_pki
from cloud.issuer.profiles import Authority
from cloud.issuer.vault import Vault
from hsm import software
from hsm.api import Algorithm, PinWrong, SealBroken, Sealer
from hsm.keyfile import LIGHT, Opened, close_file
from tests.support.cloud_process import CloudProcess, running_cloud
from wallet.protocol.certificates import ROLES

NOW_MS = 1_780_000_000_000
WORDS = b"words of the root"


@pytest.fixture
async def sealer(tmp_path: Path) -> Sealer:
    """The sealer of a new software token."""
    return (await software.create(tmp_path / "token", passphrase=b"words")).sealer


def made(seed: int = 1, *, now_ms: int = NOW_MS) -> tuple[bytes, bytes]:
    """A root's key file and certificate."""
    return root.make(
        organisation="A central bank",
        seed=bytes([seed]) * 32,
        now_ms=now_ms,
        random=secrets.token_bytes,
        passphrase=WORDS,
        cost=LIGHT,
    )


@pytest.fixture
def kept() -> tuple[Authority, bytes]:
    """A root as it is where it is kept, and its certificate."""
    key, certificate = made()
    return root.open_key(key, certificate, passphrase=WORDS), certificate


def workshop(connection: Connection, sealer: Sealer, *, now_ms: int = NOW_MS) -> Workshop:
    """A workshop with real randomness."""
    return Workshop(
        connection=connection, vault=Vault(sealer), now_ms=now_ms, random=secrets.token_bytes
    )


async def opened(database: Database, sealer: Sealer, *, now_ms: int = NOW_MS) -> Pki:
    """The issuer's keys at a time."""
    async with database.transaction() as connection:
        at = workshop(connection, sealer, now_ms=now_ms)
        return await open_pki(at, organisation="A central bank")


async def adopted(database: Database, sealer: Sealer, certificate: bytes) -> None:
    """An issuer that has the root's certificate."""
    async with database.transaction() as connection:
        await root.adopt(workshop(connection, sealer), certificate)


async def asked(database: Database, sealer: Sealer) -> root.Requests:
    """What the issuer asks for."""
    async with database.transaction() as connection:
        return root.read_requests(await root.ask(workshop(connection, sealer)))


def certified(
    requests: root.Requests, kept: Authority, *, now_ms: int = NOW_MS
) -> root.Certificates:
    """What the root answers."""
    signed = root.certify(requests, kept, now_ms=now_ms, random=secrets.token_bytes)
    return root.read_certificates(signed)


async def install(
    database: Database, sealer: Sealer, answer: root.Certificates, *, now_ms: int = NOW_MS
) -> list[str]:
    """Take an answer."""
    async with database.transaction() as connection:
        return await root.install(workshop(connection, sealer, now_ms=now_ms), answer)


async def test_an_issuer_under_a_root_that_is_away_opens_once_its_keys_are_certified(
    database: Database, sealer: Sealer, kept: tuple[Authority, bytes]
) -> None:
    authority, certificate = kept
    await adopted(database, sealer, certificate)
    await adopted(database, sealer, certificate)
    with pytest.raises(IssuerError, match="root-away"):
        await opened(database, sealer)
    requests = await asked(database, sealer)
    # Asked twice, it is the same keys: an answer to either fits.
    assert requests == await asked(database, sealer)
    assert await install(database, sealer, certified(requests, authority)) == sorted(root.NAMES)
    pki = await opened(database, sealer)
    assert (pki.root.der, pki.root.key) == (certificate, None)
    assert set(pki.roles) == ROLES
    async with database.transaction() as connection:
        assert await connection.fetchval("SELECT count(*) FROM issuer_key_waiting") == 0


async def test_a_root_that_is_away_is_wanted_before_its_certificates_end_and_renews_them(
    database: Database, sealer: Sealer, kept: tuple[Authority, bytes]
) -> None:
    authority, certificate = kept
    await adopted(database, sealer, certificate)
    await install(database, sealer, certified(await asked(database, sealer), authority))
    first = await opened(database, sealer)
    assert not root.is_wanted(first, now_ms=NOW_MS)
    late_ms = NOW_MS + profiles.ROLE_MS - profiles.DAY_MS
    # Nothing is renewed behind the root's back, and what still lasts stays in use.
    late = await opened(database, sealer, now_ms=late_ms)
    assert late.ends_ms == first.ends_ms
    assert root.is_wanted(late, now_ms=late_ms)
    answer = certified(await asked(database, sealer), authority, now_ms=late_ms)
    await install(database, sealer, answer, now_ms=late_ms)
    renewed = await opened(database, sealer, now_ms=late_ms)
    assert renewed.ends_ms > late.ends_ms
    assert not root.is_wanted(renewed, now_ms=late_ms)


async def test_the_root_of_a_running_issuer_can_be_taken_out(
    database: Database, sealer: Sealer
) -> None:
    before = await opened(database, sealer)
    secret = before.root.authority().key.private_bytes_raw()
    async with database.transaction() as connection:
        at = workshop(connection, sealer)
        assert await root.held_seed(at) == secret
        await root.let_go(at)
    after = await opened(database, sealer)
    assert (after.root.der, after.root.key) == (before.root.der, None)
    assert after.ends_ms == before.ends_ms
    async with database.transaction() as connection:
        rows = await connection.fetch("SELECT sealed FROM issuer_key WHERE name = 'root'")
        assert [row["sealed"] for row in rows] == [None]
        with pytest.raises(IssuerError, match="root-away"):
            await root.held_seed(workshop(connection, sealer))


async def test_an_issuer_has_one_root(
    database: Database, sealer: Sealer, kept: tuple[Authority, bytes]
) -> None:
    async with database.transaction() as connection:
        with pytest.raises(IssuerError, match="root-missing"):
            await root.ask(workshop(connection, sealer))
    await adopted(database, sealer, kept[1])
    for certificate, code in (
        (made(2)[1], "root-foreign"),
        (b"\x30\x00", "certificate-invalid"),
        (_role_leaf(kept[0]), "certificate-invalid"),
    ):
        with pytest.raises(IssuerError, match=code):
            await adopted(database, sealer, certificate)


def _role_leaf(kept: Authority) -> bytes:
    key = kept.key.public_key()
    leaf = profiles.make_role(kept, "grants", key=key, now_ms=NOW_MS, random=secrets.token_bytes)
    return leaf.public_bytes(Encoding.DER)


def _changed(answer: root.Certificates, name: str, der: bytes) -> root.Certificates:
    rest = [one for one in answer.made if one.name != name]
    return msgspec.structs.replace(
        answer, made=[*rest, root.Made(name=name, certificate=der.hex())]
    )


async def test_certificates_that_were_not_asked_for_are_refused_and_none_is_taken(
    database: Database, sealer: Sealer, kept: tuple[Authority, bytes]
) -> None:
    authority, certificate = kept
    await adopted(database, sealer, certificate)
    answer = certified(await asked(database, sealer), authority)
    other = root.open_key(*made(2), passphrase=WORDS)
    keys = {one.name: _key(one) for one in answer.made}
    grants, own = keys["role/grants"], authority.key.public_key()
    refused = [
        # Another key; another role; another root's; a leaf in the place of the authority.
        (_changed(answer, "role/grants", _role(authority, "grants", own)), "certificate-invalid"),
        (_changed(answer, "role/grants", _role(authority, "lists", grants)), "certificate-invalid"),
        (_changed(answer, "role/grants", _role(other, "grants", grants)), "certificate-invalid"),
        (_changed(answer, JOURNALS, _role(authority, "x", keys[JOURNALS])), "certificate-invalid"),
        (_changed(answer, JOURNALS, _sub(other, keys[JOURNALS])), "certificate-invalid"),
        (_changed(answer, JOURNALS, b"\x30\x00"), "certificate-invalid"),
        (_changed(answer, "role/none", _role(authority, "none", grants)), "request-missing"),
        (msgspec.structs.replace(answer, root="00" * 32), "root-foreign"),
    ]
    for changed, code in refused:
        with pytest.raises(IssuerError, match=code):
            await install(database, sealer, changed)
    with pytest.raises(IssuerError, match="not of this time"):
        await install(database, sealer, answer, now_ms=NOW_MS + profiles.ROOT_MS)
    with pytest.raises(IssuerError, match="root-away"):
        await opened(database, sealer)
    await install(database, sealer, answer)
    with pytest.raises(IssuerError, match="request-missing"):
        await install(database, sealer, answer)


def _key(one: root.Made) -> profiles.CertifiedKey:
    found = x509.load_der_x509_certificate(bytes.fromhex(one.certificate)).public_key()
    assert isinstance(found, profiles.CertifiedKey)
    return found


def _role(authority: Authority, role: str, key: profiles.CertifiedKey) -> bytes:
    leaf = profiles.make_role(authority, role, key=key, now_ms=NOW_MS, random=secrets.token_bytes)
    return leaf.public_bytes(Encoding.DER)


def _sub(authority: Authority, key: profiles.CertifiedKey) -> bytes:
    made = profiles.make_journal_authority(
        authority, key=key, now_ms=NOW_MS, random=secrets.token_bytes
    )
    return made.public_bytes(Encoding.DER)


async def test_the_root_signs_nothing_but_what_belongs_below_it(
    database: Database, sealer: Sealer, kept: tuple[Authority, bytes]
) -> None:
    await adopted(database, sealer, kept[1])
    requests = await asked(database, sealer)
    with pytest.raises(IssuerError, match="root-foreign"):
        certified(requests, root.open_key(*made(2), passphrase=WORDS))
    foreign = root.Wanted(name="server", public_key="11" * 32)
    with pytest.raises(IssuerError, match="request-invalid"):
        certified(msgspec.structs.replace(requests, wanted=[foreign]), kept[0])
    for text in (b"", b"{}", b'{"format": "root-requests-2"}'):
        with pytest.raises(IssuerError, match="file-invalid"):
            root.read_requests(text)
        with pytest.raises(IssuerError, match="file-invalid"):
            root.read_certificates(text)


def test_a_key_file_opens_with_its_words_and_its_certificate_alone() -> None:
    key, certificate = made()
    with pytest.raises(PinWrong):
        root.open_key(key, certificate, passphrase=b"other words")
    with pytest.raises(SealBroken):
        root.open_key(key[:-2], certificate, passphrase=WORDS)
    with pytest.raises(IssuerError, match="root-foreign"):
        root.open_key(key, made(2)[1], passphrase=WORDS)
    longer = Opened(algorithm=Algorithm.EDDSA, public_key=bytes(32), secret=bytes(64))
    file = close_file(longer, passphrase=WORDS, cost=LIGHT)
    with pytest.raises(IssuerError, match="another kind of key"):
        root.open_key(file, certificate, passphrase=WORDS)


@pytest.mark.timeout(300)
async def test_an_issuer_is_made_under_a_root_that_never_was_there(tmp_path: Path) -> None:
    cloud = CloudProcess(tmp_path / "cloud")
    words = tmp_path / "words"
    words.write_text("words of the root\n")
    key, certificate = tmp_path / "root.key", tmp_path / "root.der"
    passphrase = ("--passphrase-file", str(words))
    made_by = ("--certificate", str(certificate), "--organisation", "A central bank")
    code, out, errors = await cloud.command(
        "issuer", "root", "make", str(key), *made_by, *passphrase
    )
    assert (code, "init --root-certificate" in out) == (0, True), errors
    code, _, errors = await cloud.command("init", "--root-certificate", str(certificate))
    assert (code, "root-away" in errors) == (1, True)
    requests, answer = tmp_path / "requests.json", tmp_path / "certificates.json"
    assert (await cloud.command("issuer", "root", "requests", str(requests)))[0] == 0
    signing = ("--key", str(key), "--certificate", str(certificate), "--out", str(answer))
    code, out, errors = await cloud.command(
        "issuer", "root", "certify", str(requests), *signing, *passphrase
    )
    assert (code, "role/grants" in out) == (0, True), errors
    code, out, _ = await cloud.command("issuer", "root", "install", str(answer))
    assert (code, "in use from now on" in out) == (0, True)
    assert (await cloud.command("init"))[0] == 0
    assert (cloud.folder / "root.der").read_bytes() == certificate.read_bytes()
    code, _, errors = await cloud.command(
        "issuer", "root", "take-out", str(tmp_path / "again"), *passphrase
    )
    assert (code, "root-away" in errors) == (1, True)
    async with running_cloud(tmp_path / "cloud") as running:
        code, out, _ = await running.command("status")
        assert (code, "root: its key is kept away" in out) == (0, True)


@pytest.mark.timeout(300)
async def test_taking_the_root_out_needs_words_and_writes_over_nothing(tmp_path: Path) -> None:
    cloud = CloudProcess(tmp_path / "cloud")
    assert (await cloud.command("init"))[0] == 0
    key, words = tmp_path / "root.key", tmp_path / "words"
    code, _, errors = await cloud.command("issuer", "root", "take-out", str(key))
    assert (code, "passphrase-missing" in errors) == (1, True)
    words.write_text("\n")
    take = ("issuer", "root", "take-out", str(key), "--passphrase-file", str(words))
    assert "passphrase-missing" in (await cloud.command(*take))[2]
    words.write_text("words of the root\n")
    key.write_text("something else")
    assert (await cloud.command(*take))[0] == 1
    assert key.read_text() == "something else"
    key.unlink()
    assert (await cloud.command(*take))[0] == 0
    certificate = (cloud.folder / "root.der").read_bytes()
    found = root.open_key(key.read_bytes(), certificate, passphrase=WORDS)
    assert found.der == certificate
