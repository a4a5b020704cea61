"""The thread behind the store, by itself."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from wallet.store.errors import StoreBusy, StoreClosed
from wallet.store.worker import Worker


async def test_jobs_run_on_one_other_thread() -> None:
    worker = Worker("tested", jobs_max=2)
    threads = {await worker.run(threading.current_thread) for _ in range(3)}
    assert [thread.name for thread in threads] == ["tested"]
    await worker.finish(lambda: None)


async def test_an_exception_of_any_kind_reaches_the_caller() -> None:
    worker = Worker("tested", jobs_max=2)
    for kind in (KeyError, SystemExit, GeneratorExit):
        with pytest.raises(kind):
            await worker.run(_raiser(kind))
    assert await worker.run(lambda: 1) == 1
    await worker.finish(lambda: None)


async def test_the_bound_counts_the_job_that_runs_and_the_last_job_passes_it() -> None:
    worker = Worker("tested", jobs_max=1)
    go_on = threading.Event()
    running = asyncio.create_task(worker.run(lambda: go_on.wait(30)))
    await asyncio.sleep(0)
    with pytest.raises(StoreBusy):
        await worker.run(lambda: None)
    last = asyncio.create_task(worker.finish(lambda: "last"))
    go_on.set()
    assert await running is True
    assert await last == "last"


async def test_a_finished_worker_takes_nothing() -> None:
    worker = Worker("tested", jobs_max=1)
    await worker.finish(lambda: None)
    with pytest.raises(StoreClosed):
        await worker.run(lambda: None)
    with pytest.raises(StoreClosed):
        await worker.finish(lambda: None)


def test_the_thread_ends_when_its_loop_is_gone() -> None:
    go_on = threading.Event()
    threads: list[threading.Thread] = []

    async def abandon_a_job() -> None:
        worker = Worker("tested", jobs_max=2)
        threads.append(await worker.run(threading.current_thread))
        job = asyncio.create_task(worker.run(lambda: go_on.wait(30)))
        await asyncio.sleep(0)
        job.cancel()

    asyncio.run(abandon_a_job())
    go_on.set()
    threads[0].join(30)
    assert not threads[0].is_alive()


def _raiser(kind: type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise kind

    return fail
