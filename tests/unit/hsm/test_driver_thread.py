"""The one thread of a library that must be called from one thread."""

import asyncio
import threading

import pytest

from hsm.api import TokenTimeout
from hsm.driver_thread import DriverThread

PATIENCE_S = 20.0
IMPATIENCE_S = 0.05


async def test_every_call_runs_in_the_same_thread() -> None:
    driver = DriverThread("driver")
    calls = (driver.call(threading.get_ident, timeout_s=PATIENCE_S) for _ in range(50))
    threads = set(await asyncio.gather(*calls))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_the_caller_gets_what_was_raised() -> None:
    driver = DriverThread("driver")
    with pytest.raises(ZeroDivisionError):
        await driver.call(lambda: 1 // 0, timeout_s=PATIENCE_S)
    assert await driver.call(lambda: 1, timeout_s=PATIENCE_S) == 1


async def test_a_call_that_hangs_times_out_and_so_do_those_behind_it() -> None:
    driver, release, ran = DriverThread("driver"), threading.Event(), []
    with pytest.raises(TokenTimeout, match="within"):
        await driver.call(release.wait, timeout_s=IMPATIENCE_S)
    with pytest.raises(TokenTimeout):
        await driver.call(lambda: ran.append("left"), timeout_s=IMPATIENCE_S)
    release.set()
    await driver.call(lambda: ran.append("stayed"), timeout_s=PATIENCE_S)
    assert ran == ["stayed"]


async def test_a_call_whose_caller_left_is_not_made() -> None:
    driver, release, ran = DriverThread("driver"), threading.Event(), []
    hanging = asyncio.create_task(driver.call(release.wait, timeout_s=PATIENCE_S))
    leaving = asyncio.create_task(driver.call(lambda: ran.append(1), timeout_s=PATIENCE_S))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    release.set()
    assert await hanging
    assert await driver.call(lambda: list(ran), timeout_s=PATIENCE_S) == []


async def test_a_full_queue_refuses() -> None:
    driver, release = DriverThread("driver", calls_waiting_max=1), threading.Event()
    begun = threading.Event()

    def hang() -> bool:
        begun.set()
        return release.wait()

    running = driver.post(hang)
    assert await asyncio.to_thread(begun.wait, PATIENCE_S)
    waiting = driver.post(lambda: "done")
    with pytest.raises(TokenTimeout, match="too many"):
        await driver.call(lambda: None, timeout_s=PATIENCE_S)
    release.set()
    assert await asyncio.wrap_future(waiting) == "done"
    assert running.result()
