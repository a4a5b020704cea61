"""What the issuer sends: taken once, in its order, early grants kept, the rest refused by code."""

import functools
from typing import Any

from edge.attesting import QUESTION
from edge.intake import held_keys
from edge.pos.client import Client
from edge.pos.purse import DeviceKey
from edge.verdicts import KIND, read_verdicts, repair_verdicts
from edge.wishes import WISHES_MAX, Wish, add_wish, find_wish, read_wishes
from sync.attestation import HEALTH
from tests.integration.edge.conftest import Template
from tests.integration.edge.test_journal_port import port_of
from tests.support.branch_local import Branch, Http, running
from tests.support.live_issuer import public_key
from wallet.protocol import issued
from wallet.protocol.codec import encode
from wallet.protocol.ids import WalletId
from wallet.store.meta import get_meta, put_meta

Keys = dict[str, DeviceKey]


async def settlement(
    branch: Branch, verdicts: list[list[Any]] | None = None, *, size: int | None = None
) -> bytes:
    """The issuer's word on what the journal holds now."""
    journal = branch.opened.journal
    size = journal.state.size if size is None else size
    claims = {2: journal.state.journal, 3: 1, 4: size, 5: await journal.root_at(size)}
    now_ms, _ = journal.now()
    return branch.issuer.issue(issued.SETTLEMENT_TYPE, {**claims, 6: verdicts or [], 7: now_ms})


async def test_objects_that_are_no_news_change_nothing(branch: Branch, keys: Keys) -> None:
    journal = branch.opened.journal
    size = journal.state.size
    alice = keys["alice"].public
    intake = await branch.take(
        branch.issuer.policy(),
        branch.issuer.list(1, []),
        branch.issuer.enrolment(journal.state.journal, alice),
        branch.issuer.grant(journal.state.journal, alice.id, 5, sequence=0),
    )
    assert (intake.taken, intake.refused, journal.state.size) == (0, [], size)


async def test_newer_policies_and_lists_are_held(branch: Branch, keys: Keys) -> None:
    frozen = branch.issuer.list(5, [keys["bob"].public.id], sequence=1)
    intake = await branch.take(branch.issuer.policy(sequence=1), frozen)
    assert (intake.taken, intake.refused) == (2, [])
    state = branch.opened.journal.state
    assert state.policy is not None and state.policy.sequence == 1
    assert keys["bob"].public.id in state.lists[5].items


async def test_grants_wait_for_the_one_before_and_for_their_wallet(
    branch: Branch, keys: Keys
) -> None:
    journal, newcomer = branch.opened.journal, DeviceKey(b"\x55" * 32).public
    here, first = journal.state.journal, journal.state.grants_next

    def grant(wallet: bytes, sequence: int) -> bytes:
        return branch.issuer.grant(here, wallet, 7, sequence=sequence)

    intake = await branch.take(
        grant(newcomer.id, first + 1), grant(keys["bob"].public.id, first + 2)
    )
    assert (intake.taken, intake.refused) == (0, [])
    assert (await branch.take(grant(newcomer.id, first))).refused == []
    assert journal.state.grants_next == first
    assert (await branch.take(branch.issuer.enrolment(here, newcomer))).taken == 1
    assert journal.state.grants_next == first + 3
    assert journal.state.wallets[WalletId(newcomer.id)].balance == 14
    far = grant(newcomer.id, first + 50_000)
    assert (await branch.take(far)).refused == ["grant-gap"]


async def test_what_does_not_hold_is_refused_by_code_and_the_rest_goes_on(
    branch: Branch, keys: Keys
) -> None:
    forged = bytearray(branch.issuer.policy(sequence=5))
    forged[-1] ^= 1
    intake = await branch.take(
        b"\x80", bytes(forged), b"\x30\x00", encode([b"\x30\x00"]), branch.issuer.policy(sequence=6)
    )
    assert intake.taken == 1
    # Certificates are taken together, after the objects.
    assert intake.refused == ["certificate-invalid", "unknown-type", "bad-signature"]
    wrong = branch.issuer.enrolment(bytes(20), keys["bob"].public)
    assert (await branch.take(wrong)).refused == ["wrong-journal"]


async def test_settlements_make_payments_final_but_for_those_that_they_name(
    branch: Branch, http: Http, keys: Keys
) -> None:
    paid = []
    for amount in (1, 2, 3, 4):
        order = branch.order(keys["alice"], keys["shop"].public.id, amount)
        paid.append((await http.pay(order))[1])
    named = [
        [paid[0]["index"], 1, "sanctioned"],
        [paid[1]["index"], 2, "parent-missing"],
        [paid[2]["index"], 3, "bad-signature"],
    ]
    raw = await settlement(branch, named)
    assert (await branch.take(raw)).refused == []
    assert (await branch.take(raw)).taken == 0
    states = []
    for payment in paid:
        _, now = await http.get(f"/v1/payments/{payment['id']}")
        states.append((now["state"], now["finality"]))
    assert states == [
        ("held", "provisional"),
        ("pending", "provisional"),
        ("rejected", "final"),
        ("settled", "final"),
    ]
    _, page = await http.get(f"/v1/wallets/{keys['alice'].text}/statement?limit=4")
    assert [entry["state"] for entry in page["entries"]] == [
        "settled",
        "rejected",
        "pending",
        "held",
    ]
    _, report = await http.get("/v1/reports/x")
    (line,) = [line for line in report["lines"] if line["kind"] == "payment"]
    assert (line["final"], line["provisional"], line["rejected"]) == (4, 3, 3)
    assert (await branch.take(await settlement(branch))).taken == 1
    _, now = await http.get(f"/v1/payments/{paid[0]['id']}")
    assert (now["state"], now["finality"]) == ("settled", "final")


async def test_verdicts_that_a_crash_lost_are_found_again(
    branch: Branch, http: Http, keys: Keys
) -> None:
    order = branch.order(keys["alice"], keys["shop"].public.id, 1)
    index = (await http.pay(order))[1]["index"]
    await branch.take(await settlement(branch, [[index, 1, "sanctioned"]]))
    database, journal = branch.opened.database, branch.opened.journal
    await repair_verdicts(journal, database)
    await database.write(lambda c: c.execute("DELETE FROM objects WHERE kind = 'verdict'"))
    await database.write(lambda c: put_meta(c, KIND, b"0"))
    await repair_verdicts(journal, database)
    assert [verdict.index for verdict in await database.read(read_verdicts)] == [index]


async def test_a_renewed_certificate_is_used_from_then_on(branch: Branch) -> None:
    journal = branch.opened.journal
    key = branch.opened.token.signer.public_key
    leaf = branch.issuer.leaf(public_key(-8, key), journal.state.journal, days=20)
    for objects in ([leaf], [encode([leaf, branch.issuer.sub])], [leaf, branch.issuer.sub]):
        assert (await branch.take(*objects)).refused == []
        assert journal.chain == (leaf, branch.issuer.sub)
    assert (await branch.take(branch.issuer.sub)).refused == []
    older = branch.issuer.leaf(public_key(-8, key), journal.state.journal, days=19)
    assert (await branch.take(older)).refused == []
    assert journal.chain == (leaf, branch.issuer.sub)
    foreign = branch.issuer.leaf(public_key(-8, key), bytes(20), days=30)
    assert (await branch.take(foreign)).refused == ["certificate-invalid"]


async def test_the_issuers_keys_are_kept_by_their_sequence(branch: Branch) -> None:
    def keys_of(sequence: int) -> bytes:
        entry = [bytes(8), bytes(32), 2**45]
        return branch.issuer.issue(issued.KEYS_TYPE, {2: sequence, 3: [entry]})

    database = branch.opened.database
    assert await held_keys(database) is None
    assert (await branch.take(keys_of(4), keys_of(3))).refused == []
    held = await held_keys(database)
    assert held is not None and held.sequence == 4
    forged = bytearray(keys_of(9))
    forged[-1] ^= 1
    assert (await branch.take(bytes(forged))).refused == ["bad-signature"]


async def test_a_question_of_the_issuer_is_kept_if_it_is_to_this_gateway(branch: Branch) -> None:
    database, here = branch.opened.database, branch.opened.journal.state.journal

    def question(journal: bytes, nonce: bytes) -> bytes:
        claims = {2: journal, 3: nonce, 4: [0, 7], 5: 0}
        return branch.issuer.issue(issued.QUESTION_TYPE, claims)

    async def asked() -> bytes | None:
        return await database.read(lambda c: get_meta(c, QUESTION))

    assert await asked() is None
    mine = question(here, bytes(32))
    assert (await branch.take(mine)).refused == []
    assert await asked() == mine
    assert (await branch.take(question(bytes(20), bytes(32)))).refused == ["wrong-journal"]
    forged = bytearray(question(here, b"n" * 32))
    forged[-1] ^= 1
    assert (await branch.take(bytes(forged))).refused == ["bad-signature"]
    assert await asked() == mine
    # A software token proves nothing, whatever it is asked.
    prepared = await port_of(branch).up(bytes(16))
    assert prepared is not None and HEALTH not in (prepared[0].health or {})


async def test_wishes_are_kept_once_and_bounded(branch: Branch) -> None:
    database = branch.opened.database
    wishes = [
        Wish(
            key=DeviceKey(number.to_bytes(32, "big")).public.cose_key,
            tier=1,
            label=None,
            hosted=False,
        )
        for number in range(1, 6)
    ]
    for wish in (*wishes, *wishes):
        assert await database.write(functools.partial(add_wish, wish=wish))
    assert await database.read(read_wishes) == wishes
    assert (await database.read(lambda c: find_wish(c, wishes[2].wallet))) == wishes[2]
    assert (await database.read(lambda c: find_wish(c, bytes(20)))) is None
    assert len(wishes) <= WISHES_MAX


async def test_state_and_receipts_survive_a_restart(
    template: Template, branch: Branch, keys: Keys
) -> None:
    async with Client(await branch.terminal()) as client:
        order = branch.order(keys["alice"], keys["shop"].public.id, 9)
        _, paid = await Http(client).pay(order)
    branch.daemon.stop()
    await branch.ended()
    async with (
        running(branch.config, template.issuer) as again,
        Client(await again.terminal("second")) as client,
    ):
        status, same = await Http(client).pay(order)
    assert (status, same["id"]) == (200, paid["id"])
