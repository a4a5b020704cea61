"""The count that is kept by a token's counter, over steps that are broken off at any place."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from hsm.pkcs11 import counter as noting
from hsm.pkcs11.counter import Counting


class Broken(Exception):
    """The power failed, or the token went."""


class Token:
    """A counter in a token that is lost before or after it moved, or after its note was kept."""

    def __init__(self, folder: Path) -> None:
        self.shown = 1_000
        self.breaks = ""
        self._folder = folder
        self.counting = Counting(folder)
        (folder / noting.FILE_NAME).touch()

    def restart(self) -> None:
        """Another process."""
        self.counting = Counting(self._folder)

    def show(self, token: object) -> int:
        """Move by one, and show it."""
        if self.breaks == "before":
            raise Broken
        self.shown += 1
        if self.breaks == "after":
            raise Broken
        return self.shown

    def step(self, *, counts: bool, breaks: str = "") -> int | None:
        """One reading or one count; None when it was broken off."""
        self.breaks = breaks
        keys: Any = SimpleNamespace(session=SimpleNamespace(token=self))
        try:
            return self.counting.increment(keys) if counts else self.counting.read(keys)
        except Broken:
            return None


@pytest.fixture
def token(tmp_path: Path) -> Iterator[Token]:
    """A count that was begun and read."""
    made = Token(tmp_path)
    seals = SimpleNamespace(seal=lambda _, note, label: note, unseal=lambda _, note, label: note)
    # The driver's real counting; no token can be told where to break off.
    with mock.patch.object(noting, "show", made.show), mock.patch.object(noting, "seals", seals):
        keys: Any = None
        made.counting.begin(keys)
        made.step(counts=False)
        yield made


@pytest.mark.parametrize("breaks", ["before", "after"])
def test_a_count_that_is_done_again_in_a_new_session_counts_once(token: Token, breaks: str) -> None:
    # The connection repeats a step whose session was lost: one request, one count.
    assert token.step(counts=True, breaks=breaks) is None
    assert token.step(counts=True) == 1
    assert token.step(counts=False) == 1


@pytest.mark.parametrize("times", [1, 2, 3])
def test_counts_that_were_broken_off_are_one_at_most(token: Token, times: int) -> None:
    # None of them gave out its value, so nothing was signed under it: the count may be one on,
    # as the journal's intent allows, or not.
    for _ in range(times):
        assert token.step(counts=True, breaks="after") is None
    token.restart()
    assert token.step(counts=False) == 1
    assert token.step(counts=True) == 2


@pytest.mark.one_seed_of(10)
def test_no_count_that_was_given_out_is_given_out_again(token: Token, seed: int) -> None:
    chance = random.Random(seed)
    given = 0
    for _ in range(40):
        counts = chance.random() < 0.5
        told = token.step(counts=counts, breaks=chance.choice(["", "", "before", "after"]))
        if told is None:
            if chance.random() < 0.5:
                token.restart()
            continue
        # A count rises above all that was given out; a reading shows that, or one more.
        assert told > given if counts else told >= given
        # And by one alone, or a sound store, whose intent is one on, would not fit it.
        assert told <= given + 1
        given = told
