"""A token with a counter of its own: what it shows is ours to count by, or the gateway is told."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm import pkcs11
from hsm.api import CounterReplaced, SealBroken, TokenGone, TokenRefused, begin_count
from hsm.counter import SoftwareCounter
from hsm.pkcs11 import Pkcs11Config, Pkcs11Token
from tests.support.counting_hsm import CountingHsm
from tests.support.tokens import closing


@pytest.fixture
def hsm(tmp_path: Path) -> Iterator[CountingHsm]:
    """An own token "gateway" with a counter that shows 1000."""
    counting = CountingHsm(tmp_path / "softhsm")
    counting.init_token()
    with counting.in_this_process():
        yield counting


@pytest.fixture
def config(hsm: CountingHsm, tmp_path: Path) -> Pkcs11Config:
    """Where the gateway keeps what it notes of the counter."""
    return hsm.config(tmp_path / "token")


async def read_anew(config: Pkcs11Config) -> int:
    """The count that a start finds."""
    async with closing(await pkcs11.open_token(config)) as token:
        return await token.counter.read()


async def made(config: Pkcs11Config, *, counted: int = 0) -> None:
    """Make the keys and count."""
    async with closing(await pkcs11.create(config)) as token:
        await begin_count(token.counter)
        await token.counter.read()
        await count(token, counted)


async def count(token: Pkcs11Token, times: int) -> None:
    """Count on."""
    for _ in range(times):
        await token.counter.increment()


async def test_a_token_that_has_a_counter_counts_in_it(config: Pkcs11Config) -> None:
    async with closing(await pkcs11.create(config)) as token:
        assert token.counter.driver == "pkcs11"
        await begin_count(token.counter)
        assert await token.counter.read() == 0
        assert [await token.counter.increment() for _ in range(3)] == [1, 2, 3]
        assert await token.counter.read() == 3
    for _ in range(2):
        async with closing(await pkcs11.open_token(config)) as opened:
            assert opened.counter.driver == "pkcs11"
            assert await opened.counter.read() == 3


@pytest.mark.parametrize("trouble", ["none", "reset", "by two"])
async def test_a_counter_that_is_missing_was_reset_or_jumps_leaves_it_to_software(
    hsm: CountingHsm, config: Pkcs11Config, trouble: str
) -> None:
    if trouble == "none":
        hsm.take_counter()
    else:
        hsm.put(5, step=2 if trouble == "by two" else 1, reset=trouble == "reset")
    async with closing(await pkcs11.create(config)) as token:
        assert token.counter.driver == "software"
        assert await token.counter.increment() == 1
    hsm.put(5)
    async with closing(await pkcs11.open_token(config)) as opened:
        assert (opened.counter.driver, await opened.counter.read()) == ("software", 1)


async def test_a_file_that_has_counted_goes_on_counting(
    hsm: CountingHsm, config: Pkcs11Config
) -> None:
    config.folder.mkdir()
    (config.folder / "counter").write_text("4\n")
    async with closing(await pkcs11.create(config)) as token:
        assert (token.counter.driver, await token.counter.read()) == ("software", 4)


async def test_an_older_copy_of_the_folder_shows_that_the_counter_moved(
    config: Pkcs11Config, tmp_path: Path
) -> None:
    await made(config, counted=1)
    shutil.copytree(config.folder, tmp_path / "copy")
    async with closing(await pkcs11.open_token(config)) as token:
        await token.counter.read()
        await count(token, 2)
    shutil.rmtree(config.folder)
    (tmp_path / "copy").rename(config.folder)
    assert await read_anew(config) > 3


async def test_what_others_move_while_the_gateway_watches_is_not_counted(
    hsm: CountingHsm, config: Pkcs11Config
) -> None:
    async with closing(await pkcs11.create(config)) as token:
        await begin_count(token.counter)
        await token.counter.read()
        for expected in (1, 2):
            hsm.put(hsm.shown + 7)
            assert await token.counter.increment() == expected
            hsm.put(hsm.shown + 1)
            assert await token.counter.read() == expected
    assert await read_anew(config) == 2


async def test_what_others_move_while_it_is_stopped_is_taken_for_a_rollback(
    hsm: CountingHsm, config: Pkcs11Config
) -> None:
    await made(config, counted=2)
    hsm.put(hsm.shown + 1)
    assert await read_anew(config) == 3


@pytest.mark.parametrize(("moved", "counted"), [(0, 1), (1, 2)])
async def test_a_step_that_was_broken_off_counts_if_it_happened(
    hsm: CountingHsm, config: Pkcs11Config, moved: int, counted: int
) -> None:
    async with closing(await pkcs11.create(config)) as token:
        await begin_count(token.counter)
        await token.counter.read()
        await count(token, 1)
        shown = hsm.shown
        hsm.take_counter()
        with pytest.raises(CounterReplaced):
            await token.counter.increment()
    hsm.put(shown + moved)
    assert await read_anew(config) == counted
    assert await read_anew(config) == counted


async def test_a_reading_that_was_broken_off_counts_nothing(
    hsm: CountingHsm, config: Pkcs11Config
) -> None:
    async with closing(await pkcs11.create(config)) as token:
        await begin_count(token.counter)
        await token.counter.read()
        shown = hsm.shown
        hsm.take_counter()
        with pytest.raises(CounterReplaced, match="any more"):
            await token.counter.read()
    hsm.put(shown + 1)
    assert await read_anew(config) == 0


async def test_a_counter_that_fell_or_was_reset_is_named(
    hsm: CountingHsm, config: Pkcs11Config
) -> None:
    await made(config, counted=3)
    shown = hsm.shown
    hsm.put(shown - 1)
    with pytest.raises(CounterReplaced, match="fell"):
        await read_anew(config)
    hsm.put(shown, reset=True)
    with pytest.raises(CounterReplaced, match="reset"):
        await read_anew(config)


async def test_what_was_noted_of_the_counter_cannot_be_made_by_others(
    config: Pkcs11Config,
) -> None:
    await made(config, counted=1)
    note = config.folder / "counter.pkcs11"
    sealed = bytearray(note.read_bytes())
    sealed[-1] ^= 1
    note.write_bytes(sealed)
    with pytest.raises(SealBroken):
        await read_anew(config)
    # Emptied, it would begin the count anew.
    note.write_bytes(b"")
    with pytest.raises(CounterReplaced, match="emptied"):
        await read_anew(config)
    note.unlink()
    note.mkdir()
    with pytest.raises(TokenRefused, match="not readable"):
        await read_anew(config)


async def test_a_count_begins_once_and_not_before_it_is_begun(config: Pkcs11Config) -> None:
    async with closing(await pkcs11.create(config)) as token:
        for step in (token.counter.read, token.counter.increment):
            with pytest.raises(CounterReplaced, match="emptied"):
                await step()
        await begin_count(token.counter)
        assert await token.counter.increment() == 1
        await begin_count(token.counter)
        assert await token.counter.read() == 1
        # Counters of other kinds count from the making of their keys on.
        await begin_count(SoftwareCounter(config.folder))
    assert await read_anew(config) == 1


async def test_the_counter_is_found_again_when_the_token_comes_back(
    hsm: CountingHsm, config: Pkcs11Config
) -> None:
    async with closing(await pkcs11.create(config)) as token:
        await begin_count(token.counter)
        await token.counter.read()
        hsm.vanish()
        hsm.come_back()
        assert await token.counter.increment() == 1
        assert await token.counter.read() == 1


async def test_every_call_comes_from_one_thread_that_does_nothing_else(
    hsm: CountingHsm, config: Pkcs11Config
) -> None:
    async with closing(await pkcs11.create(config)) as token:
        sealed = await token.sealer.seal(b"secret", label="store")
        await begin_count(token.counter)
        for _ in range(2):
            signing = [token.signer.sign(b"message %d" % number) for number in range(20)]
            await asyncio.gather(*signing, token.probe(), token.counter.increment())
            hsm.vanish()
            with pytest.raises(TokenGone):
                await token.sealer.unseal(sealed, label="store")
            hsm.come_back()
        async with closing(await pkcs11.open_token(config)) as beside:
            await asyncio.gather(beside.probe(), token.probe())
    assert len(hsm.threads) == 1
    assert threading.main_thread().native_id not in hsm.threads
