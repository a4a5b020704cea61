"""What a benchmark says: a figure, and the ceiling or peer that it stands beside."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

VERIFIES = 4_000
MESSAGE_BYTES = 320


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. `ratio` is value / beside_value; `goal` says what it should reach."""

    name: str
    value: float
    unit: str
    beside: str
    beside_value: float
    ratio: float
    goal: str = ""


def figure(
    name: str, value: float, unit: str, *, beside: str, beside_value: float, goal: str = ""
) -> Figure:
    """A figure and its ratio."""
    ratio = value / beside_value if beside_value else 0.0
    return Figure(
        name=name,
        value=round(value, 3),
        unit=unit,
        beside=beside,
        beside_value=round(beside_value, 3),
        ratio=round(ratio, 3),
        goal=goal,
    )


def table(figures: list[Figure]) -> str:
    """The figures for people."""
    head = ("what", "value", "unit", "beside", "its value", "ratio", "goal")
    rows = [
        (
            f.name,
            f"{f.value:,.1f}",
            f.unit,
            f.beside,
            f"{f.beside_value:,.1f}",
            f"{f.ratio:.2f}",
            f.goal,
        )
        for f in figures
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True))
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def verify_rate(verifies: int = VERIFIES) -> float:
    """libsodium's Ed25519 verifications a second, one core, messages as long as an order's."""
    public, secret = crypto_sign_seed_keypair(b"\x07" * 32)
    signed = crypto_sign(b"m" * MESSAGE_BYTES, secret)
    start = time.perf_counter()
    for _ in range(verifies):
        crypto_sign_open(signed, public)
    return verifies / (time.perf_counter() - start)


@contextlib.contextmanager
def verify_pair(verifies: int = VERIFIES) -> Iterator[Callable[[], float]]:
    """What measures the same by two processes at once, added up, as often as it is called."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(verify_rate, [100, 100], chunksize=1)  # both are up and warm
        yield lambda: sum(pool.map(verify_rate, [verifies, verifies], chunksize=1))


def fsync_rate(folder: Path, appends: int = 300) -> float:
    """Appends of 4 KiB a second, each with fsync."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        start = time.perf_counter()
        for _ in range(appends):
            file.write(b"\x00" * 4096)
            file.flush()
            os.fsync(file.fileno())
        return appends / (time.perf_counter() - start)


def median_of(measure: Callable[[], float], times: int = 3) -> float:
    """The median of a few measurements."""
    return statistics.median(measure() for _ in range(times))


def percentile(values: list[float], part: float) -> float:
    """The value below which this part of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def peak_mib() -> float:
    """This process's peak of resident memory in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def resident_mib() -> float:
    """This process's resident memory now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cpu_seconds(process_id: int) -> float:
    """CPU time, user and kernel, of a running process and of the running processes under it."""
    ticks, children = dict[int, int](), dict[int, list[int]]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        # A process may end while we look; its name, in brackets, may hold blanks.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            fields = path.read_text().rpartition(")")[2].split()
            number, parent = int(path.parent.name), int(fields[1])
            ticks[number] = int(fields[11]) + int(fields[12])
            children.setdefault(parent, []).append(number)
    family = _family(process_id, children)
    return sum(ticks[member] for member in family) / os.sysconf("SC_CLK_TCK")


def _family(process_id: int, children: dict[int, list[int]]) -> list[int]:
    below = [_family(child, children) for child in children.get(process_id, [])]
    return [process_id, *itertools.chain.from_iterable(below)]
