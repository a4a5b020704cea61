"""A gateway's whole life, and not one secret of it in anything that leaves the programs."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edge.authority import KEY_LABEL
from edge.errors import DaemonRefused
from edge.http.local import PairingView
from edge.http.octets import to_text
from edge.identity import load_identity
from edge.pos.client import Client
from edge.pos.purse import DeviceKey, Purse
from edge.pos.terminal import Terminal
from edge.store_key import STORE_KEY_LABEL
from hsm import keyfile, software
from hsm.keyfile import LIGHT
from tests.support.branch import Daemon
from tests.support.branch_local import Http
from tests.support.leaks import leaks, pem_secrets
from tests.support.live_issuer import ENROLMENT_TOKEN, LiveIssuer, funded
from tests.support.sync_cloud import SyncCloud
from wallet.clock import SystemClock
from wallet.protocol.ids import parse_journal, parse_wallet, wallet_text
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.hosted import list_hosted

LOOKS = [
    *(("status",), ("status", "--json"), ("doctor", "--offline"), ("key", "show")),
    *(("wallet", "list"), ("device", "list"), ("report", "x"), ("audit", "--json")),
    ("audit", "--verify"),
]
WAIT_S = 30
PASSPHRASE = secrets.token_hex(12)
PIN, WRONG_PIN = "739162845017", "604918273355"


class Life(msgspec.Struct):
    """One gateway, what it showed, and what it must not show."""

    daemon: Daemon
    cloud: SyncCloud
    folder: Path
    payer: DeviceKey
    evidence: dict[str, bytes] = {}
    secrets: dict[str, bytes] = {}

    async def edge(self, *arguments: str) -> str:
        """A command, whose words are evidence."""
        code, out, errors = await self.daemon.command.edge(*arguments)
        name = f"{' '.join(arguments)} #{len(self.evidence)}"
        self.evidence[name] = (out + errors).encode()
        return f"{code} {out}"

    def show(self, name: str, answer: Any) -> Any:
        """An answer of the daemon is evidence."""
        self.evidence[f"{name} #{len(self.evidence)}"] = json.dumps(answer).encode()
        return answer


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    """A gateway that is provisioned and runs, every line of its log kept."""
    (payer,) = Purse.open(tmp_path / "till").create("payer")
    cloud = SyncCloud(LiveIssuer(), tmp_path)
    objects = funded([payer], journal={119: 3, 120: 60})
    cloud.objects = lambda journal: [*objects(cloud.issuer, journal), cloud.keys()]
    await cloud.start()
    daemon = Daemon(tmp_path / "gateway")
    daemon.command.environment["CBDC_EDGE_PASSPHRASE"] = PASSPHRASE
    daemon.settings = [
        *("log.level=debug", "tamper.source=file", f"tamper.file={tmp_path / 'lid'}"),
        "sync.interval_s=86400",
    ]
    made = Life(daemon, cloud, tmp_path, payer)
    # Made before, so that it opens fast; the command finds it there.
    daemon.folder.prepare()
    token = await software.create(daemon.folder.token, passphrase=PASSPHRASE.encode(), cost=LIGHT)
    await token.close()
    arguments = ("--cloud", cloud.url, "--cloud-ca", str(cloud.ca), "--token-file")
    await made.edge("provision", *arguments, str(tmp_path / "token.txt"))
    await daemon.start()
    yield made
    await daemon.kill()
    await cloud.stop()


@pytest.mark.timeout(300)
async def test_no_secret_is_in_anything_that_a_gateways_life_leaves_behind(life: Life) -> None:
    daemon = life.daemon
    terminal = await daemon.pair(life.folder / "till")
    wallets = await make_wallets(life)
    async with Client(terminal) as client:
        http = Http(client)
        listening = asyncio.create_task(client.raw("GET", "/v1/events", None))
        await pay(life, http, terminal, wallets)
        await crash_a_handler(life)
        await lose_the_token(life, http)
        await asyncio.gather(*[life.edge(*arguments) for arguments in LOOKS])
        look_at_processes(life)
        # The box is opened, and the listener's stream ends with the word of it.
        (life.folder / "lid").touch()
        async with asyncio.timeout(WAIT_S):
            life.evidence["events"] = (await listening)[1]
        life.show("frozen", await http.get("/v1/gateway"))
    await life.edge("tamper")
    await life.edge("status")
    assert await daemon.stop() == 0
    await life_with_a_wrong_passphrase(life)
    life.evidence["log"] = daemon.log.read_bytes()
    await collect_secrets(life, terminal)
    assert leaks(life.evidence, life.secrets) == []
    check_that_it_was_a_life(life)


async def make_wallets(life: Life) -> list[str]:
    """Two hosted wallets of one PIN, enrolled by the next exchange."""
    pin = life.folder / "pin.txt"
    pin.write_text(PIN)
    for label in ("desk", "door"):
        made = await life.edge("wallet", "create", "--pin-file", str(pin), "--label", label)
        assert made.startswith("0 ")
    assert "completed" in await life.edge("sync", "now")
    found = json.loads((await life.edge("wallet", "list", "--json"))[2:])["wallets"]
    return [wallet["wallet"] for wallet in found if wallet["hosted"]]


async def pay(life: Life, http: Http, terminal: Terminal, wallets: list[str]) -> None:
    """Money to a hosted wallet, from it with its PIN, a wrong PIN, and nonsense."""
    first, second = wallets
    order = order_of(life.payer, terminal, parse_wallet(first))
    assert life.show("paid", await http.post("/v1/payments", {"order": order}))[0] == 201
    for pin, status in ((PIN, 201), (WRONG_PIN, 403), (PIN + "1", 422), ("9" + PIN[1:], 403)):
        hosted = {"wallet": first, "pin": pin, "payee": second, "amount": 5, "currency": "EUR"}
        body = {"hosted": hosted}
        answer = life.show("hosted", await http.post("/v1/payments", body, key=True))
        assert answer[0] == status, answer
    odd = {"hosted": {"wallet": first, "pin": {"a": PIN}}, PIN: PIN}
    life.show("odd", await http.post("/v1/payments", odd, key=True))
    body = {"hosted": {"pin": PIN, "tier": 1, "label": "x" * 65}}
    life.show("odd wallet", await http.post("/v1/wallets", body, key=True))
    for path in ("/v1/gateway", f"/v1/wallets/{first}", "/v1/openapi.json"):
        life.show(path, await http.get(path))


def order_of(payer: DeviceKey, terminal: Terminal, payee: bytes) -> str:
    """An order of a device wallet."""
    journal, now = parse_journal(terminal.gateway), SystemClock().now_ms()
    return to_text(
        payer.sign_order(
            sequence=0,
            payee=payee,
            payee_journal=journal,
            amount_minor=100,
            currency="EUR",
            created_ms=now,
            expires_ms=now + 86_400_000,
            kind=0,
            authorisation=0,
            payer_journal=journal,
            payer_epoch=1,
        )
    )


async def crash_a_handler(life: Life) -> None:
    """A handler that fails where nobody expects it: its trace goes into the log."""
    local = life.daemon.local
    opened = await local.call("POST", "/pairing", PairingView, body={})
    assert opened.code is not None
    life.secrets["pairing code"] = opened.code.encode()
    certificate = life.daemon.folder.tls / "server.crt"
    content = certificate.read_bytes()
    certificate.unlink()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "second")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    body = {"code": opened.code, "name": "second"}
    body["csr"] = csr.public_bytes(Encoding.PEM).decode()
    url = f"https://127.0.0.1:{life.daemon.ports['pairing_port']}/pair"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, ssl=False) as response,
    ):
        answer = life.show("crash", await response.json(content_type=None))
        assert (response.status, answer["code"]) == (500, "internal-fault")
    certificate.write_bytes(content)
    with pytest.raises(DaemonRefused):
        await local.call("POST", "/pairing/confirm", PairingView, body={"sas": opened.code})


async def lose_the_token(life: Life, http: Http) -> None:
    """The token is gone for a while."""
    path = life.daemon.folder.token / "token.sealed"
    aside = path.with_name("aside")
    path.rename(aside)
    await life.daemon.wait_for(lambda status: status.mode == "sealed")
    life.show("sealed", await http.post("/v1/payments", {"order": to_text(b"order")}))
    await life.edge("status")
    aside.rename(path)
    await life.daemon.wait_for(lambda status: status.mode == "open")


def look_at_processes(life: Life) -> None:
    """What anybody on the machine sees of the daemon and of the processes that it started."""
    assert life.daemon.process is not None
    pid = life.daemon.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for number in (str(pid), *children):
        for name in ("cmdline", "environ", "status", "comm"):
            path = Path("/proc", number, name)
            life.evidence[str(path)] = path.read_bytes()


async def life_with_a_wrong_passphrase(life: Life) -> None:
    """Commands that do not get in say so, and not with what."""
    wrong = secrets.token_hex(12)
    life.secrets["wrong passphrase"] = wrong.encode()
    life.daemon.command.environment["CBDC_EDGE_PASSPHRASE"] = wrong
    life.daemon.folder.tamper.rename(life.folder / "mark")
    for arguments in (("key", "show"), ("run",)):
        assert (await life.edge(*arguments)).startswith("1 ")


async def collect_secrets(life: Life, terminal: Terminal) -> None:
    """Every secret of this life, read from where it is kept."""
    folder, found = life.daemon.folder, life.secrets
    content = (folder.token / "token.sealed").read_bytes()
    opened = keyfile.open_file(content, passphrase=PASSPHRASE.encode())
    token = await software.open_token(folder.token, passphrase=PASSPHRASE.encode())
    unseal: Callable[..., Any] = token.sealer.unseal
    store_key = await unseal(folder.store_key.read_bytes(), label=STORE_KEY_LABEL)
    authority = await unseal((folder.tls / "authority.key.sealed").read_bytes(), label=KEY_LABEL)
    found |= {
        "passphrase": PASSPHRASE.encode(),
        "PIN": PIN.encode(),
        "wrong PIN": WRONG_PIN.encode(),
        "one-time token": ENROLMENT_TOKEN.encode(),
        "signing seed": opened.secret[:32],
        "sealing key": opened.secret[32:],
        "store key": store_key,
        "terminals' authority": authority[-48:],
        "payer's seed": life.payer.seed,
        **pem_secrets("terminal key", terminal.key),
        **pem_secrets("server key", (folder.tls / "server.key").read_text()),
    }
    database = await Database.open(folder.store, key=store_key)

    def read(connection: Connection) -> tuple[Any, Any]:
        return load_identity(connection), list_hosted(connection, b"", 10)

    identity, hosted = await database.read(read)
    await database.close()
    found |= {"HPKE key": identity.hpke_private}
    found |= pem_secrets("transport key", identity.transport_key)
    for wallet in hosted:
        text = wallet_text(wallet.wallet)
        found[f"seed of {text}"] = await unseal(wallet.sealed_key, label=f"hosted/{text}")
        found[f"PIN hash of {text}"] = wallet.pin_hash.encode()
    await token.close()


def check_that_it_was_a_life(life: Life) -> None:
    """What was searched is what the test is about: nothing was empty, and all of it happened."""
    log, shown = life.evidence["log"], b"".join(life.evidence.values())
    for action in (b"request.failed", b"tamper.tripped", b"sync.exchanged", b"terminal.paired"):
        assert action in log, action
    for words in (b"pin-wrong", b"internal-fault", b"frozen-tamper", b"wallet.wished", b"sealed"):
        assert words in shown, words
    assert b"gateway.frozen" in life.evidence["events"]
    assert len(life.secrets) >= 25
