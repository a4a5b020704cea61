"""Signatures checked by processes: the same answers as here, also when the processes die."""

from __future__ import annotations

import os
import signal

from cloud.reconciler.verifier import CHUNK, Job, Verifier, check
from tests.support.issuer import ES256, Key

GOOD, OTHER = Key("good"), Key("other", ES256)


def jobs(count: int) -> list[Job]:
    """Every third signature is wrong."""
    made = []
    for number in range(count):
        key = OTHER if number % 2 else GOOD
        message = number.to_bytes(4, "big")
        signed = key.sign(message if number % 3 else b"something else")
        made.append((key.public.algorithm, key.public.raw, signed, message))
    return made


EXPECTED = bytes([number % 3 > 0 for number in range(CHUNK + 40)])


async def test_each_job_is_answered_by_its_own_byte() -> None:
    given = jobs(CHUNK + 40)
    assert check(given) == EXPECTED
    alone, pool = Verifier(workers=0), Verifier(workers=1)
    assert await alone.check(given) == EXPECTED
    assert await pool.check(given[:10]) == EXPECTED[:10]
    assert await pool.check(given) == EXPECTED
    pool.close()
    alone.close()


async def test_a_process_that_dies_takes_no_answer_with_it() -> None:
    given = jobs(CHUNK + 40)
    pool = Verifier(workers=1)
    assert await pool.check(given) == EXPECTED
    for process in pool.processes():
        os.kill(process, signal.SIGKILL)
    assert await pool.check(given) == EXPECTED
    assert await pool.check(given) == EXPECTED
    pool.close()
