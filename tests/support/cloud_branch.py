"""A branch at a cloud that runs as a process: two funded wallets, and reports that a test holds.

The cloud's embedded PostgreSQL is looked at, and held up, on its socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from cloud.ledger.conservation import conservation, discrepancies
from cloud.ledger.posting import TransferKind
from cloud.postmaster import read_postmaster
from edge.folder import Folder
from edge.http.octets import to_text
from edge.journal_port import JournalPort
from edge.pos.purse import DeviceKey
from edge.provision import Wish, provision
from hsm import software
from hsm.keyfile import LIGHT
from sync.exchange import EXCHANGE_BYTES, open_down
from sync.transport import Credentials, HttpsTransport
from tests.support.branch_local import PASSPHRASE, WAIT_S, Branch, config_of, running
from tests.support.cloud_process import Api, CloudProcess
from tests.support.live_issuer import LiveIssuer
from wallet.clock import SystemClock
from wallet.journal import Receipted
from wallet.protocol.entry import EntryKind, decode_entry
from wallet.protocol.envelope import UP_TYPE, Down, up_payload
from wallet.protocol.ids import WalletId, journal_text, wallet_text
from wallet.protocol.sealed import seal

ISSUED, FUNDS = 1_000_000, 100_000
MERCHANT = 2
_SOCKET_LINE = 4  # of postmaster.pid


def identity() -> str:
    """A new one."""
    return secrets.token_hex(32)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed report, and the size that it ends at."""

    sealed: bytes
    size: int


class Funded:
    """A branch whose wallets `payer` and `payee` are enrolled; the payer has money.

    `holder`: the token of whoever has the online wallet `bank`.
    """

    def __init__(self, cloud: CloudProcess, branch: Branch, holder: str, bank: str) -> None:
        self.cloud = cloud
        self.branch = branch
        self.bank = bank
        self.payer, self.payee = DeviceKey(b"\x01" * 32), DeviceKey(b"\x02" * 32)
        self.holder = holder
        self.port = JournalPort(
            branch.opened, folder=Folder(branch.config.folder), clock=SystemClock()
        )
        named = branch.opened.identity
        credentials = Credentials(
            authority=named.cloud_ca,
            certificate=named.transport_certificate,
            key=named.transport_key,
        )
        self.transport = HttpsTransport(credentials, url=cloud.gateway_url, timeout_s=WAIT_S)

    @property
    def journal(self) -> Any:
        """The branch's journal."""
        return self.branch.opened.journal

    async def pay(self, *amounts: int) -> list[Receipted]:
        """Payments from the payer to the payee."""
        made = []
        for amount in amounts:
            order = self.branch.order(self.payer, self.payee.public.id, amount)
            outcome = await self.journal.pay(order)
            assert isinstance(outcome, Receipted), outcome
            made.append(outcome)
        return made

    async def hand_over(self, amount: int, *, to: Funded) -> None:
        """A note from the payer here to the payee of another branch, who redeems it."""
        order = self.branch.order(
            *(self.payer, to.payee.public.id, amount), payee_journal=to.journal.state.journal
        )
        made = await self.journal.pay(order)
        assert isinstance(made, Receipted), made
        taken = await to.journal.redeem(made.entry, made.receipt)
        assert isinstance(taken, Receipted), taken

    async def fund(self, amount: int) -> None:
        """Value for the payer's wallet, on its way."""
        body = {
            "funding_id": identity(),
            "journal": journal_text(self.journal.state.journal),
            "offline_wallet": self.payer.text,
            "amount": amount,
        }
        async with self.cloud.api(self.holder) as api:
            status, made = await api.post(f"/v1/wallets/{self.bank}/fundings", body)
        assert (status, made["state"]) == (201, "held"), made

    async def synchronise(self) -> None:
        """Two sessions: what the first one brings becomes entries, which the second carries."""
        for _ in range(2):
            async with asyncio.timeout(WAIT_S):
                result, detail = await self.branch.daemon.sync_now()
            assert result == "completed", (result, detail)

    def balances(self) -> dict[str, int]:
        """What the branch's own book says of each wallet, by its text."""
        wallets = self.journal.state.wallets.values()
        return {wallet_text(w.wallet): w.settled + w.unsettled for w in wallets}

    def balance(self, key: DeviceKey) -> int:
        """What one wallet has."""
        wallet = self.journal.state.wallets[WalletId(key.public.id)]
        found: int = wallet.settled + wallet.unsettled
        return found

    # ---- reports in the test's own hands ---------------------------------------------------
    async def report(self) -> Report:
        """The next report, sealed: the same bytes can be sent as often as need be."""
        prepared = await self.port.up(secrets.token_bytes(EXCHANGE_BYTES))
        recipient = await self.port.recipient()
        assert prepared is not None and recipient is not None
        up, _ = prepared
        envelope = await self.port.sign(up_payload(up), UP_TYPE)
        size = up.acknowledged_size + len(up.entries)
        return Report(sealed=seal(envelope, recipient=recipient), size=size)

    async def send(self, report: Report) -> Down:
        """Send it and open the answer. Raises: TransportError."""
        try:
            answer = await self.transport.exchange(report.sealed)
        finally:
            await self.transport.hang_up()
        return open_down(answer, keys=self.port.own_keys(), root=self.port.anchor)


@contextlib.asynccontextmanager
async def funded_branch(
    cloud: CloudProcess, folder: Path, *, bank: str = "bank-eur"
) -> AsyncIterator[Funded]:
    """A branch that is enrolled, provisioned and funded, and synchronises when it is told to."""
    async with cloud.api(cloud.officer("first")) as first:
        body = {"name": folder.name, "currency": "EUR", "tiers": [MERCHANT], "level": "software"}
        token = (await done(first, "/v1/issuer/gateways", body))["token"]
        holder = {"holder": bank, "wallet": bank, "currency": "EUR"}
        holder_token = (await done(first, "/v1/issuer/holders", holder))["token"]
    await _issue(cloud, bank, ISSUED)
    await provisioned(cloud, folder, token)
    async with running(config_of(folder), LiveIssuer()) as branch:
        made = Funded(cloud, branch, holder_token, bank)
        await _enrol(made)
        await made.fund(FUNDS)
        await made.synchronise()
        assert made.balance(made.payer) == FUNDS
        yield made


async def done(api: Api, path: str, body: dict[str, Any]) -> Any:
    """What a POST that must pass answers."""
    status, value = await api.post(path, body)
    assert status == 201, value
    return value


async def _issue(cloud: CloudProcess, wallet: str, amount: int) -> None:
    draft = {"draft_id": identity(), "action": "issue", "wallet": wallet, "amount": amount}
    async with cloud.api(cloud.officer("first")) as first:
        made = await done(first, "/v1/issuer/supply", {**draft, "reason": "test"})
    async with cloud.api(cloud.officer("second")) as second:
        await done(second, f"/v1/issuer/supply/{made['draft_id']}/approve", {})


async def provisioned(cloud: CloudProcess, folder: Path, token: str) -> None:
    """Enrol a gateway. Raises: EnrolmentFailed."""
    Folder(folder).prepare()
    made = await software.create(Folder(folder).token, passphrase=PASSPHRASE, cost=LIGHT)
    await made.close()
    wish = Wish(cloud=cloud.gateway_url, cloud_ca=cloud.authority, enrolment_token=token)
    await provision(
        config_of(folder), wish, secret=PASSPHRASE, clock=SystemClock(), say=lambda step: None
    )


async def _enrol(made: Funded) -> None:
    async with made.cloud.api(made.cloud.officer("first")) as first:
        for key in (made.payer, made.payee):
            body = {
                "journal": journal_text(made.journal.state.journal),
                "key": to_text(key.public.cose_key),
                "tier": MERCHANT,
            }
            await done(first, "/v1/issuer/enrolments", body)
    await made.synchronise()


# ---- the cloud's database ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def database_of(cloud: CloudProcess) -> AsyncIterator[Any]:
    """A session of the cloud's embedded database, which may die under the block."""
    note = cloud.folder / "postgres" / "data" / "postmaster.pid"
    socket = note.read_text().splitlines()[_SOCKET_LINE]
    connection = await asyncpg.connect(host=socket, user="postgres", database="cbdc", timeout=20)
    try:
        yield connection
    finally:
        connection.terminate()


async def waits_for(connection: Any, table: str) -> None:
    """Wait until somebody waits for a lock on the table."""
    async with asyncio.timeout(WAIT_S):
        while not await lock_waiters(connection, table):
            await asyncio.sleep(0.005)


async def lock_waiters(connection: Any, table: str) -> int:
    """How many wait for a lock on the table."""
    found: int = await connection.fetchval(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass", table
    )
    return found


async def kill_with_database(cloud: CloudProcess) -> None:
    """SIGKILL to PostgreSQL with all its processes and to the cloud, as when the power goes."""
    found = read_postmaster(cloud.folder / "postgres" / "data")
    assert found is not None
    for pid in (found.pid, *_children(found.pid)):
        os.kill(pid, signal.SIGKILL)
    await cloud.kill()


async def copy_database(cloud: CloudProcess, to: Path) -> None:
    """The whole cluster of a cloud that is stopped, as a backup keeps it."""
    await _run("cp", "-a", str(cloud.folder / "postgres"), str(to))


async def restore_database(cloud: CloudProcess, copy: Path) -> None:
    """The copy in the place of what a stopped cloud has."""
    await _run("rm", "-r", str(cloud.folder / "postgres"))
    await _run("cp", "-a", str(copy), str(cloud.folder / "postgres"))


async def _run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0, words


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


async def check_books(made: Funded, *, size: int, suspense: int = 0) -> None:
    """The cloud holds exactly this much of the journal, each entry with one effect, to the cent."""
    entries = await made.journal.entries(0, size)
    async with database_of(made.cloud) as connection:
        held = await connection.fetch("SELECT entry FROM journal_entry ORDER BY index")
        assert [row["entry"] for row in held] == entries
        (found,) = await conservation(connection)
        assert await discrepancies(connection) == []
        rows = await connection.fetch(
            "SELECT split_part(name, '/', 4) AS name, balance FROM ledger_account"
            " WHERE kind = 'offline'"
        )
        moved = await connection.fetchval(
            "SELECT count(*) FROM ledger_transfer WHERE kind = ANY ($1)",
            [TransferKind.FUND, TransferKind.PAY],
        )
        evidence = await connection.fetchval("SELECT count(*) FROM journal_evidence")
    assert {row["name"]: row["balance"] for row in rows} == made.balances()
    assert (found.issued, found.difference, found.loss) == (ISSUED, 0, 0)
    assert found.suspense == suspense
    assert found.offline == sum(made.balances().values())
    assert found.online == ISSUED - found.offline - found.in_transit - suspense
    assert evidence == 0
    kinds = [decode_entry(raw).kind for raw in entries]
    assert moved == sum(kind in (EntryKind.FUND, EntryKind.PAY) for kind in kinds)
