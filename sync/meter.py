"""What links cost: every byte counted, by link and purpose, and the budgets of a day. Pure.

A day is rolling, as the wallets' limits have it: 24 buckets of one hour.
"""

from __future__ import annotations

import enum

import msgspec

HOUR_MS = 3_600_000
HOURS = 24
# Names of links come from the configuration; what was counted under others is kept up to here.
NAMES_MAX = 64
DEFAULT_NAME = "default"


class LinkKind(enum.StrEnum):
    """What a link is like: a satellite is metered, and slow to answer besides."""

    FREE = "free"
    METERED = "metered"
    SATELLITE = "satellite"


class Purpose(enum.StrEnum):
    """What bytes were for."""

    PROBE = "probe"
    EXCHANGE = "exchange"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A way to the cloud. Budgets are bytes in a day, both ways together; None is no budget.

    That for probes is part of the whole.
    """

    name: str = DEFAULT_NAME
    kind: LinkKind = LinkKind.FREE
    day_bytes_max: int | None = None
    probe_day_bytes_max: int | None = None

    @property
    def metered(self) -> bool:
        """Each byte costs: value first, and what can wait waits."""
        return self.kind is not LinkKind.FREE


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the line."""

    sent: int = 0
    received: int = 0

    @property
    def total(self) -> int:
        """Both ways together."""
        return self.sent + self.received

    def plus(self, more: Traffic) -> Traffic:
        """Both together."""
        return Traffic(sent=self.sent + more.sent, received=self.received + more.received)

    def since(self, before: Traffic) -> Traffic:
        """What came on top."""
        return Traffic(sent=self.sent - before.sent, received=self.received - before.received)


class Counted(msgspec.Struct, kw_only=True):
    """One link and purpose: all that was counted, and bytes by hour since the Unix epoch."""

    link: str
    purpose: Purpose
    sent: int = 0
    received: int = 0
    hours: dict[int, int] = {}


class Meter:
    """Counts, and answers what is left."""

    def __init__(self, counted: list[Counted] | None = None) -> None:
        self._counted = {(one.link, one.purpose): one for one in counted or []}

    @classmethod
    def decode(cls, raw: bytes) -> Meter:
        """What `encode` gave; nothing counted yet, for bytes of another release."""
        try:
            return cls(msgspec.json.decode(raw, type=list[Counted]))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return cls()

    def encode(self) -> bytes:
        """All of it, to be kept."""
        return msgspec.json.encode(self.counted())

    def counted(self) -> list[Counted]:
        """All that was counted, by link and purpose."""
        return [self._counted[key] for key in sorted(self._counted)]

    def add(self, link: Link, purpose: Purpose, traffic: Traffic, *, now_ms: int) -> None:
        """Count what went over a link."""
        key = (link.name, purpose)
        if key not in self._counted and len(self._counted) >= NAMES_MAX:
            key = (DEFAULT_NAME, purpose)
        one = self._counted.setdefault(key, Counted(link=key[0], purpose=purpose))
        one.sent += traffic.sent
        one.received += traffic.received
        hour = now_ms // HOUR_MS
        fresh = {past: count for past, count in one.hours.items() if past > hour - HOURS}
        one.hours = {**fresh, hour: fresh.get(hour, 0) + traffic.total}

    def spent(self, link: Link, purpose: Purpose | None, *, now_ms: int) -> int:
        """Bytes of the last day, for one purpose or for all."""
        return sum(self._hours(link, purpose, now_ms).values())

    def left(self, link: Link, purpose: Purpose | None = None, *, now_ms: int) -> int | None:
        """What is left of the link's day, or of that for probes; None without a budget."""
        most = link.probe_day_bytes_max if purpose is Purpose.PROBE else link.day_bytes_max
        return None if most is None else max(0, most - self.spent(link, purpose, now_ms=now_ms))

    def wait_ms(self, link: Link, purpose: Purpose, need: int, *, now_ms: int) -> int:
        """How long until so many bytes are free for the purpose; 0 when they are."""
        waits = [self._wait_ms(link, None, link.day_bytes_max, need, now_ms)]
        if purpose is Purpose.PROBE:
            waits.append(self._wait_ms(link, purpose, link.probe_day_bytes_max, need, now_ms))
        return max(waits)

    def _wait_ms(
        self, link: Link, purpose: Purpose | None, most: int | None, need: int, now_ms: int
    ) -> int:
        if most is None:
            return 0
        hours = self._hours(link, purpose, now_ms)
        # A budget that is smaller than the need lets one through when the day is empty.
        over = sum(hours.values()) + min(need, most) - most
        for hour in sorted(hours):
            if over <= 0:
                break
            over -= hours[hour]
            if over <= 0:
                return (hour + HOURS) * HOUR_MS - now_ms
        return 0

    def _hours(self, link: Link, purpose: Purpose | None, now_ms: int) -> dict[int, int]:
        found: dict[int, int] = {}
        for one in self._counted.values():
            if one.link != link.name or purpose not in (None, one.purpose):
                continue
            for hour, count in one.hours.items():
                if hour > now_ms // HOUR_MS - HOURS:
                    found[hour] = found.get(hour, 0) + count
        return found
