"""The technician's page of a running gateway, whatever state it is in."""

import asyncio
import logging
import shutil
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edge.config import TamperConfig, TechnicianConfig
from edge.folder import Folder
from edge.http.octets import to_text
from edge.technician.page import HEADERS
from hsm import software
from tests.integration.edge.conftest import FUNDS, Template
from tests.support.branch_local import PASSPHRASE, WAIT_S, Branch, config_of, running
from tests.support.leaks import leaks
from tests.support.refusals import taken
from wallet.journal import Receipted
from wallet.protocol.ids import wallet_text


@asynccontextmanager
async def asking(branch: Branch) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser's side."""
    url = f"http://127.0.0.1:{branch.ports['technician_port']}"
    timeout = aiohttp.ClientTimeout(WAIT_S)
    async with aiohttp.ClientSession(url, timeout=timeout) as session:
        yield session


async def page_of(branch: Branch, path: str = "/") -> str:
    """The page."""
    async with asking(branch) as session, session.get(path) as response:
        text = await response.text()
        assert response.status == 200, text
        return text


def code(page: str) -> str:
    """The name of the state that stands first."""
    return page.partition("<code>")[2].partition("</code>")[0]


async def test_an_open_gateway_shows_what_it_has_and_owes(branch: Branch, keys: Any) -> None:
    order = branch.order(keys["alice"], keys["shop"].public.id, 1_234)
    assert isinstance(await branch.opened.journal.pay(order), Receipted)
    status = branch.opened.journal.status()
    page = await page_of(branch)
    assert code(page) == "open"
    for text in (
        "12.34 EUR (the counter moves",
        f"{status.size - status.acknowledged:,}, worth ",
        f"{4 * FUNDS // 100}.00 EUR",
        "an older disk that is put back is not noticed",
        status.journal,
        "never held",
        "nothing tells that the box is opened",
    ):
        assert text in page, text


async def test_a_folder_that_was_rolled_back_says_so_and_what_to_do(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    token = await software.open_token(Folder(folder).token, passphrase=PASSPHRASE)
    for _ in range(2):
        await token.counter.increment()
    await token.close()
    async with running(config_of(folder), template.issuer) as branch:
        page = await page_of(branch)
    assert code(page) == "frozen-rollback"
    assert "Frozen: the disk is older than the key hardware" in page
    assert "Tell the issuer" in page and "What putting back an older disk could hide" in page


async def test_a_token_that_is_gone_is_named_at_the_start_and_later(
    template: Template, tmp_path: Path
) -> None:
    folder = tmp_path / "gateway"
    shutil.copytree(template.folder, folder)
    key = Folder(folder).token / software.FILE_NAME
    async with running(config_of(folder), template.issuer) as branch:
        key.rename(tmp_path / "pulled")
        await branch.opened.probe_token()
        pulled = await page_of(branch)
    async with running(config_of(folder), template.issuer) as branch:
        started = await page_of(branch)
        (tmp_path / "pulled").rename(key)
        await branch.daemon.reload()
        assert code(await page_of(branch)) == "open"
    # A software token without its file has no key, as far as a start can tell.
    assert (code(pulled), code(started)) == ("token-gone", "key-missing")
    assert "Entries that the issuer does not hold yet" in pulled
    assert "Entries that the issuer does not hold yet" not in started


async def test_the_issuers_stop_is_named(template: Template, branch: Branch) -> None:
    state = branch.opened.journal.state
    await taken(branch, template.issuer.list(1, [[state.journal, state.epoch]], sequence=1))
    page = await page_of(branch)
    assert code(page) == "frozen-by-issuer"
    assert "Call the issuer" in page


async def test_a_box_that_was_opened_says_so_while_its_keys_are_gone(
    template: Template, tmp_path: Path
) -> None:
    lid = tmp_path / "lid"
    shutil.copytree(template.folder, tmp_path / "gateway")
    config = config_of(tmp_path / "gateway", tamper=TamperConfig(source="file", file=lid))
    async with running(config, template.issuer) as branch:
        lid.write_text("1")
        async with asyncio.timeout(WAIT_S):
            while branch.daemon.context.gateway.opened is not None:
                await asyncio.sleep(0.02)
        page = await page_of(branch)
    assert code(page) == "frozen-tamper"
    assert "the tamper switch tripped" in page and "cbdc-edge tamper says" in page


async def test_a_gateway_that_is_not_set_up_says_how(tmp_path: Path, template: Template) -> None:
    async with running(config_of(tmp_path / "new"), template.issuer) as branch:
        page = await page_of(branch)
    assert code(page) == "not-provisioned"
    assert "cbdc-edge provision" in page


async def test_a_store_that_hangs_does_not_keep_the_page_away(branch: Branch) -> None:
    go = threading.Event()
    hanging = asyncio.ensure_future(branch.opened.database.read(lambda c: go.wait(WAIT_S)))
    try:
        page = await page_of(branch)
    finally:
        go.set()
        await hanging
    assert "<code>store-silent</code>" in page


async def test_it_is_only_shown_and_only_to_who_asks_for_this_gateway(branch: Branch) -> None:
    port = branch.ports["technician_port"]
    async with asking(branch) as session:
        for path in ("/", "/live", "/page.css", "/icon.svg"):
            async with session.get(path) as response:
                assert response.status == 200
                assert HEADERS.items() <= dict(response.headers).items()
            for host in ("evil.test", f"evil.test:{port}", "127.0.0.1.evil.test", ""):
                async with session.get(path, headers={"Host": host}) as response:
                    assert (response.status, (await response.json(content_type=None))["code"]) == (
                        421,
                        "host-unknown",
                    )
            for method in ("POST", "PUT", "DELETE", "HEAD"):
                async with session.request(method, path) as response:
                    assert (response.status, response.headers["Allow"]) == (405, "GET")
        async with session.get("/v1/gateway") as response:
            assert response.status == 404
        async with session.get("/", headers={"Host": f"localhost:{port}"}) as response:
            assert response.status == 200
        async with session.get("/?", headers={"Host": "LOCALHOST"}) as response:
            assert response.status == 200


async def test_names_of_the_configuration_are_its_own(template: Template, tmp_path: Path) -> None:
    page = TechnicianConfig(listen="127.0.0.1:0", names=("Box.branch",))
    shutil.copytree(template.folder, tmp_path / "gateway")
    async with (
        running(config_of(tmp_path / "gateway", technician=page), template.issuer) as branch,
        asking(branch) as session,
        session.get("/", headers={"Host": "box.branch:8445"}) as response,
    ):
        assert response.status == 200


async def test_no_secret_and_no_name_of_a_wallet_is_on_it(branch: Branch, keys: Any) -> None:
    await branch.terminal("till of Ms Example")
    order = branch.order(keys["alice"], keys["shop"].public.id, 500)
    assert isinstance(await branch.opened.journal.pay(order), Receipted)
    page = await page_of(branch)
    secrets = {"passphrase": PASSPHRASE, "transport": branch.opened.identity.transport_key.encode()}
    secrets |= {name: key.public.id for name, key in keys.items()}
    assert leaks({"page": page.encode()}, secrets) == []
    assert "Ms Example" not in page and to_text(order) not in page
    assert not [key for key in keys.values() if wallet_text(key.public.id) in page]


async def test_a_port_that_is_taken_leaves_the_gateway_paying(
    template: Template, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(template.folder, tmp_path / "gateway")
    with socket.create_server(("127.0.0.1", 0)) as other, caplog.at_level(logging.ERROR):
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        config = config_of(tmp_path / "gateway", technician=TechnicianConfig(listen=listen))
        async with running(config, template.issuer) as branch:
            assert str(branch.opened.journal.mode) == "open"
            assert "technician_port" not in branch.ports
    assert [record.message for record in caplog.records] == ["page.failed"]


async def test_without_an_address_there_is_no_page(template: Template, tmp_path: Path) -> None:
    shutil.copytree(template.folder, tmp_path / "gateway")
    config = config_of(tmp_path / "gateway", technician=TechnicianConfig(listen=""))
    async with running(config, template.issuer) as branch:
        assert set(branch.ports) == {"port", "pairing_port", "metrics_port"}
