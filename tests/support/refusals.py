"""Refusals as a client sees them: two gateways of one issuer, calls, and what holds of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from edge.http.octets import to_text
from edge.http.problem import CONTENT_TYPE, STATUSES
from edge.log import JsonLines
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from tests.support.branch_local import (
    DAY_MS,
    Branch,
    Http,
    config_of,
    copied,
    provision_light,
    running,
)
from tests.support.live_issuer import EnrolmentCloud, LiveIssuer
from wallet.clock import SystemClock
from wallet.protocol import issued
from wallet.protocol.codec import decode, encode
from wallet.protocol.ids import WalletId
from wallet.protocol.refusals import Code

FUNDS = 1_000
AMOUNT = 10
TIER = 1
# Three tries of a PIN, then a minute.
PIN_RULES = {119: 3, 120: 60}
WAIT_S = 20
_LISTS: dict[int, Any] = {1: [], 2: [], 3: {}, 4: [], 5: [], 6: []}
# What a client must never read: traces, files of ours, names of exceptions.
_INSIDE = re.compile(r"Traceback|\.py\b|\b[A-Z]\w*(Error|Exception|Refused|Invalid|Broken)\b")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a terminal."""

    path: str
    body: dict[str, Any] | None = None
    method: str = "POST"
    keyed: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back."""

    status: int
    content_type: str
    retry_after: str | None
    text: str


Make = Callable[["Scene"], Awaitable[Call]]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a refusal says. `waits`: `retry_after` too, between a second and a minute."""

    code: Code
    limit: int | None = None
    left: int | None = None
    waits: bool = False


class Case(Expected, frozen=True, kw_only=True):
    """A refusal, and how a terminal provokes it."""

    what: str
    make: Make

    @property
    def name(self) -> str:
        """How the test is called."""
        return f"{self.code}: {self.what}"


def named(cases: list[Case]) -> pytest.MarkDecorator:
    """All cases of a table, each as a test of its own."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


class Scene:
    """A gateway, a second one that sends notes to it, and a terminal at each."""

    def __init__(self, here: Branch, other: Branch, *, http: Http, away: Http) -> None:
        self.here = here
        self.other = other
        self.http = http
        self.away = away
        self._changed: set[int] = set()

    # ---- what the issuer says ---------------------------------------------------------------
    async def reset(self) -> None:
        """No limits but those of PINs, and empty lists."""
        await self.rules()
        for list_id in sorted(self._changed):
            await self.list(list_id, _LISTS[list_id])
        self._changed.clear()

    async def rules(
        self, tier: dict[int, int] | None = None, journal: dict[int, int] | None = None
    ) -> None:
        """A newer policy, by the numbers of limits.md."""
        held = self.here.opened.journal.state.policy_held().sequence
        policy = self.here.issuer.policy(
            {TIER: tier or {}}, PIN_RULES | (journal or {}), sequence=held + 1
        )
        await taken(self.here, policy)

    async def list(self, list_id: int, content: Any) -> None:
        """A newer list; `reset` empties it again."""
        held = self.here.opened.journal.state.lists.get(list_id)
        sequence = 0 if held is None else held.sequence + 1
        await taken(self.here, self.here.issuer.list(list_id, content, sequence=sequence))
        self._changed.add(list_id)

    async def wallet(self, *, funds: int = FUNDS, until_ms: int | None = None) -> DeviceKey:
        """A new wallet here, with money."""
        return await new_wallet(self.here, funds=funds, until_ms=until_ms)

    # ---- what wallets sign --------------------------------------------------------------------
    async def order(self, **changes: Any) -> bytes:
        """An order between two new wallets, and what is different about it."""
        payer, payee = await self.wallet(), await self.wallet()
        return self.here.order(payer, payee.public.id, AMOUNT, **changes)

    async def note(self, payee: bytes, **changes: Any) -> dict[str, str]:
        """Entry and receipt of a payment from the other gateway to a wallet here."""
        payer = await new_wallet(self.other)
        there = self.here.opened.journal.state.journal
        order = self.other.order(payer, payee, AMOUNT, payee_journal=there, **changes)
        paid = await accepted(self.away, order)
        return {"entry": paid["entry"], "receipt": paid["receipt"]}

    # ---- what the client and the log see --------------------------------------------------------
    def books(self) -> tuple[int, dict[bytes, tuple[int, int, int]]]:
        """The journal's size, and of each wallet the balance and the next sequence."""
        state = self.here.opened.journal.state
        return state.size, {
            wallet.wallet: (wallet.settled, wallet.unsettled, wallet.next_sequence)
            for wallet in state.wallets.values()
        }

    async def send(self, call: Call) -> Answer:
        """The call over HTTP."""
        session = self.http.client._session
        assert session is not None
        return await answer_of(session, call)

    async def check(self, case: Case, caplog: pytest.LogCaptureFixture) -> None:
        """Make the call: refused by its code, no entry, one line in the log."""
        call = await case.make(self)
        before = self.books()
        answer, lines = await logged(caplog, self.send(call))
        assert self.books() == before
        check_problem(answer, case, inside=str(self.here.folder.root))
        check_line(lines, action="request.refused", code=case.code)

    async def check_in_batch(self, case: Case, caplog: pytest.LogCaptureFixture) -> None:
        """The order of a payment in a batch: its item says what the payment alone would."""
        call = await case.make(self)
        before = self.books()
        batch = Call(path="/v1/payments:batch", body={"orders": [call.body]})
        answer, lines = await logged(caplog, self.send(batch))
        assert self.books() == before
        (item,) = json.loads(answer.text)["answers"]
        told = (answer.status, item["status"], item["code"])
        assert told == (200, STATUSES[case.code], case.code)
        check_members(item, case, inside=str(self.here.folder.root))
        check_line(lines, action="item.refused", code=case.code)


async def logged(
    caplog: pytest.LogCaptureFixture, work: Awaitable[Answer]
) -> tuple[Answer, list[dict[str, Any]]]:
    """An answer, and what was logged meanwhile; exchanges run beside calls and do not count."""
    with caplog.at_level(logging.INFO, logger="cbdc"):
        caplog.clear()
        answer = await work
        records = [record for record in caplog.records if record.name != "cbdc.sync"]
    return answer, [json.loads(JsonLines().format(record)) for record in records]


async def answer_of(session: aiohttp.ClientSession, call: Call, **settings: Any) -> Answer:
    """One call as bytes."""
    headers = {"Content-Type": "application/json"}
    if call.keyed:
        headers["Idempotency-Key"] = secrets.token_hex(8)
    body = None if call.body is None else json.dumps(call.body)
    async with session.request(
        call.method, call.path, data=body, headers=headers, **settings
    ) as response:
        return Answer(
            status=response.status,
            content_type=response.content_type,
            retry_after=response.headers.get("Retry-After"),
            text=await response.text(),
        )


def check_problem(answer: Answer, case: Expected, *, inside: str) -> None:
    """Problem details by the table, and nothing of the inside."""
    problem = json.loads(answer.text)
    told = (answer.status, problem["status"], problem["code"], answer.content_type)
    status = STATUSES[case.code]
    assert told == (status, status, case.code, CONTENT_TYPE), answer.text
    assert problem["type"] == f"urn:cbdc:problem:{case.code}"
    check_members(problem, case, inside=inside)
    retry_after = problem.get("retry_after")
    assert answer.retry_after == (None if retry_after is None else str(retry_after))


def check_members(problem: dict[str, Any], case: Expected, *, inside: str) -> None:
    """The limit, what is left of it, when to come back; and nothing of the inside."""
    assert (problem.get("limit"), problem.get("left")) == (case.limit, case.left)
    assert ("retry_after" in problem) == case.waits
    assert not case.waits or 1 <= problem["retry_after"] <= 60
    text = json.dumps(problem)
    assert inside not in text and _INSIDE.search(text) is None


def check_line(
    lines: list[dict[str, Any]], *, action: str, code: str, terminal: str | None = "till"
) -> None:
    """One line, and in it no more than who was refused what, and why."""
    (line,) = lines
    told = {"time", "level", "part", "action", "route", "code", "terminal"}
    assert line.keys() - {"item"} == told
    assert (line["action"], line["code"], line["terminal"]) == (action, code, terminal)


# ---- parts ------------------------------------------------------------------------------------
def pay(order: bytes, request: bytes | None = None) -> Call:
    """A payment."""
    body = {"order": to_text(order)}
    return Call(path="/v1/payments", body=body | ({"request": to_text(request)} if request else {}))


async def accepted(http: Http, order: bytes, request: bytes | None = None) -> dict[str, Any]:
    """A payment that passes; its answer."""
    status, paid = await http.pay(order, request)
    assert status == 201, paid
    made: dict[str, Any] = paid
    return made


async def taken(branch: Branch, *objects: bytes) -> None:
    """Objects of the issuer that a gateway takes."""
    intake = await branch.take(*objects)
    assert (intake.taken, intake.refused) == (len(objects), [])


async def new_wallet(
    branch: Branch, *, funds: int = FUNDS, until_ms: int | None = None
) -> DeviceKey:
    """A new wallet of a gateway, with money."""
    key, state = DeviceKey(secrets.token_bytes(32)), branch.opened.journal.state
    await taken(branch, enrolment(branch, key, until_ms=until_ms))
    if funds:
        sequence = state.grants_next
        grant = branch.issuer.grant(state.journal, key.public.id, funds, sequence=sequence)
        await taken(branch, grant)
    assert state.wallets[WalletId(key.public.id)].balance == funds
    return key


def enrolment(branch: Branch, key: DeviceKey, *, until_ms: int | None = None) -> bytes:
    """An enrolment of a wallet, for a year or until a moment."""
    until = SystemClock().now_ms() + 365 * DAY_MS if until_ms is None else until_ms
    journal = branch.opened.journal.state.journal
    fields = {1: 1, -1: 6, -2: key.public.raw}
    claims = {2: key.public.id, 3: journal, 4: fields, 5: TIER, 6: until}
    return branch.issuer.issue(issued.ENROLMENT_TYPE, claims)


def changed(signed: bytes, part: int, value: Any) -> bytes:
    """A COSE_Sign1 with one of its four parts exchanged."""
    parts = decode(signed, bytes_max=len(signed))
    parts[part] = value
    return encode(parts)


def flipped(raw: bytes) -> bytes:
    """The same bytes but for the lowest bit of the last one."""
    return raw[:-1] + bytes([raw[-1] ^ 1])


async def past(moment_ms: int) -> None:
    """Wait until the clock has passed a moment."""
    async with asyncio.timeout(WAIT_S):
        while SystemClock().now_ms() <= moment_ms:
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def scene_of(folder: Path, template: Path, issuer: LiveIssuer) -> AsyncIterator[Scene]:
    """Two running gateways: a copy of the template, and one that is provisioned anew."""
    folder.mkdir(exist_ok=True)
    cloud = EnrolmentCloud(issuer, folder)
    await cloud.start()
    await provision_light(folder / "other", cloud)
    await cloud.stop()
    async with (
        copied(template, folder / "here", issuer) as here,
        running(config_of(folder / "other"), issuer) as other,
        Client(await here.terminal()) as client,
        Client(await other.terminal()) as away,
    ):
        yield Scene(here, other, http=Http(client), away=Http(away))
