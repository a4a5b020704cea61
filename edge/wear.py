"""How fast the hardware counter wears: how often it moved of late, and for how long that goes well.

Makers of TPMs promise at least 100,000 writes of one place of their memory, and each move of the
counter is one. How often it moves is the policy's window (105 and 106), and the starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from wallet.store.connection import Connection
from wallet.store.meta import get_meta, put_meta

# Of the hardware that we know, this one wears.
WEARING = ("tpm",)
WRITES_PROMISED = 100_000
YEARS_MIN = 10
SAMPLES_KEPT = 8
_NAME = "counter-samples"
_DAY_MS = 86_400_000
_YEAR_MS = 365 * _DAY_MS


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What the counter showed at a time."""

    time_ms: int
    counter: int


def note_counter(connection: Connection, sample: Sample) -> None:
    """Remember what the counter shows, once a day; of another counter, nothing stays."""
    samples = load_samples(connection)
    last = samples[-1] if samples else None
    if last is not None and not _follows(last, sample):
        samples, last = [], None
    if last is None or sample.time_ms - last.time_ms >= _DAY_MS:
        kept = [*samples, sample][-SAMPLES_KEPT:]
        put_meta(connection, _NAME, msgspec.json.encode(kept))


def load_samples(connection: Connection) -> list[Sample]:
    """What was remembered, the oldest first."""
    stored = get_meta(connection, _NAME)
    return [] if stored is None else msgspec.json.decode(stored, type=list[Sample])


def moves_a_year(samples: Sequence[Sample], now: Sample) -> int | None:
    """At the rate of the last days; None while nobody has watched for a day."""
    if not samples or not _follows(samples[0], now):
        return None
    watched_ms = now.time_ms - samples[0].time_ms
    if watched_ms < _DAY_MS:
        return None
    return (now.counter - samples[0].counter) * _YEAR_MS // watched_ms


def wears_out(moves: int | None, driver: str) -> str | None:
    """A sentence when the counter of this driver will be worn out too soon."""
    if driver not in WEARING or moves is None or moves * YEARS_MIN <= WRITES_PROMISED:
        return None
    months = WRITES_PROMISED * 12 // moves
    return (
        f"the counter moves {moves:,} times a year and may be worn out in {months // 12} years and"
        f" {months % 12} months: makers promise {WRITES_PROMISED:,} moves at least; ask the issuer"
        " for a longer window (cbdc-cloud issuer window long)"
    )


def _follows(before: Sample, after: Sample) -> bool:
    """Whether both may be of one counter and one clock."""
    return before.time_ms <= after.time_ms and before.counter <= after.counter
