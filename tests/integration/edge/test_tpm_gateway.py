"""A gateway whose keys are in a TPM: it pays, and each trouble of the TPM seals it by its name."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tpm2_pytss import ESAPI

from edge.pos.client import Client
from edge.pos.purse import Purse
from edge.pos.terminal import Terminal
from edge.store_key import open_store
from edge.wear import Sample
from hsm import tpm
from hsm.api import CounterReplaced, HsmError, PolicyRefused, TokenCleared, TokenGone, TokenReplaced
from hsm.tpm.config import NV_INDEX_DEFAULT
from hsm.tpm.templates import counter as counter_template
from tests.integration.edge.test_faults import order_of
from tests.support.branch import Daemon, provisioned
from tests.support.branch_local import Http
from tests.support.live_issuer import funded
from tests.support.swtpm import Swtpm, clear, extend_pcr, running_swtpm, undefine
from tests.support.tokens import closing
from wallet.clock import SystemClock
from wallet.store.meta import put_meta

SEALED_EXIT = 4
MOVES = 200


class TpmBranch:
    """A running gateway, its TPM, and a till that pays."""

    def __init__(self, chip: Swtpm, daemon: Daemon, purse: Purse, terminal: Terminal) -> None:
        self.chip = chip
        self.daemon = daemon
        self.purse = purse
        self._terminal = terminal
        self.sequence = 0

    async def pay(self) -> tuple[int, Any]:
        """Pay once; an order that was refused is the next one again."""
        payer, payee = self.purse.keys["alice"], self.purse.keys["shop"]
        order = order_of(self._terminal.gateway, payer, payee.public.id, sequence=self.sequence)
        async with Client(self._moved()) as client:
            status, answer = await Http(client).pay(order)
        self.sequence += status in (200, 201)
        return status, answer

    async def balance(self) -> int:
        """What the shop has."""
        async with Client(self._moved()) as client:
            _, wallet = await Http(client).get(f"/v1/wallets/{self.purse.keys['shop'].text}")
        balance: int = wallet["balance"]
        return balance

    async def sealed_by(self, error: type[HsmError]) -> str:
        """The cause, once the gateway says this one; it pays nothing meanwhile."""
        status = await self.daemon.wait_for(
            lambda status: status.mode == "sealed" and (status.cause or "").startswith(error.code)
        )
        assert status.cause is not None and status.cause.endswith(error.advice)
        code, problem = await self.pay()
        assert (code, problem["code"]) == (503, "sealed")
        exit_code, out, _ = await self.daemon.command.edge("status")
        assert (exit_code, error.advice in out) == (SEALED_EXIT, True)
        _, out, _ = await self.daemon.command.edge("doctor", "--offline")
        assert error.advice in out
        return status.cause

    async def open_again(self) -> None:
        """Wait until it pays."""
        await self.daemon.wait_for(lambda status: status.mode == "open")
        assert (await self.pay())[0] in (200, 201)

    def _moved(self) -> Terminal:
        return Terminal(
            url=f"https://127.0.0.1:{self.daemon.ports['port']}",
            gateway=self._terminal.gateway,
            terminal=self._terminal.terminal,
            authority=self._terminal.authority,
            certificate=self._terminal.certificate,
            key=self._terminal.key,
        )


@pytest.fixture
async def branch(tmp_path: Path) -> AsyncIterator[TpmBranch]:
    """A gateway on a TPM of its own, which has taken one payment."""
    pin = tmp_path / "pin.txt"
    pin.write_text("4711\n")
    purse = Purse.open(tmp_path / "till")
    keys = purse.create("alice", "shop")
    with running_swtpm(tmp_path / "chip") as chip:
        settings = ("token.driver=tpm", "token.algorithm=es256", f"token.tcti={chip.tcti}")
        pin_file = f"token.pin_file={pin}"
        async with provisioned(
            tmp_path, objects=funded(list(keys)), settings=(*settings, pin_file)
        ) as (daemon, _):
            await daemon.start()
            terminal = await daemon.pair(tmp_path / "till")
            made = TpmBranch(chip, daemon, purse, terminal)
            assert (await made.pay())[0] == 201
            yield made
            await daemon.stop()


async def test_a_gateway_whose_tpm_loses_power_is_sealed_and_goes_on_when_it_is_back(
    branch: TpmBranch,
) -> None:
    before = await branch.balance()
    branch.chip.kill()
    await branch.sealed_by(TokenGone)
    branch.chip.start()
    await branch.open_again()
    assert await branch.balance() == before + 10
    status = await branch.daemon.wait_for(lambda status: True)
    assert (status.counter_driver, status.cause) == ("tpm", None)


async def test_a_gateway_that_starts_without_its_tpm_opens_once_it_is_there(
    branch: TpmBranch,
) -> None:
    before = await branch.balance()
    await branch.daemon.stop()
    branch.chip.kill()
    await branch.daemon.start()
    await branch.sealed_by(TokenGone)
    branch.chip.start()
    await branch.open_again()
    assert await branch.balance() == before + 10


async def test_a_gateway_that_was_killed_with_its_tpm_goes_on_where_it_was(
    branch: TpmBranch,
) -> None:
    before = await branch.balance()
    await branch.daemon.kill()
    branch.chip.restart()
    await branch.daemon.start()
    await branch.open_again()
    assert await branch.balance() == before + 10


async def test_another_tpm_is_named_and_the_first_one_taken_again(branch: TpmBranch) -> None:
    branch.chip.replace()
    await branch.sealed_by(TokenReplaced)
    branch.chip.put_back()
    await branch.open_again()


async def test_other_firmware_is_named_with_the_policy_and_undone_by_a_restart(
    branch: TpmBranch,
) -> None:
    await branch.daemon.stop()
    await branch.chip.administer(extend_pcr(7))
    await branch.daemon.start()
    assert "the policy firmware refuses" in await branch.sealed_by(PolicyRefused)
    branch.chip.restart()
    await branch.open_again()


async def test_a_cleared_tpm_is_named_and_the_journal_stays_as_it_was(branch: TpmBranch) -> None:
    store = branch.daemon.folder.store
    await branch.daemon.stop()
    content = store.read_bytes()
    await branch.chip.administer(clear)
    await branch.daemon.start()
    await branch.sealed_by(TokenCleared)
    assert await branch.daemon.stop() == 0
    assert store.read_bytes() == content


async def test_a_counter_that_was_removed_is_named(branch: TpmBranch) -> None:
    await branch.daemon.stop()
    await branch.chip.administer(undefine(NV_INDEX_DEFAULT))
    await branch.daemon.start()
    await branch.sealed_by(CounterReplaced)


async def test_a_gateway_that_was_resealed_pays_after_an_update(branch: TpmBranch) -> None:
    daemon = branch.daemon
    flags = [part for text in daemon.settings for part in ("--set", text)]
    code, _, errors = await daemon.command.edge(*flags, "key", "reseal", "--to", "none")
    assert (code, "stop the gateway first" in errors) == (1, True)
    await daemon.stop()
    code, out, errors = await daemon.command.edge(*flags, "key", "reseal", "--to", "none")
    assert (code, 'pcr_policy = "none"' in out) == (0, True), errors
    await branch.chip.administer(extend_pcr(0))  # the update
    loose = [*flags, "--set", "token.pcr_policy=none"]
    code, _, errors = await daemon.command.edge(*loose, "key", "reseal", "--to", "firmware")
    assert code == 0, errors
    await daemon.start()
    await branch.open_again()


async def test_a_counter_that_moves_too_often_is_told_by_status_and_doctor(
    tmp_path: Path,
) -> None:
    with running_swtpm(tmp_path / "chip") as chip:
        # A TPM never lets a counter begin below an old one: ours begins above these.
        await chip.administer(count_elsewhere(MOVES))
        settings = ("token.driver=tpm", "token.algorithm=es256", f"token.tcti={chip.tcti}")
        async with provisioned(tmp_path, settings=settings) as (daemon, _):
            await daemon.start()
            _, out, _ = await daemon.command.edge("doctor", "--offline")
            assert "how fast the counter wears is known after a day" in out
            counter = (await daemon.wait_for(lambda status: True)).counter or 0
            await daemon.stop()
            await watched_since(daemon, chip, counter=counter - MOVES)
            await daemon.start()
            await daemon.wait_for(lambda status: status.mode == "open")
            _, out, _ = await daemon.command.edge("status")
            assert "wear          the counter moves" in out, out
            _, out, _ = await daemon.command.edge("doctor", "--offline")
            assert "look  the counter moves" in out and "worn out in" in out
            await daemon.stop()


def count_elsewhere(moves: int) -> Callable[[ESAPI], None]:
    """Let another counter of the TPM move so often, and go."""

    def work(esys: ESAPI) -> None:
        handle = esys.nv_define_space(b"", counter_template(NV_INDEX_DEFAULT + 1))
        for _ in range(moves):
            esys.nv_increment(handle)
        esys.nv_undefine_space(handle)

    return work


async def watched_since(daemon: Daemon, chip: Swtpm, *, counter: int) -> None:
    """As if the gateway had remembered this count two days ago."""
    sample = Sample(time_ms=SystemClock().now_ms() - 2 * 86_400_000, counter=counter)
    config = chip.config(daemon.folder.token, pin=b"")
    async with closing(await tpm.open_token(config)) as token:
        database = await open_store(daemon.folder, token)
        encoded = msgspec.json.encode([sample])
        await database.write(lambda c: put_meta(c, "counter-samples", encoded))
        await database.close()
