"""Bodies and answers about entries that are held, and what officers decide about them."""

from __future__ import annotations

from typing import Literal

from cloud.http.types import Answer, Body, Count, Identity, Name, Text

Action = Literal["release", "reject"]


class HeldAnswer(Answer, frozen=True, kw_only=True):
    """An entry that is held. Payer and payee are null where there is no order in it.

    `decidable`: false of what a suspended journal told after its offence, which is a claim when its
    epoch is closed. `code`: why it is held.
    """

    journal: str
    epoch: int
    index: int
    kind: str
    amount: int
    payer: str | None
    payee: str | None
    code: str
    held_ms: int
    decidable: bool


class HeldEntriesAnswer(Answer, frozen=True, kw_only=True):
    """Entries that are held, from the place `first` of the query on; none at the end."""

    entries: list[HeldAnswer]


class DecisionBody(Body, frozen=True, kw_only=True):
    """A draft: a held entry is released, or rejected, once another officer approves.

    `freeze`: with a rejection, the payee's wallet goes on list 5.
    """

    draft_id: Identity
    journal: Name
    epoch: Count
    index: Count
    action: Action
    freeze: bool = False
    reason: Text


class DecisionAnswer(Answer, frozen=True, kw_only=True):
    """A draft and what became of it."""

    draft_id: Identity
    journal: str
    epoch: int
    index: int
    action: Action
    freeze: bool
    reason: str
    state: Literal["draft", "approved", "rejected"]


class DecisionsAnswer(Answer, frozen=True, kw_only=True):
    """Drafts that wait, the newest first."""

    decisions: list[DecisionAnswer]
