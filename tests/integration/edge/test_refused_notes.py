"""Notes and receipts of other journals that do not hold: refused by code, nothing is taken."""

import json
import secrets
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge.http.octets import from_text, to_text
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from tests.support.branch_local import Http, config_of, provision_light, running
from tests.support.live_issuer import EnrolmentCloud
from tests.support.refusals import (
    Call,
    Case,
    Make,
    Scene,
    accepted,
    changed,
    check_line,
    check_members,
    flipped,
    logged,
    named,
    past,
)
from wallet.clock import SystemClock
from wallet.protocol import issued
from wallet.protocol.certificates import parse_certificate
from wallet.protocol.codec import decode, encode
from wallet.protocol.ids import wallet_text
from wallet.protocol.refusals import Code
from wallet.store.objects import oldest_receipts

pytestmark = pytest.mark.asyncio(loop_scope="module")
Note = dict[str, str]


def redeem(note: Note) -> Call:
    """A note to be redeemed."""
    return Call(path="/v1/notes", body=note)


def altered(part: str, alter: Any) -> Make:
    """A note of which one half was altered."""

    async def make(scene: Scene) -> Call:
        note = await a_note(scene)
        return redeem(note | {part: to_text(alter(from_text(note[part])))})

    return make


async def a_note(scene: Scene) -> Note:
    """A note that would be redeemed."""
    return await scene.note((await scene.wallet()).public.id)


async def of_a_payment_here(scene: Scene) -> Call:
    paid = await accepted(scene.http, await scene.order())
    return redeem({"entry": paid["entry"], "receipt": paid["receipt"]})


async def back_where_it_came_from(scene: Scene) -> Call:
    there = scene.other.opened.journal.state.journal
    order = await scene.order(payee=bytes(20), payee_journal=there)
    paid = await accepted(scene.http, order)
    return redeem({"entry": paid["entry"], "receipt": paid["receipt"]})


async def for_a_stranger(scene: Scene) -> Call:
    return redeem(await scene.note(bytes(20)))


async def too_late(scene: Scene) -> Call:
    payee = await scene.wallet()
    expires_ms = SystemClock().now_ms() + 1_000
    note = await scene.note(payee.public.id, expires_ms=expires_ms)
    await past(expires_ms)
    return redeem(note)


async def of_another_payment(scene: Scene) -> Call:
    first, second = await a_note(scene), await a_note(scene)
    return redeem(first | {"receipt": second["receipt"]})


async def of_a_revoked_journal(scene: Scene) -> Call:
    note = await a_note(scene)
    await scene.list(1, [[scene.other.opened.journal.state.journal, 1]])
    return redeem(note)


async def of_a_revoked_certificate(scene: Scene) -> Call:
    note = await a_note(scene)
    leaf = parse_certificate(scene.other.opened.journal.chain[0])
    await scene.list(6, [leaf.serial])
    return redeem(note)


async def to_a_frozen_wallet(scene: Scene) -> Call:
    payee = await scene.wallet()
    note = await scene.note(payee.public.id)
    await scene.list(5, [payee.public.id])
    return redeem(note)


async def to_a_revoked_wallet(scene: Scene) -> Call:
    payee = await scene.wallet()
    note = await scene.note(payee.public.id)
    await scene.list(2, [payee.public.id])
    return redeem(note)


async def to_a_sanctioned_wallet(scene: Scene) -> Call:
    payee = await scene.wallet()
    note = await scene.note(payee.public.id)
    await scene.list(4, [[wallet_text(payee.public.id), ["a name"]]])
    return redeem(note)


def without_chain(receipt: bytes) -> bytes:
    """A receipt that leaves its certificates out."""
    headers = decode(receipt, bytes_max=len(receipt))[1]
    return changed(receipt, 1, {396: headers[396]})


def with_garbage(receipt: bytes) -> bytes:
    """A receipt whose certificates are none."""
    headers = decode(receipt, bytes_max=len(receipt))[1]
    return changed(receipt, 1, headers | {33: [b"\x30\x82\x01", b"\x30\x00"]})


def with_type(receipt: bytes) -> bytes:
    """A receipt that says to be something else."""
    protected = decode(receipt, bytes_max=len(receipt))[0]
    fields = decode(protected, bytes_max=len(protected))
    return changed(receipt, 0, encode(fields | {16: "application/cose"}))


HELD = [
    Case(code=Code.PROOF_INVALID, what="another bit", make=altered("receipt", flipped)),
    Case(code=Code.PROOF_INVALID, what="of another payment", make=of_another_payment),
    Case(code=Code.CERTIFICATE_INVALID, what="no chain", make=altered("receipt", without_chain)),
    Case(
        code=Code.CERTIFICATE_INVALID,
        what="garbage in its chain",
        make=altered("receipt", with_garbage),
    ),
]
REVOKED = [
    Case(code=Code.JOURNAL_REVOKED, what="its epoch", make=of_a_revoked_journal),
    Case(code=Code.JOURNAL_REVOKED, what="its certificate", make=of_a_revoked_certificate),
]
LATE = Case(code=Code.NOTE_EXPIRED, what="it goes back", make=too_late)
CASES = [
    *HELD,
    *REVOKED,
    Case(code=Code.MALFORMED, what="no transfer-out", make=of_a_payment_here),
    Case(code=Code.NOT_CANONICAL, what="its entry", make=altered("entry", lambda raw: raw[:-1])),
    Case(code=Code.NOT_CANONICAL, what="its receipt", make=altered("receipt", lambda raw: raw[:9])),
    Case(code=Code.TOO_LARGE, what="its receipt", make=altered("receipt", lambda _: bytes(20_000))),
    Case(code=Code.UNKNOWN_TYPE, what="a receipt with a typ", make=altered("receipt", with_type)),
    Case(code=Code.NOTE_NOT_FOR_US, what="of this journal", make=back_where_it_came_from),
    Case(code=Code.UNKNOWN_WALLET, what="the payee", make=for_a_stranger),
    LATE,
    Case(code=Code.WALLET_FROZEN, what="the payee of a note", make=to_a_frozen_wallet),
    Case(code=Code.WALLET_REVOKED, what="the payee of a note", make=to_a_revoked_wallet),
    Case(code=Code.SANCTIONED, what="the payee of a note", make=to_a_sanctioned_wallet),
]
# Needs a gateway whose journal follows another one: a test of its own provokes it.
EPOCHS = Code.NOTE_REDEEMED


@named(CASES)
async def test_a_note_that_does_not_hold_brings_nothing_and_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    await scene.check(case, caplog)


@named(HELD)
async def test_a_receipt_that_does_not_hold_is_not_kept_and_is_logged_once(
    scene: Scene, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    call = await case.make(scene)
    brought = Call(path="/v1/receipts", body={"receipts": [call.body]})
    answer, lines = await logged(caplog, scene.send(brought))
    (item,) = json.loads(answer.text)["answers"]
    assert (answer.status, item["kept"], item["code"]) == (200, "refused", case.code)
    check_members(item, case, inside=str(scene.here.folder.root))
    check_line(lines, action="item.refused", code=case.code)


@named(REVOKED)
async def test_a_receipt_of_a_revoked_journal_is_kept_for_the_issuer(
    scene: Scene, case: Case
) -> None:
    call = await case.make(scene)
    brought = Call(path="/v1/receipts", body={"receipts": [call.body]})
    (item,) = json.loads((await scene.send(brought)).text)["answers"]
    assert item["kept"] == "new"


@named([*REVOKED, LATE, *HELD])
async def test_the_receipt_of_a_note_that_comes_too_late_is_kept_for_the_issuer(
    scene: Scene, case: Case
) -> None:
    call = await case.make(scene)
    before = await _collected(scene)
    assert json.loads((await scene.send(call)).text)["code"] == case.code
    # What proves nothing is not kept; what is evidence is kept once.
    assert await _collected(scene) == before + (case not in HELD)
    await scene.send(call)
    assert await _collected(scene) == before + (case not in HELD)


async def _collected(scene: Scene) -> int:
    database = scene.here.opened.database
    return len(await database.read(lambda connection: oldest_receipts(connection, 99)))


async def test_a_note_that_an_earlier_epoch_redeemed_brings_nothing_again(
    scene: Scene, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    issuer, shop = scene.here.issuer, DeviceKey(secrets.token_bytes(32))
    source = scene.other.opened.journal.state
    cloud = EnrolmentCloud(issuer, tmp_path)
    # The note is made later: its payer's enrolment and grant come before it.
    key = [source.journal, source.epoch, source.size + 2]

    def objects(journal: bytes) -> list[bytes]:
        claims = {2: bytes(20), 3: 1, 4: 1, 5: bytes(32), 6: [], 7: [key]}
        statement = issuer.issue(issued.STATEMENT_TYPE, claims)
        cloud.changes = {"statement": to_text(statement)}
        return [issuer.policy(), issuer.enrolment(journal, shop.public)]

    cloud.objects = objects
    await cloud.start()
    await provision_light(tmp_path / "next", cloud)
    await cloud.stop()
    async with (
        running(config_of(tmp_path / "next"), issuer) as following,
        Client(await following.terminal()) as client,
    ):
        renewed = Scene(following, scene.other, http=Http(client), away=scene.away)
        make: Make = partial(_note_for, shop)
        await renewed.check(Case(code=EPOCHS, what="before", make=make), caplog)


async def _note_for(payee: DeviceKey, scene: Scene) -> Call:
    return redeem(await scene.note(payee.public.id))
