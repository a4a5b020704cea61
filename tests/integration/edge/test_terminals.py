"""Who may speak to a gateway: its own terminals, as long as they are not revoked."""

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
import pytest

from edge.errors import GatewayUnreachable, OrderRefused, PairingRefused
from edge.http.local import PairingView
from edge.local_client import LocalClient
from edge.pos.client import Client
from edge.pos.pairing import pair
from edge.pos.terminal import Terminal
from tests.integration.edge.conftest import Template
from tests.support.branch_local import Branch, Http, copied


async def test_a_caller_without_a_certificate_gets_no_answer(branch: Branch) -> None:
    terminal = await branch.terminal()
    context = ssl.create_default_context(cadata=terminal.authority)
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        async with (
            aiohttp.ClientSession() as session,
            session.get(terminal.url + "/v1/gateway", ssl=context) as response,
        ):
            await response.read()


async def test_a_certificate_of_another_gateway_gets_no_answer(
    branch: Branch, template: Template, tmp_path: Path
) -> None:
    terminal = await branch.terminal()
    # The other one has an authority of its own: another folder, provisioned apart.
    other = tmp_path / "other"
    async with copied(template.folder, other, template.issuer) as stranger:
        for path in (stranger.folder.tls / "server.crt",):
            path.unlink()
    async with copied(other, tmp_path / "third", template.issuer) as stranger:
        foreign = await stranger.terminal("foreign")
    mixed = Terminal(
        url=terminal.url,
        gateway=terminal.gateway,
        terminal="foreign",
        authority=terminal.authority,
        certificate=foreign.certificate,
        key=foreign.key,
    )
    async with Client(mixed) as client:
        with pytest.raises(GatewayUnreachable):
            await client.raw("GET", "/v1/wallets/x", None)


async def test_a_revoked_terminal_is_refused_on_the_connection_that_it_has(
    branch: Branch, http: Http
) -> None:
    assert (await http.get("/v1/reports/x"))[0] == 200
    assert await branch.opened.terminals.revoke("till")
    assert not await branch.opened.terminals.revoke("till")
    status, problem = await http.get("/v1/reports/x")
    assert (status, problem["code"]) == (403, "terminal-revoked")
    status, problem = await http.post("/v1/payments", {"order": "AA"})
    assert (status, problem["code"]) == (403, "terminal-revoked")


async def test_a_certificate_that_the_store_does_not_know_is_refused(
    branch: Branch, http: Http
) -> None:
    await branch.opened.database.write(lambda c: c.execute("DELETE FROM terminals").rowcount)
    await branch.opened.terminals.load()
    status, problem = await http.get("/v1/reports/x")
    assert (status, problem["code"]) == (403, "terminal-unknown")


class Ceremony:
    """Both sides of a pairing."""

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self.local = LocalClient(branch.folder)
        self.shown: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self) -> str:
        """The technician presses pair: the code."""
        view = await self.local.call("POST", "/pairing", PairingView, body={})
        assert view.state == "open" and view.code is not None
        return view.code

    def terminal(self, code: str) -> asyncio.Task[Terminal]:
        """The terminal comes with a code."""
        ports = self.branch.ports
        return asyncio.create_task(
            pair(
                pairing_url=f"https://127.0.0.1:{ports['pairing_port']}",
                url=f"https://127.0.0.1:{ports['port']}",
                code=code,
                name="till 7",
                show=self.shown.set_result,
            )
        )

    async def confirm(self, sas: str) -> None:
        """The technician says yes."""
        await self.local.call("POST", "/pairing/confirm", PairingView, body={"sas": sas})


async def test_a_pairing_confirmed_by_equal_strings_gives_a_certificate_that_works(
    branch: Branch, tmp_path: Path
) -> None:
    ceremony = Ceremony(branch)
    code = await ceremony.open()
    task = ceremony.terminal(f"{code[:4]}-{code[4:]}".lower())
    sas = await ceremony.shown
    view = await ceremony.local.call("GET", "/pairing", PairingView)
    assert (view.state, view.sas, view.code) == ("waiting", sas, None)
    # The answer of /pairing/confirm is a terminal, not a view.
    await ceremony.local.call("POST", "/pairing/confirm", dict, body={"sas": sas})
    terminal = await task
    terminal.save(tmp_path / "till")
    async with Client(Terminal.load(tmp_path / "till")) as client:
        status, raw = await client.raw("GET", "/v1/gateway", None)
    assert (status, json.loads(raw)["mode"]) == (200, "open")


async def test_strings_that_differ_end_the_pairing(branch: Branch) -> None:
    ceremony = Ceremony(branch)
    task = ceremony.terminal(await ceremony.open())
    await ceremony.shown
    with pytest.raises(Exception, match="pairing-refused"):
        await ceremony.local.call("POST", "/pairing/confirm", dict, body={"sas": "AAAA-AAAA"})
    with pytest.raises(OrderRefused, match="pairing-refused"):
        await task


async def test_a_technician_may_refuse(branch: Branch) -> None:
    ceremony = Ceremony(branch)
    task = ceremony.terminal(await ceremony.open())
    await ceremony.shown
    view = await ceremony.local.call("DELETE", "/pairing", PairingView)
    assert view.state == "refused"
    with pytest.raises(OrderRefused, match="pairing-refused"):
        await task


async def test_wrong_codes_are_counted_and_close_the_pairing(branch: Branch) -> None:
    ceremony = Ceremony(branch)
    code = await ceremony.open()
    for _ in range(5):
        with pytest.raises(OrderRefused, match="pairing-refused"):
            await Ceremony(branch).terminal("AAAAAAAA")
    with pytest.raises(OrderRefused, match="no pairing is open"):
        await Ceremony(branch).terminal(code)
    assert (await ceremony.local.call("GET", "/pairing", PairingView)).state == "none"


async def test_a_certificate_request_that_is_none_is_refused(branch: Branch) -> None:
    ceremony = Ceremony(branch)
    code = await ceremony.open()
    url = f"https://127.0.0.1:{branch.ports['pairing_port']}/pair"
    async with aiohttp.ClientSession() as session:
        for csr in ("nothing", ""):
            body = json.dumps({"code": code, "csr": csr})
            async with session.post(
                url, data=body, ssl=False, headers={"Content-Type": "application/json"}
            ) as response:
                problem = await response.json(content_type=None)
            assert problem["code"] in ("pairing-refused", "body-invalid")
        async with session.get(f"{url}/{'0' * 32}", ssl=False) as response:
            assert (await response.json(content_type=None))["code"] == "pairing-refused"


async def test_nobody_answers_where_no_gateway_is() -> None:
    with pytest.raises(GatewayUnreachable):
        await pair(
            pairing_url="https://127.0.0.1:1",
            url="https://127.0.0.1:1",
            code="AAAAAAAA",
            name="x",
            show=lambda sas: None,
        )
    assert issubclass(PairingRefused, Exception)
