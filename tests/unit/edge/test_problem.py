"""Problem details: every code has a status, a shape, and a time to wait where waiting helps."""

import pytest

from edge.http.context import EXPECTED, refusal_of
from edge.http.problem import (
    CONTENT_TYPE,
    STATUSES,
    HttpCode,
    HttpRefusal,
    ProblemRaised,
    problem_of,
    problem_response,
    retry_after_s,
)
from hsm.api import TokenGone
from wallet.hosted import PinUnfit
from wallet.journal import EntryMissing, Mode
from wallet.protocol.refusals import Code, ProtocolError, Refusal
from wallet.store.errors import DiskFull, StoreBusy, StoreClosed, StoreFailed, Tampered


@pytest.mark.parametrize("code", [*Code, *HttpCode])
def test_every_code_has_a_status_of_its_own_kind(code: Code | HttpCode) -> None:
    assert 400 <= STATUSES[code] < 600
    assert code in STATUSES


def test_the_table_holds_no_other_codes() -> None:
    assert set(STATUSES) == {*Code, *HttpCode}


def test_the_codes_of_the_page_have_the_statuses_of_the_page() -> None:
    assert STATUSES[Code.INSUFFICIENT_FUNDS] == 402
    assert STATUSES[Code.SEQUENCE_USED] == 409
    assert STATUSES[Code.BAD_SIGNATURE] == 403
    assert STATUSES[Code.MALFORMED] == 422
    assert STATUSES[Code.BUSY] == 503


def test_a_limit_its_rest_and_the_wait_are_told() -> None:
    refusal = Refusal(code=Code.WALLET_LOCKED, limit=3, left=0, retry_after_ms=1_500)
    problem = problem_of(refusal)
    assert (problem.limit, problem.left, problem.retry_after) == (3, 0, 2)
    assert problem.type == "urn:cbdc:problem:wallet-locked"
    response = problem_response(refusal)
    assert (response.status, response.content_type) == (403, CONTENT_TYPE)
    assert response.headers["Retry-After"] == "2"


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.OPEN])
def test_a_gateway_that_takes_nothing_says_when_to_ask_again(mode: Mode) -> None:
    assert (retry_after_s(mode) or 0) >= 1


@pytest.mark.parametrize("code", [code for code, status in STATUSES.items() if status == 503])
def test_a_service_that_is_unavailable_says_when_to_come_back(code: Code) -> None:
    assert int(problem_response(Refusal(code=code)).headers["Retry-After"]) >= 1


def test_busy_says_when_to_come_back_and_a_wrong_signature_does_not() -> None:
    assert problem_response(Refusal(code=Code.BUSY)).headers["Retry-After"] == "1"
    assert "Retry-After" not in problem_response(Refusal(code=Code.BAD_SIGNATURE)).headers


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ProblemRaised(HttpRefusal(code=HttpCode.CURSOR_INVALID)), "cursor-invalid"),
        (ProtocolError(Code.WEAK_KEY), "weak-key"),
        (StoreBusy(""), "busy"),
        (DiskFull(""), "busy"),
        (StoreClosed(""), "busy"),
        (Tampered(""), "frozen-tamper"),
        (EntryMissing(), "payment-unknown"),
        (TokenGone(""), "sealed"),
        (PinUnfit("4 to 12 digits"), "body-invalid"),
        (TimeoutError(), "body-too-slow"),
        (StoreFailed(""), "internal-fault"),
    ],
)
def test_failures_of_the_rooms_below_become_codes(error: Exception, code: str) -> None:
    assert isinstance(error, EXPECTED)
    assert str(refusal_of(error).code) == code
