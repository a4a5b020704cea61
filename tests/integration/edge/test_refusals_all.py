"""Every code of limits.md: provoked over HTTP by one of the tables, or with a reason why not."""

import pytest

from tests.integration.edge import (
    test_refused_limits,
    test_refused_notes,
    test_refused_orders,
    test_refused_requests,
    test_refused_states,
)
from wallet.protocol.refusals import Code

PROVOKED = {
    *[case.code for case in test_refused_orders.CASES],
    *[case.code for case in test_refused_limits.CASES],
    *[case.code for case in test_refused_notes.CASES],
    *[case.code for case in test_refused_requests.CASES],
    *test_refused_states.CODES,
    test_refused_notes.EPOCHS,
}
# What no route of the branch takes: it comes from the issuer alone, or goes to it.
NOT_FROM_A_TERMINAL = {
    Code.PARENT_MISSING: "a delta of a list without its base: lists come by exchanges alone",
    Code.NOT_PROVEN: "evidence of a fork: the issuer alone takes it",
    Code.UNKNOWN_KEY: "a sealed envelope: exchanges alone carry them",
    Code.NOT_OPENED: "a sealed envelope: exchanges alone carry them",
    Code.GRANT_REPLAYED: "a grant: brought as an enrolment it is `unknown-type`",
    Code.GRANT_GAP: "a grant: brought as an enrolment it is `unknown-type`",
    Code.GRANT_EXPIRED: "a grant: brought as an enrolment it is `unknown-type`",
}


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_provoked_or_there_is_a_reason_why_no_terminal_can(code: Code) -> None:
    assert (code in PROVOKED) != (code in NOT_FROM_A_TERMINAL)
