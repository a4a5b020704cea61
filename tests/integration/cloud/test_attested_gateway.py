"""The whole way: a gateway on a TPM, its daemon, and an issuer that reconciles what it reports."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.database import Database
from edge.config import TokenConfig
from edge.http.octets import to_text
from edge.pos.purse import DeviceKey
from edge.provision import Wish, provision
from tests.integration.cloud.test_attested_enrolment import MAKER
from tests.support.attested import Trust, certify_chip, manifest_of, measured, tpm_token
from tests.support.branch_local import PASSPHRASE, WAIT_S, Branch, config_of, running
from tests.support.cloud_local import LocalCloud, local_cloud
from tests.support.live_issuer import LiveIssuer
from tests.support.swtpm import Swtpm, extend_pcr, running_swtpm
from wallet.clock import SystemClock
from wallet.journal import Mode, Receipted
from wallet.protocol.ids import journal_text

FUNDS = 5_000
PAYER, PAYEE = DeviceKey(b"\x01" * 32), DeviceKey(b"\x02" * 32)


class Site:
    """A running gateway on a TPM at a running cloud."""

    def __init__(self, cloud: LocalCloud, trust: Trust, branch: Branch) -> None:
        self.cloud = cloud
        self.trust = trust
        self.branch = branch

    @property
    def journal(self) -> str:
        """Its journal."""
        return journal_text(self.branch.opened.journal.state.journal)

    async def pay(self, amount: int) -> None:
        """A payment, which must pass."""
        order = self.branch.order(PAYER, PAYEE.public.id, amount)
        assert isinstance(await self.branch.opened.journal.pay(order), Receipted)

    async def synchronise(self, result: str = "completed") -> str:
        """One session with this result; its detail."""
        async with asyncio.timeout(WAIT_S):
            found, detail = await self.branch.daemon.sync_now()
        assert found == result, detail
        return detail

    async def held(self) -> tuple[str, int]:
        """State and size of the journal at the issuer."""
        async with self.cloud.api(self.trust.first) as api:
            _, page = await api.get("/v1/issuer/journals")
        (line,) = page["journals"]
        return line["state"], line["size"]

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """A call by an officer that must pass."""
        status, made = await self.trust.post(self.trust.first, path, body)
        assert status == 201, made
        return made

    async def fund(self) -> None:
        """Two wallets, and value for one of them."""
        for key in (PAYER, PAYEE):
            wanted = {"journal": self.journal, "key": to_text(key.public.cose_key), "tier": 1}
            await self.post("/v1/issuer/enrolments", wanted)
        bank = {"holder": "bank", "wallet": "bank-eur", "currency": "EUR"}
        token = (await self.post("/v1/issuer/holders", bank))["token"]
        draft = secrets.token_hex(32)
        supply = {"draft_id": draft, "action": "issue", "wallet": "bank-eur", "amount": FUNDS}
        await self.post("/v1/issuer/supply", {**supply, "reason": "test"})
        await self.trust.post(self.trust.second, f"/v1/issuer/supply/{draft}/approve", {})
        await self.synchronise()
        funding = {
            "funding_id": secrets.token_hex(32),
            "journal": self.journal,
            "offline_wallet": PAYER.text,
            "amount": FUNDS,
        }
        async with self.cloud.api(token) as api:
            assert (await api.post("/v1/wallets/bank-eur/fundings", funding))[0] == 201
        for _ in range(2):
            await self.synchronise()


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Swtpm]:
    """A TPM, powered on."""
    with running_swtpm(tmp_path / "chip") as swtpm:
        yield swtpm


@pytest.fixture
async def site(database: Database, chip: Swtpm, tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway with money."""
    await certify_chip(chip, MAKER, tmp_path / "factory")
    # As after `key reseal --to none`: the box opens under any firmware, and the issuer sees which.
    settings = TokenConfig(driver="tpm", algorithm="es256", tcti=chip.tcti, pcr_policy="none")
    config = config_of(tmp_path / "gateway", token=settings)
    async with local_cloud(database, tmp_path / "cloud") as cloud:
        trust = await Trust.of(cloud)
        await trust.approve("maker", MAKER.root)
        async with tpm_token(chip, tmp_path / "measuring", nv_index=0x0180CBE0) as token:
            await trust.approve("image", manifest_of(await measured(token)))
        wish = Wish(
            cloud=f"https://127.0.0.1:{cloud.ports['gateway_port']}",
            cloud_ca=cloud.authority.decode(),
            enrolment_token=await trust.token(),
        )
        await provision(config, wish, secret=PASSPHRASE, clock=SystemClock(), say=lambda step: None)
        async with running(config, LiveIssuer()) as branch:
            made = Site(cloud, trust, branch)
            await made.fund()
            yield made


async def test_a_drift_stops_what_the_issuer_takes_and_never_a_payment(
    site: Site, chip: Swtpm
) -> None:
    await site.pay(100)
    await site.synchronise()
    state, size = await site.held()
    assert (state, (await site.trust.standing())["suspended"]) == ("open", False)
    await chip.administer(extend_pcr(2))
    await site.pay(200)
    assert "frozen-by-issuer" in await site.synchronise("failed")
    assert await site.held() == ("suspended", size)
    # Without the issuer it goes on within its limits.
    await site.pay(300)
    assert site.branch.opened.journal.mode is Mode.OPEN
    standing = await site.trust.standing()
    assert standing["finding"]["code"] == "image-unknown"
    found = {int(n): bytes.fromhex(text) for n, text in standing["finding"]["found"].items()}
    # An officer looks into it, has what the box runs now approved, and lifts the suspension.
    await site.trust.approve("image", manifest_of(found, version="1.1"))
    await site.post(f"/v1/issuer/journals/{site.journal}/lift", {})
    await site.synchronise()
    journal = site.branch.opened.journal
    state, held = await site.held()
    assert (state, held > size, journal.acknowledged) == ("open", True, held)
    assert (await site.trust.standing())["suspended"] is False
