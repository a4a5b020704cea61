"""How much shares one commit and one signature, and who is waited for.

With a fast token batches stay small, so that callers' signatures are checked while the batch before
them is committed. A slow token's signature is what everybody waits for: there all that waits shares
it, and those who were answered just before, if they pay again at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sized

BATCH_MAX = 128
TURNS_MAX = 8
SLOW_SIGNING_MS = 25
# One batch is one segment at the least: these are the bounds of segments in a usual policy.
SLOW_BATCH_MAX = 1_000
BATCH_BYTES_MAX = 1024 * 1024
# The part of a slow signature that is spent on waiting for those who would share the next one:
# over mutual TLS 64 terminals need some 30 ms from their receipts to their next orders.
GATHER_PART = 4


async def let_arrive(queue: Sized) -> None:
    """Let the loop bring what it has at hand, while that is more with each turn.

    What was answered just now leaves, and what came meanwhile is read and checked: the batch is
    larger by a third, and who is alone waits for one turn of an idle loop.
    """
    for _ in range(TURNS_MAX):
        waiting = len(queue)
        if waiting >= BATCH_MAX:
            return
        await asyncio.sleep(0)
        if len(queue) == waiting:
            return


def is_slow(signing_ms: int) -> bool:
    """Whether a signature takes so long that more should share it."""
    return signing_ms >= SLOW_SIGNING_MS


def entries_max(signing_ms: int) -> int:
    """How many proposals share the next signature, by how long the last one took."""
    return SLOW_BATCH_MAX if is_slow(signing_ms) else BATCH_MAX


async def gather(queue: Sized, arrived: asyncio.Event, *, answered: int, signing_ms: int) -> None:
    """Wait a moment until those just answered stand in the queue beside those who waited.

    Without it terminals that pay again at once would split for ever: some are signed for while the
    others wait, and each waits for two signatures. Who is alone waits for nobody. An event without
    an arrival, as at the end of the journal, ends it.
    """
    expected = min(len(queue) + answered, SLOW_BATCH_MAX)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(signing_ms / 1000 / GATHER_PART):
            while (waiting := len(queue)) < expected:
                arrived.clear()
                await arrived.wait()
                if len(queue) == waiting:
                    return
