"""Signatures checked by processes: the same answers as here, also when the processes die."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.issuer import ES256, Key
from wallet.verifier import Job, Verifier, check, spare_processors
from wallet.verifier.helper import JOBS_MAX
from wallet.verifier.jobs import chunk_length, pack, unpack
from wallet.verifier.verifier import CHUNK, MANY

GOOD, OTHER = Key("good"), Key("other", ES256)
WAIT_S = 30


def jobs(count: int) -> list[Job]:
    """Every third signature is wrong."""
    made = []
    for number in range(count):
        key = OTHER if number % 2 else GOOD
        message = number.to_bytes(4, "big")
        signed = key.sign(message if number % 3 else b"something else")
        made.append((key.public.algorithm, key.public.raw, signed, message))
    return made


COUNT = MANY + 40
EXPECTED = bytes([number % 3 > 0 for number in range(COUNT)])


async def started(verifier: Verifier, *, before: tuple[int, ...] = ()) -> int:
    """The number of a helper that runs, and is none of those before."""
    async with asyncio.timeout(WAIT_S):
        while not (pids := [pid for pid in verifier.pids() if pid not in before]):
            await verifier.check(jobs(CHUNK + 1))
            # Nothing tells that a process is up: it is asked for, within the time above.
            await asyncio.sleep(0.05)
    return pids[0]


async def sent(verifier: Verifier, count: int) -> None:
    """Wait until so many jobs are on their way to the helper."""
    async with asyncio.timeout(WAIT_S):
        while verifier._helpers[0].jobs < count:
            await asyncio.sleep(0.01)


def asked(verifier: Verifier, job: Job) -> asyncio.Future[bool]:
    """What one job is told."""
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    verifier.ask(job, future.set_result)
    return future


async def one_by_one(verifier: Verifier, given: list[Job]) -> tuple[bytes, list[int]]:
    """The outcomes of jobs asked for singly, and the order in which they were told."""
    order: list[int] = []

    futures = [asked(verifier, job) for job in given]
    for future in futures:
        future.add_done_callback(lambda done: order.append(futures.index(done)))
    async with asyncio.timeout(WAIT_S):
        held = await asyncio.gather(*futures)
    return bytes(held), order


def test_jobs_travel_as_they_are() -> None:
    given = [*jobs(5), (7, b"k" * 255, b"", b""), (-128, b"", b"s" * 255, b"m" * 70_000)]
    packed = pack(given)
    assert chunk_length(packed[:4]) == len(packed) - 4
    assert unpack(packed[4:]) == given
    assert unpack(pack([])[4:]) == []


async def test_each_job_is_answered_by_its_own_byte() -> None:
    given = jobs(COUNT)
    assert check(given) == EXPECTED
    for processes in (0, 1, 2):
        verifier = Verifier(processes=processes)
        assert await verifier.check(given) == EXPECTED
        assert await verifier.check(given[:10]) == EXPECTED[:10]
        assert await verifier.check([]) == b""
        assert len(verifier.pids()) == processes
        await verifier.close()
        assert verifier.pids() == []


@pytest.mark.parametrize("count", [1, 2, CHUNK + 1, 3 * CHUNK])
async def test_single_jobs_are_told_in_the_order_of_their_asking(count: int) -> None:
    given = jobs(count)
    for processes in (0, 1):
        verifier = Verifier(processes=processes)
        assert await one_by_one(verifier, given) == (EXPECTED[:count], list(range(count)))
        if processes:
            await started(verifier)
        assert await one_by_one(verifier, given) == (EXPECTED[:count], list(range(count)))
        await verifier.close()


async def test_one_that_comes_alone_does_not_overtake() -> None:
    verifier = Verifier(processes=1)
    os.kill(pid := await started(verifier), signal.SIGSTOP)
    given = jobs(3)
    first = asyncio.ensure_future(one_by_one(verifier, given[:2]))
    await sent(verifier, 2)
    alone = asyncio.ensure_future(one_by_one(verifier, given[2:]))
    await sent(verifier, 3)
    assert not first.done() and not alone.done()
    os.kill(pid, signal.SIGCONT)
    assert (await first)[0] + (await alone)[0] == EXPECTED[:3]
    await verifier.close()


async def test_what_is_too_much_for_the_helper_is_checked_here_in_its_turn() -> None:
    verifier = Verifier(processes=1)
    os.kill(pid := await started(verifier), signal.SIGSTOP)
    base = jobs(6)
    given = [base[number % 6] for number in range(JOBS_MAX + 3 * CHUNK)]
    asked = asyncio.ensure_future(one_by_one(verifier, given))
    await sent(verifier, JOBS_MAX)
    assert not asked.done()
    os.kill(pid, signal.SIGCONT)
    held, order = await asked
    assert held == (EXPECTED[:6] * len(given))[: len(given)]
    assert order == list(range(len(given)))
    await verifier.close()


async def test_a_process_that_dies_takes_no_answer_with_it() -> None:
    given = jobs(COUNT)
    verifier = Verifier(processes=1)
    pid = await started(verifier)
    os.kill(pid, signal.SIGSTOP)
    many = asyncio.ensure_future(verifier.check(given))
    singly = asyncio.ensure_future(one_by_one(verifier, given))
    await sent(verifier, 2 * COUNT)
    os.kill(pid, signal.SIGKILL)
    assert await many == EXPECTED
    assert await singly == (EXPECTED, list(range(COUNT)))
    assert await one_by_one(verifier, given) == (EXPECTED, list(range(COUNT)))
    assert await started(verifier, before=(pid,)) != pid
    assert await verifier.check(given) == EXPECTED
    await verifier.close()


async def test_a_process_that_says_nothing_is_not_waited_for() -> None:
    given = jobs(COUNT)
    verifier = Verifier(processes=1, stall_s=2)
    pid = await started(verifier)
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(WAIT_S):
        assert await verifier.check(given) == EXPECTED
    os.kill(pid, signal.SIGCONT)
    await verifier.close()


async def test_the_helper_is_told_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CBDC_EDGE_PASSPHRASE", "correct horse")
    verifier = Verifier(processes=1)
    environment = Path(f"/proc/{await started(verifier)}/environ").read_bytes()
    assert b"PYTHONPATH" in environment and b"CBDC" not in environment
    await verifier.close()


async def test_who_gave_up_is_not_told() -> None:
    verifier = Verifier(processes=1)
    os.kill(pid := await started(verifier), signal.SIGSTOP)
    many = asyncio.ensure_future(verifier.check(jobs(COUNT)))
    await sent(verifier, COUNT)
    futures = [asked(verifier, job) for job in jobs(4)]
    await sent(verifier, 4 + COUNT)
    many.cancel()
    os.kill(pid, signal.SIGCONT)
    assert await asyncio.gather(*futures) == [False, True, True, False]
    await verifier.close()


def test_one_processor_spares_none() -> None:
    assert spare_processors() == len(os.sched_getaffinity(0)) - 1
