"""A cloud, two officers and gateways in folders of their own: what is lost is lost for good."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.database import Database
from cloud.funding import FundingRequest, hold
from cloud.http.octets import to_text
from cloud.issuer import policies
from cloud.ledger.conservation import Conservation, discrepancies
from cloud.shards.account import account_of_all, waiting_of
from edge.config import Config, SyncConfig, TokenConfig
from edge.folder import Folder
from edge.pos.purse import DeviceKey
from edge.provision import Wish, provision
from hsm import software
from hsm.keyfile import LIGHT
from tests.support.branch import Command
from tests.support.branch_local import PASSPHRASE, Branch, config_of, running
from tests.support.cloud_local import LocalCloud, local_cloud
from tests.support.cloud_process import Api
from tests.support.live_issuer import LiveIssuer
from wallet.clock import Clock, SystemClock
from wallet.journal import Receipted
from wallet.protocol.ids import WalletId, journal_text, parse_journal, wallet_text
from wallet.protocol.policy import JournalLimit

ANNA, BERT, CARA = (DeviceKey(bytes([number]) * 32) for number in (1, 2, 3))
SUPPLY = 1_000_000
WINDOW_S = 1
ORDER_MS = 60_000
DEVICE_TIER = 1
# Nothing listens there: a gateway with this address is cut off.
NOWHERE = "https://127.0.0.1:9"


class Box:
    """A gateway in a folder, running or not. `token`: where its keys are, if not in a file."""

    def __init__(self, story: Story, folder: Path, token: TokenConfig | None = None) -> None:
        self.story = story
        self.folder = folder
        self.token = token
        self.journal = b""

    def config(self, **changes: Any) -> Config:
        """Its configuration."""
        tokens = {} if self.token is None else {"token": self.token}
        return config_of(self.folder, **tokens, **changes)

    async def edge(self, *words: str) -> tuple[int, str, str]:
        """`cbdc-edge` on it, as a process: (exit code, output, errors)."""
        fields = {} if self.token is None else msgspec.structs.asdict(self.token)
        told = {name: value for name, value in fields.items() if value is not None}
        flags = [part for name in told for part in ("--set", f"token.{name}={told[name]}")]
        command = Command(self.folder)
        command.environment["CBDC_EDGE_TOKEN_PIN"] = PASSPHRASE.decode()
        return await command.edge(*flags, *words)

    @contextlib.asynccontextmanager
    async def running(
        self, *, offline: bool = False, clock: Clock | None = None, **changes: Any
    ) -> AsyncIterator[Branch]:
        """The daemon while the block runs, with its line to the cloud or without."""
        url = NOWHERE if offline else None
        config = self.config(sync=SyncConfig(url=url, interval_s=86_400), **changes)
        async with running(config, self.story.not_needed, clock=clock) as branch:
            yield branch

    async def sync(self) -> None:
        """Run for as long as an exchange takes."""
        async with self.running() as branch:
            await exchanged(branch)

    def lose(self) -> None:
        """The box and its token are gone."""
        shutil.rmtree(self.folder)


@contextlib.asynccontextmanager
async def forgotten(box: Box) -> AsyncIterator[Branch]:
    """A gateway while the block runs, cut off; then its disk is that of before."""
    before = box.folder.with_name(f"{box.folder.name}-before")
    shutil.copytree(box.folder, before)
    async with box.running(offline=True) as branch:
        yield branch
    shutil.rmtree(box.folder)
    before.rename(box.folder)


async def exchanged(branch: Branch) -> None:
    """Synchronise until nothing is left to tell, twice: what came down is told as well."""
    for _ in range(2):
        result, detail = await branch.daemon.sync_now()
        assert result == "completed", detail


async def paid(
    branch: Branch, payer: DeviceKey, payee: DeviceKey, amount: int, **changes: Any
) -> Receipted:
    """A payment that passes; its entry and receipt."""
    now = SystemClock().now_ms()
    order = branch.order(
        payer, payee.public.id, amount, created_ms=now, expires_ms=now + ORDER_MS, **changes
    )
    outcome = await branch.opened.journal.pay(order)
    assert isinstance(outcome, Receipted), outcome
    return outcome


async def redeemed(branch: Branch, note: Receipted) -> Receipted:
    """A note of another journal comes in."""
    outcome = await branch.opened.journal.redeem(note.entry, note.receipt)
    assert isinstance(outcome, Receipted), outcome
    return outcome


def balance(branch: Branch, holder: DeviceKey) -> int:
    """What a wallet holds in a journal."""
    return branch.opened.journal.state.wallets[WalletId(holder.public.id)].balance


class Story:
    """What tests do with the cloud and its gateways."""

    def __init__(self, cloud: LocalCloud, folder: Path, officers: tuple[Api, Api]) -> None:
        self.cloud = cloud
        self.folder = folder
        self.first, self.second = officers
        # Journals are opened by this cloud's own issuer; the harness asks for one all the same.
        self.not_needed = LiveIssuer()
        self.database = cloud.cloud.database

    @property
    def books(self) -> Database:
        """Where the first journal lives: the head, or the last of several databases."""
        shards = self.cloud.cloud.shards
        return shards.database(len(shards) - 1)

    async def policy(self, limits: Mapping[int, int]) -> None:
        """The next policy: the default one, but for these limits of journals."""
        async with self.database.transaction() as connection:
            await policies.next_policy(
                connection,
                self.cloud.cloud.desk,
                "EUR",
                tiers=policies.DEFAULT_TIERS,
                journal={**policies.DEFAULT_JOURNAL, **limits},
                actor="test",
                now_ms=self.cloud.clock.now_ms(),
            )

    async def gateway(
        self,
        name: str,
        token: str | None = None,
        *,
        keys: TokenConfig | None = None,
        level: str = "software",
    ) -> Box:
        """A provisioned gateway, with a token of its own or one that was given."""
        if token is None:
            body = {"name": name, "currency": "EUR", "tiers": [0, DEVICE_TIER], "level": level}
            token = (await self.done(self.first, "/v1/issuer/gateways", body))["token"]
        box = Box(self, self.folder / name, keys)
        if keys is None and not Folder(box.folder).token.exists():
            Folder(box.folder).prepare()
            made = await software.create(
                Folder(box.folder).token, passphrase=PASSPHRASE, cost=LIGHT
            )
            await made.close()
        await self.provision(box, token)
        return box

    async def provision(self, box: Box, token: str) -> None:
        """Enrol a folder."""
        authority = self.cloud.cloud.desk.pki.transport.certificate
        wish = Wish(
            cloud=f"https://127.0.0.1:{self.cloud.ports['gateway_port']}",
            cloud_ca=authority.public_bytes(Encoding.PEM).decode(),
            enrolment_token=token,
            hosted_tier=0,
        )
        made = await provision(
            box.config(),
            wish,
            secret=PASSPHRASE,
            clock=SystemClock(),
            say=lambda step: None,
        )
        box.journal = parse_journal(made)

    async def enrol(self, box: Box, holder: DeviceKey) -> None:
        """A device wallet at a gateway; it takes it at its next exchange."""
        body = {"journal": journal_text(box.journal), "tier": DEVICE_TIER}
        body["key"] = to_text(holder.public.cose_key)
        await self.done(self.first, "/v1/issuer/enrolments", body)

    async def fund(self, box: Box, holder: DeviceKey, amount: int) -> bytes:
        """Value of the bank for a wallet; it travels at the next exchange."""
        funding_id = secrets.token_bytes(32)
        async with self.database.transaction() as connection:
            epoch = await connection.fetchval(
                "SELECT epoch FROM gateway WHERE journal = $1", box.journal
            )
            request = FundingRequest(
                funding_id=funding_id,
                wallet="bank-eur",
                journal=box.journal,
                epoch=epoch,
                offline_wallet=holder.public.id,
                amount=amount,
            )
            await hold(connection, request, now_ms=self.cloud.clock.now_ms())
        return funding_id

    async def done(self, officer: Api, path: str, body: Any) -> Any:
        """A call that passes."""
        status, answer = await officer.post(path, body)
        assert status == 201, answer
        return answer

    async def refused(self, officer: Api, path: str, body: Any) -> str:
        """The code of a call that does not pass."""
        status, answer = await officer.post(path, body)
        assert status >= 400, answer
        code: str = answer["code"]
        return code

    # ---- closing --------------------------------------------------------------------------
    async def drafted(self, box: Box, *, cause: str = "lost") -> str:
        """A closure that waits for a second officer; its path."""
        body = {"closure_id": secrets.token_hex(32), "journal": journal_text(box.journal)}
        body |= {"cause": cause, "reason": "stolen at night"}
        await self.done(self.first, "/v1/issuer/closures", body)
        return f"/v1/issuer/closures/{body['closure_id']}"

    async def closed(self, box: Box, *, cause: str = "lost") -> str:
        """A closure that two officers decided; its path."""
        path = await self.drafted(box, cause=cause)
        await self.done(self.second, f"{path}/approve", {})
        return path

    async def hand_in(self, *made: Receipted, by: Api | None = None) -> list[str]:
        """Receipts as claims; what became of each."""
        receipts = [
            {"entry": to_text(item.entry), "receipt": to_text(item.receipt)} for item in made
        ]
        path = "/v1/issuer/claims" if by is None else "/v1/wallets/claims"
        answer = await self.done(by or self.first, path, {"receipts": receipts})
        outcomes: list[str] = answer["outcomes"]
        return outcomes

    async def pass_window(self, path: str) -> None:
        """Let the claims window go by: it ends now. The clocks of boxes are not set on."""
        await self.shards_have_heard()
        async with self.database.transaction() as connection:
            await connection.execute(
                "UPDATE epoch_closure SET claims_until_ms = least(claims_until_ms, $2)"
                " WHERE closure_id = $1",
                *(bytes.fromhex(path.rpartition("/")[2]), self.cloud.clock.now_ms()),
            )

    async def statement_draft(self, path: str, *, hosted: str = "carry") -> Any:
        """A statement that waits for a second officer."""
        await self.shards_have_heard()
        body = {"statement_id": secrets.token_hex(32), "hosted": hosted}
        return await self.done(self.first, f"{path}/statements", body)

    async def stated(self, path: str, *, hosted: str = "carry") -> Any:
        """A statement that two officers decided."""
        draft = await self.statement_draft(path, hosted=hosted)
        one = f"/v1/issuer/statements/{draft['statement_id']}"
        made = await self.done(self.second, f"{one}/approve", {})
        await self.shards_have_heard()
        return made

    async def successor(self, path: str, name: str, *, keys: TokenConfig | None = None) -> Box:
        """The gateway that goes on."""
        token = (await self.done(self.first, f"{path}/token", {}))["token"]
        return await self.gateway(name, token, keys=keys)

    async def funded(self, box: Box) -> Box:
        """Anna's and Bert's gateway; Anna has 1,000, and the issuer knows."""
        await self.enrol(box, ANNA)
        await self.enrol(box, BERT)
        await self.fund(box, ANNA, 1_000)
        await box.sync()
        return box

    # ---- the account ----------------------------------------------------------------------
    async def where(self) -> Conservation:
        """Where the value is: all adds up, or the test fails."""
        shards = self.cloud.cloud.shards
        await self.shards_have_heard()
        async with self.database.transaction() as connection:
            (found,) = await account_of_all(shards, connection)
        for _, database in shards:
            async with database.transaction() as connection:
                assert await discrepancies(connection) == []
        assert (found.difference, found.issued) == (0, SUPPLY)
        return found

    async def shards_have_heard(self) -> None:
        """Wait until all messages between shards are taken."""
        async with asyncio.timeout(20):
            # Twice: an answer may be written in one shard while the next one is looked at.
            while await self.carried() or await self.carried():
                await asyncio.sleep(0.05)

    async def carried(self) -> int:
        """Messages between shards that are not known to be taken."""
        found = 0
        for _, database in self.cloud.cloud.shards:
            async with database.transaction() as connection:
                found += await waiting_of(connection)
        return found

    async def online_of(self, holder: DeviceKey) -> int:
        """What came to the online wallet of a wallet's own name."""
        async with self.database.transaction() as connection:
            found: int | None = await connection.fetchval(
                "SELECT balance FROM ledger_account WHERE name = $1",
                f"online/{wallet_text(holder.public.id)}",
            )
        return found or 0

    async def offline_in(self, box: Box, epoch: int) -> int:
        """What the ledger says is in an epoch."""
        found = 0
        for _, database in self.cloud.cloud.shards:
            async with database.transaction() as connection:
                found += await connection.fetchval(
                    "SELECT coalesce(sum(balance), 0)::bigint FROM ledger_account"
                    " WHERE name LIKE $1",
                    f"offline/{journal_text(box.journal)}/{epoch}/%",
                )
        return found


@contextlib.asynccontextmanager
async def told(
    database: Database, folder: Path, *, others: Sequence[Database] = ()
) -> AsyncIterator[Story]:
    """A cloud with all value in the bank's wallet, and notes that return after a second."""
    async with contextlib.AsyncExitStack() as stack:
        opening = local_cloud(database, folder / "cloud", others=others)
        cloud = await stack.enter_async_context(opening)
        officers = [
            await stack.enter_async_context(cloud.api(await cloud.officer(name)))
            for name in ("first", "second")
        ]
        story = Story(cloud, folder, (officers[0], officers[1]))
        await story.policy({JournalLimit.CLAIMS_WINDOW_S: WINDOW_S})
        holder = {"holder": "bank", "wallet": "bank-eur", "currency": "EUR"}
        await story.done(story.first, "/v1/issuer/holders", holder)
        draft = {"draft_id": secrets.token_hex(32), "action": "issue", "wallet": "bank-eur"}
        draft |= {"amount": SUPPLY, "reason": "test"}  # type: ignore[dict-item]  # a body of JSON
        await story.done(story.first, "/v1/issuer/supply", draft)
        await story.done(story.second, f"/v1/issuer/supply/{draft['draft_id']}/approve", {})
        yield story


def forged(made: Receipted) -> Receipted:
    """The same receipt over another entry: one digit of an amount, say."""
    return msgspec.structs.replace(made, entry=made.entry[:-1] + bytes([made.entry[-1] ^ 1]))
