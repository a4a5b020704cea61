"""The line of the moment: which link it is, what it may cost, and how much goes at once. Pure."""

from __future__ import annotations

import msgspec

from sync.meter import Link, LinkKind, Meter, Purpose, Traffic
from sync.pace import FIRST_METERED_BYTES, LEAST_BYTES, Pace
from sync.ports import Load

# What is to be free before either begins: a handshake with both certificates, and that with the
# smallest segment and its answer.
PROBE_BYTES = 8 * 1024
EXCHANGE_BYTES_MIN = 2 * LEAST_BYTES + PROBE_BYTES
# On a link that costs, a session without value to carry comes this seldom.
REST_MS = {LinkKind.METERED: 3_600_000, LinkKind.SATELLITE: 6 * 3_600_000}


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """One way of an exchange: what the line carried, and what that told before it was compressed.

    Segments are bounded by what they tell: entries take a third of their length on the line.
    """

    line_bytes: int
    told_bytes: int


class Line:
    """What is known of links, and of the one that is used now."""

    def __init__(self) -> None:
        self.link = Link()
        self.meter = Meter()
        self._paces: dict[str, Pace] = {}
        self._answers: dict[str, Pace] = {}

    @property
    def pace(self) -> Pace:
        """How much goes at once over this link."""
        return self._paces.get(self.link.name) or _first(self.link)

    def held_ms(self, purpose: Purpose, *, now_ms: int) -> int:
        """How long until the budget lets this begin; 0 when it does."""
        need = PROBE_BYTES if purpose is Purpose.PROBE else EXCHANGE_BYTES_MIN
        return self.meter.wait_ms(self.link, purpose, need, now_ms=now_ms)

    def load(self, *, now_ms: int, unbudgeted: bool) -> Load:
        """What the next report may carry; `unbudgeted`: a person asked for it."""
        most, left = self.pace.segment_bytes, self.meter.left(self.link, now_ms=now_ms)
        answer = self._answer.segment_bytes
        if left is not None and not unbudgeted:
            half = (left - PROBE_BYTES) // 2
            most, answer = [max(LEAST_BYTES, min(each, half)) for each in (most, answer)]
        return Load(bytes_max=most, answer_bytes_max=answer, lean=self.link.metered)

    def count(self, purpose: Purpose, traffic: Traffic, *, now_ms: int) -> None:
        """Count what went over it."""
        self.meter.add(self.link, purpose, traffic, now_ms=now_ms)

    def carried(self, sent: Carried, received: Carried, took_ms: int) -> None:
        """An exchange came to its end; the time is that of the way that had more to carry."""
        if sent.line_bytes >= received.line_bytes:
            self._keep(self._paces, self.pace.carried(sent.told_bytes, took_ms))
        else:
            self._keep(self._answers, self._answer.carried(received.told_bytes, took_ms))

    def broke(self) -> None:
        """The line broke under an exchange, nobody knows which way."""
        self._keep(self._paces, self.pace.broken())
        self._keep(self._answers, self._answer.broken())

    def _keep(self, paces: dict[str, Pace], pace: Pace) -> None:
        # Names come from the configuration, of which there are few.
        paces[self.link.name] = pace

    @property
    def _answer(self) -> Pace:
        """How much comes at once over this link."""
        return self._answers.get(self.link.name) or _first(self.link)

    def rests(self, since_ms: int | None, *, now_ms: int) -> bool:
        """Whether a session that has no value to carry may wait."""
        rest_ms = REST_MS.get(self.link.kind, 0)
        return since_ms is not None and now_ms - since_ms < rest_ms


def _first(link: Link) -> Pace:
    return Pace(segment_bytes=FIRST_METERED_BYTES) if link.metered else Pace()
