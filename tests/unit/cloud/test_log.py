"""Logs of the cloud: one line of JSON each, whoever writes."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from cloud.log import Log, start_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go while a test runs."""
    root, ours = logging.getLogger(), logging.getLogger("cbdc")
    before = (root.handlers[:], root.level, ours.level)
    written = io.StringIO()
    start_logging("info", stream=written)
    yield written
    root.handlers[:], level, our_level = before[0], before[1], before[2]
    root.setLevel(level)
    ours.setLevel(our_level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was written."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_action_is_a_line_with_its_fields(stream: io.StringIO) -> None:
    Log("part").info("started", port=7, name=None)
    Log("part").warning("refused", code="x")
    first, second = lines(stream)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "part": "part",
        "action": "started",
        "port": 7,
        "name": None,
    }
    assert (second["level"], second["code"]) == ("warning", "x")


def test_a_failure_leaves_its_trace_in_the_log(stream: io.StringIO) -> None:
    try:
        raise ValueError("inside")
    except ValueError as error:
        Log("part").error("failed", cause=error)
    (line,) = lines(stream)
    assert (line["action"], "ValueError: inside" in line["trace"]) == ("failed", True)


def test_other_libraries_sentences_are_lines_too(stream: io.StringIO) -> None:
    logging.getLogger("other").warning("a %s", "sentence")
    logging.getLogger("other").info("not shown")
    (line,) = lines(stream)
    assert (line["action"], line["message"]) == ("library-message", "a sentence")
