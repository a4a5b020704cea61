"""A tamper switch on a GPIO line, through libgpiod: the one place that knows it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from edge.errors import SwitchFailed

CONSUMER = "cbdc-edge tamper"
# Shorter than a lid opens, longer than a contact bounces; the kernel counts it.
DEBOUNCE = datetime.timedelta(milliseconds=5)


class Line(Protocol):
    """What is used of libgpiod's `LineRequest`."""

    @property
    def fd(self) -> int:
        """Readable when an edge was seen."""

    def read_edge_events(self) -> Sequence[object]:
        """The edges that were seen."""

    def release(self) -> None:
        """Let go of the line."""


class GpioSwitch:
    """Trips when the line is active, or was for a moment, or cannot be read any more."""

    source = "gpio"

    def __init__(self, line: Line, *, name: str, active: Callable[[], bool]) -> None:
        self._line = line
        self._name = name
        self._active = active

    def tripped(self) -> str | None:
        """What it sees now."""
        try:
            return f"{self._name} is active" if self._active() else None
        except OSError as error:
            return f"{self._name} cannot be read: {error.strerror}"

    async def wait(self) -> str:
        """Woken by the kernel at the edge; a lid that was closed again has tripped it too."""
        loop = asyncio.get_running_loop()
        edge = asyncio.Event()
        loop.add_reader(self._line.fd, edge.set)
        try:
            reason = self.tripped()
            if reason is None:
                await edge.wait()
                reason = self._edge()
            return reason
        finally:
            loop.remove_reader(self._line.fd)

    def _edge(self) -> str:
        try:
            self._line.read_edge_events()
        except OSError as error:
            return f"{self._name} cannot be read: {error.strerror}"
        return f"{self._name} became active"

    def close(self) -> None:
        """Let go of the line."""
        self._line.release()


def open_line(chip: Path, line: int, *, active_low: bool, bias: str) -> GpioSwitch:
    """Ask the kernel for the line, to be told when it becomes active.

    `bias`: "as-is", "pull-up", "pull-down" or "disabled". Raises: SwitchFailed.
    """
    try:
        import gpiod
        from gpiod.line import Bias, Direction, Edge, Value
    except ImportError as error:
        raise SwitchFailed("a GPIO line needs libgpiod's package for Python: gpiod") from error

    settings = gpiod.LineSettings(
        direction=Direction.INPUT,
        # Of the line's logic: `active_low` turns the edge round as well.
        edge_detection=Edge.RISING,
        active_low=active_low,
        bias=Bias[bias.replace("-", "_").upper()],
        debounce_period=DEBOUNCE,
    )
    try:
        request = gpiod.request_lines(str(chip), consumer=CONSUMER, config={line: settings})
    except (OSError, ValueError) as error:
        raise SwitchFailed(f"line {line} of {chip}: {error}") from error
    return GpioSwitch(
        request,
        name=f"line {line} of {chip}",
        active=lambda: request.get_value(line) is Value.ACTIVE,
    )
