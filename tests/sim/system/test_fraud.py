"""The scenario of the public simulator: what is accepted is bounded, and all of it is found."""

from __future__ import annotations

from pathlib import Path

from cloud.database import Database
from tests.sim.system import fraud


async def test_no_attempt_succeeds_beyond_the_bound_and_all_are_detected(
    database: Database, folder: Path
) -> None:
    case = await fraud.run(1, database, folder)
    print(case)
    assert (case.attempts, case.beyond, case.created_minor) == (fraud.ATTEMPTS, 0, 0)
    assert 0 < case.accepted < case.attempts
    assert case.detected == case.accepted
    assert case.borne_minor <= (case.accepted + fraud.CHEATERS) * fraud.AMOUNT
