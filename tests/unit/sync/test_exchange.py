"""What of an answer is believed: whose it is, to what it answers, and what it acknowledges."""

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sync.errors import Code, ProblemAnswered, SyncError
from sync.exchange import (
    TAKES,
    build_down,
    check_acknowledged,
    check_answers,
    check_taken,
    first_objects,
    goes_back,
    open_down,
    open_up,
    takes,
)
from tests.support.issuer import Issuer, Journal
from tests.support.sync_pair import ISSUER, raw
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.codec import decode
from wallet.protocol.envelope import DOWN_TYPE, UP_TYPE, Down, Up, up_payload
from wallet.protocol.ids import JournalId
from wallet.protocol.refusals import Code as Refused
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.sealed import seal, short_id

JOURNAL = Journal(ISSUER, "one")
ANCHOR = TrustAnchor(ISSUER.root)
UP = Up(
    journal=JOURNAL.journal,
    epoch=1,
    exchange=b"x" * 16,
    acknowledged_size=4,
    entries=(b"a", b"b"),
    checkpoint=b"c",
    newest={0: 7},
)
SIZE = 9


def answer(**changes: Any) -> Down:
    """An answer to UP as it should be, or changed."""
    fields: dict[str, Any] = {
        "journal": UP.journal,
        "epoch": UP.epoch,
        "exchange": UP.exchange,
        "acknowledged_size": 6,
        "objects": (b"object",),
    }
    return Down(**{**fields, **changes})


def check(down: Down, up: Up = UP) -> None:
    """All the checks, in the engine's order."""
    check_answers(down, up)
    check_acknowledged(down, size=SIZE)
    if not goes_back(down, up):
        check_taken(down, up)


@pytest.mark.parametrize("acknowledged", [5, 6, SIZE])
def test_an_answer_may_acknowledge_part_of_the_report_and_entries_of_an_answer_that_was_lost(
    acknowledged: int,
) -> None:
    check(answer(acknowledged_size=acknowledged))


@pytest.mark.parametrize(
    "changes",
    [{"journal": JournalId(bytes(20))}, {"epoch": 2}, {"exchange": bytes(16)}],
    ids=["journal", "epoch", "exchange"],
)
def test_an_answer_to_another_report_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SyncError) as caught:
        check(answer(**changes))
    assert caught.value.code is Code.FOREIGN_ANSWER


@pytest.mark.parametrize(
    ("acknowledged", "code"),
    [
        (SIZE + 1, Code.ACKNOWLEDGED_BEYOND),
        (4, Code.NOTHING_TAKEN),
    ],
)
def test_an_acknowledged_size_that_cannot_be_is_refused(acknowledged: int, code: Code) -> None:
    with pytest.raises(SyncError) as caught:
        check(answer(acknowledged_size=acknowledged))
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("acknowledged", "problem", "back"),
    [(3, None, True), (0, None, True), (4, None, False), (5, None, False), (3, "fork", False)],
)
def test_an_issuer_that_holds_less_than_it_said_is_gone_back_to(
    acknowledged: int, problem: str | None, back: bool
) -> None:
    assert goes_back(answer(acknowledged_size=acknowledged, problem=problem), UP) is back


def test_a_report_without_entries_needs_none_to_be_taken() -> None:
    check(answer(acknowledged_size=4), msgspec.structs.replace(UP, entries=()))


@pytest.mark.parametrize("acknowledged", [0, 6, 50])
def test_a_problem_is_said_whatever_size_comes_with_it(acknowledged: int) -> None:
    with pytest.raises(ProblemAnswered) as caught:
        check(answer(acknowledged_size=acknowledged, problem="fork"))
    assert (caught.value.problem, caught.value.code) == ("fork", Code.PROBLEM)
    assert str(caught.value) == "exchange-problem: fork"


def test_reports_and_answers_go_through_their_envelopes_and_back() -> None:
    cloud, gateway = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    signed = JOURNAL.key.sign_object(UP_TYPE, up_payload(UP), JOURNAL.chain)
    sealed = seal(signed, recipient=raw(cloud))
    verified = open_up(sealed, keys={short_id(raw(cloud)): cloud}, root=ANCHOR)
    assert verified.claims == UP
    payload = build_down(verified.claims, acknowledged=6, objects=[b"object"])
    key, chain = ISSUER.role("sync")
    back = seal(key.sign_object(DOWN_TYPE, payload, chain), recipient=raw(gateway))
    keys = {short_id(raw(gateway)): gateway}
    assert open_down(back, keys=keys, root=ANCHOR) == answer()


@pytest.mark.parametrize(
    ("issuer", "role", "code"),
    [
        (ISSUER, "grants", Refused.WRONG_ROLE),
        (Issuer("another"), "sync", Refused.CERTIFICATE_INVALID),
    ],
    ids=["role", "root"],
)
def test_an_answer_by_anybody_but_the_issuers_sync_role_is_refused(
    issuer: Issuer, role: str, code: Refused
) -> None:
    gateway = X25519PrivateKey.generate()
    key, chain = issuer.role(role)
    envelope = key.sign_object(DOWN_TYPE, build_down(UP, acknowledged=6), chain)
    sealed = seal(envelope, recipient=raw(gateway))
    with pytest.raises(ProtocolError) as caught:
        open_down(sealed, keys={short_id(raw(gateway)): gateway}, root=ANCHOR)
    assert caught.value.code is code


# ---- as much as the line takes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("health", "told"),
    [
        (None, None),
        ({}, None),
        ({TAKES: 5}, 5),
        ({TAKES: 0}, None),
        ({TAKES: -1}, None),
        ({TAKES: True}, None),
        ({TAKES: "5"}, None),
    ],
)
def test_what_a_journal_takes_is_a_number_above_nothing(
    health: dict[str, Any] | None, told: int | None
) -> None:
    assert takes(msgspec.structs.replace(UP, health=health)) == told


@given(sizes=st.lists(st.integers(0, 9), max_size=9), bytes_max=st.integers(0, 40))
def test_an_answer_has_the_first_objects_that_fit_and_one_at_least(
    sizes: list[int], bytes_max: int
) -> None:
    objects = [bytes([number]) * size for number, size in enumerate(sizes)]
    sent, waiting = first_objects(objects, bytes_max=bytes_max)
    assert list(sent) == objects[: len(sent)] and (sent or not objects)
    assert sum(sizes) == sum(map(len, sent)) + waiting
    assert sum(map(len, sent)) <= bytes_max or len(sent) == 1
    if len(sent) < len(objects):
        assert sum(map(len, sent)) + sizes[len(sent)] > bytes_max


def test_who_does_not_say_what_it_takes_is_not_told_what_waits() -> None:
    for health, waiting in ((None, 0), ({TAKES: 1}, 7)):
        up = msgspec.structs.replace(UP, health=health)
        fields = decode(build_down(up, acknowledged=0, waiting=7), bytes_max=1_000)
        assert fields.get(8, 0) == waiting
