"""The stream inside one process, and the default: bounded, gone when the process is."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field

from cloud.log import Log
from cloud.stream.api import Figures, Message, StreamError

MESSAGES_MAX = 2_000
BYTES_MAX = 256 << 20
ATTEMPTS_MAX = 10
HELD_S = 30.0
REMEMBERED_MAX = 10_000
NOTICES_MAX = 10_000
PARKED_SHOWN = 100
_log = Log("stream")


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A message that is not done. `number` is its place in the order, `due` when it may go."""

    number: int
    message: Message
    attempt: int = 0
    due: float = 0.0


def _number(kept: _Kept) -> int:
    return kept.number


@dataclass(slots=True)
class _Lane:
    """One subject: what waits, in order, and what is in somebody's hands."""

    waiting: list[_Kept] = field(default_factory=list)
    held: dict[int, _Kept] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wait_s(self, now: float, ahead: int) -> float | None:
        """How long until the first may go: 0 for now, None until something changes."""
        if not self.waiting or len(self.held) >= ahead:
            return None
        return max(0.0, self.waiting[0].due - now)

    def take(self) -> _Kept:
        """The first one, into somebody's hands."""
        kept = self.waiting.pop(0)
        kept.attempt += 1
        self.held[kept.number] = kept
        return kept

    def put_back(self, kept: _Kept, *, due: float) -> None:
        """To its old place; nothing where it is done."""
        if self.held.pop(kept.number, None) is not None:
            kept.due = due
            bisect.insort(self.waiting, kept, key=_number)
            self.changed.set()

    def remove(self, kept: _Kept) -> bool:
        """Whether it was still there."""
        found = self.held.pop(kept.number, None) is not None
        if not found and kept in self.waiting:
            # Its time was over, and it is not in other hands yet.
            self.waiting.remove(kept)
            found = True
        self.changed.set()
        return found


class LocalDelivery:
    """See `Delivery`."""

    def __init__(
        self, lane: _Lane, kept: _Kept, now: Callable[[], float], removed: Callable[[_Kept], None]
    ) -> None:
        self._lane = lane
        self._kept = kept
        self._now = now
        self._removed = removed
        self.attempt = kept.attempt

    @property
    def message(self) -> Message:
        """What was published."""
        return self._kept.message

    async def done(self) -> None:
        """It is never delivered again."""
        if self._lane.remove(self._kept):
            self._removed(self._kept)

    async def again(self, *, after_s: float) -> None:
        """Deliver it later; those behind it wait as well."""
        if self._kept.attempt != self.attempt:
            # It is in other hands since: its time was over.
            return
        self._lane.put_back(self._kept, due=self._now() + after_s)


class LocalStream:
    """See `Stream` and `Notices`. What somebody leaves undone comes again after `held_s`."""

    def __init__(
        self,
        *,
        messages_max: int = MESSAGES_MAX,
        bytes_max: int = BYTES_MAX,
        attempts_max: int = ATTEMPTS_MAX,
        held_s: float = HELD_S,
    ) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._attempts_max = attempts_max
        self._held_s = held_s
        self._lanes: defaultdict[str, _Lane] = defaultdict(_Lane)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._listeners: defaultdict[str, list[asyncio.Queue[bytes]]] = defaultdict(list)
        self._published = 0
        self._messages = 0
        self._bytes = 0
        self._parked_count = 0
        # The last ones that were set aside, for whoever looks.
        self.parked: deque[Message] = deque(maxlen=PARKED_SHOWN)
        self._closed = False

    # ---- messages -------------------------------------------------------------------------
    async def publish(self, message: Message) -> None:
        """See `Stream`."""
        if self._closed:
            raise StreamError("stream-unavailable", "it is closed")
        if message.identity in self._known:
            return
        size = len(message.body)
        if self._messages >= self._messages_max or self._bytes + size > self._bytes_max:
            raise StreamError("stream-full", f"{self._messages} messages, {self._bytes} bytes")
        self._known[message.identity] = None
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        self._published += 1
        self._messages += 1
        self._bytes += size
        lane = self._lanes[message.subject]
        lane.waiting.append(_Kept(number=self._published, message=message))
        lane.changed.set()

    async def deliveries(
        self, subject: str, *, ahead: int = 1
    ) -> AsyncGenerator[LocalDelivery, None]:
        """See `Stream`."""
        lane, mine = self._lanes[subject], list[_Kept]()
        try:
            while await self._ready(lane, ahead):
                kept = lane.take()
                if kept.attempt > self._attempts_max:
                    self._park(lane, kept)
                    continue
                mine = [one for one in mine if one.number in lane.held]
                mine.append(kept)
                yield LocalDelivery(lane, kept, _now, self._removed)
        finally:
            for kept in mine:
                lane.put_back(kept, due=_now() + self._held_s)

    async def _ready(self, lane: _Lane, ahead: int) -> bool:
        """Wait until there is something to deliver; False once the stream is closed."""
        while not self._closed:
            wait_s = lane.wait_s(_now(), ahead)
            if wait_s == 0:
                return True
            lane.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await lane.changed.wait()
        return False

    def _removed(self, kept: _Kept) -> None:
        self._messages -= 1
        self._bytes -= len(kept.message.body)

    def _park(self, lane: _Lane, kept: _Kept) -> None:
        lane.remove(kept)
        self._removed(kept)
        self._parked_count += 1
        self.parked.append(kept.message)
        message = kept.message
        _log.warning("message.parked", subject=message.subject, identity=message.identity.hex())

    async def figures(self) -> Figures:
        """See `Stream`."""
        again = 0
        for lane in self._lanes.values():
            again += sum(kept.attempt > 0 for kept in lane.waiting)
            again += sum(kept.attempt > 1 for kept in lane.held.values())
        return Figures(waiting=self._messages, redelivered=again, parked=self._parked_count)

    async def close(self) -> None:
        """Deliver no more: whoever waits for a message is told that there is an end."""
        self._closed = True
        for lane in self._lanes.values():
            lane.changed.set()

    # ---- notices --------------------------------------------------------------------------
    async def say(self, topic: str, body: bytes) -> None:
        """See `Notices`. A listener that does not keep up misses the newest."""
        for queue in self._listeners[topic]:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait(body)

    @contextlib.asynccontextmanager
    async def listening(self, topic: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """See `Notices`."""
        queue: asyncio.Queue[bytes] = asyncio.Queue(NOTICES_MAX)
        self._listeners[topic].append(queue)
        try:
            yield _heard(queue)
        finally:
            self._listeners[topic].remove(queue)


async def _heard(queue: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while True:
        yield await queue.get()


def _now() -> float:
    return asyncio.get_running_loop().time()
