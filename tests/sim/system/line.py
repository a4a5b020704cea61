"""The line between a box and the issuer: it loses, doubles, delays, reorders, and is cut for days.

What travels are the sealed envelopes themselves. An envelope that was held back arrives later, when
others have passed it, and its answer goes nowhere; an answer that was held back comes to another
question.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from cloud.errors import CloudError
from sync.errors import Code, TransportError
from sync.meter import Traffic
from tests.sim.system.issuer import Issuer
from wallet.protocol.refusals import ProtocolError

LOST, UNANSWERED, DOUBLED, HELD_BACK, STALE = 0.08, 0.08, 0.08, 0.08, 0.04
HELD_MAX = 4


class Line:
    """A `sync.ports.Transport`. `cut`: nothing passes. `quiet`: everything does, at once."""

    def __init__(
        self, issuer: Issuer, journal: bytes, chance: random.Random, *, now_ms: Callable[[], int]
    ) -> None:
        self._issuer = issuer
        self._journal = journal
        self._chance = chance
        self._now_ms = now_ms
        self._held_back: list[bytes] = []
        self._answers: list[bytes] = []
        self.cut = False
        self.quiet = False
        self.passed = self.troubled = 0
        self._traffic = Traffic()

    def traffic(self) -> Traffic:
        """See `Transport`."""
        return self._traffic

    async def hang_up(self) -> None:
        """See `Transport`."""

    async def probe(self) -> None:
        """See `Transport`."""
        if self.cut:
            raise TransportError(Code.UNREACHABLE, "the line is cut")

    async def exchange(self, sealed: bytes) -> bytes:
        """See `Transport`."""
        await self.probe()
        self.passed += 1
        self._traffic = self._traffic.plus(Traffic(sent=len(sealed)))
        if self.quiet:
            return await self._ask(sealed)
        await self.deliver_late()
        what = self._chance.random()
        for share, trouble in (
            (LOST, self._lose),
            (UNANSWERED, self._lose_answer),
            (DOUBLED, self._double),
            (HELD_BACK, self._hold_back),
            (STALE, self._answer_late),
        ):
            what -= share
            if what < 0:
                self.troubled += 1
                return await trouble(sealed)
        return await self._ask(sealed)

    async def deliver_late(self, *, everything: bool = False) -> None:
        """Some of what was held back arrives now, in another order than it was sent in."""
        while self._held_back and (everything or self._chance.random() < 0.4):
            late = self._held_back.pop(self._chance.randrange(len(self._held_back)))
            try:
                await self._ask(late)
            except TransportError:
                # Nobody waits for this answer.
                continue

    async def _ask(self, sealed: bytes) -> bytes:
        """The issuer's answer, or what its server makes of a failure."""
        try:
            answer = await self._issuer.answer(sealed, caller=self._journal, now_ms=self._now_ms())
        except (CloudError, ProtocolError) as error:
            raise TransportError(Code.STATUS, str(error)) from error
        self._answers = [*self._answers[-HELD_MAX:], answer]
        self._traffic = self._traffic.plus(Traffic(received=len(answer)))
        return answer

    async def _lose(self, sealed: bytes) -> bytes:
        raise TransportError(Code.TIMEOUT, "lost")

    async def _lose_answer(self, sealed: bytes) -> bytes:
        await self._ask(sealed)
        raise TransportError(Code.TIMEOUT, "the answer is lost")

    async def _double(self, sealed: bytes) -> bytes:
        first = await self._ask(sealed)
        second = await self._ask(sealed)
        return self._chance.choice((first, second))

    async def _hold_back(self, sealed: bytes) -> bytes:
        self._held_back = [*self._held_back[-HELD_MAX:], sealed]
        raise TransportError(Code.TIMEOUT, "held back")

    async def _answer_late(self, sealed: bytes) -> bytes:
        if not self._answers:
            return await self._ask(sealed)
        late = self._chance.choice(self._answers)
        await self._ask(sealed)
        return late
