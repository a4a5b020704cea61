"""What a journal answers with: receipts, its status, events."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from wallet.protocol.refusals import Code


class Mode(enum.StrEnum):
    """What a journal can do now; every mode but `open` names the code of its refusals."""

    OPEN = "open"
    SEALED = Code.SEALED
    FROZEN_ROLLBACK = Code.FROZEN_ROLLBACK
    FROZEN_TAMPER = Code.FROZEN_TAMPER
    FROZEN_BY_ISSUER = Code.FROZEN_BY_ISSUER
    NOT_PROVISIONED = Code.NOT_PROVISIONED


class Receipted(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An entry that is durable and covered by a signed checkpoint.

    `leaf` is the payment's identifier. `repeated`: a known order that gets its receipt again.
    """

    index: int
    kind: int
    time_ms: int
    entry: bytes
    receipt: bytes
    leaf: bytes
    soft: tuple[str, ...] = ()
    repeated: bool = False


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A journal at a glance. Amounts in minor units, times in Unix milliseconds."""

    journal: str
    epoch: int
    currency: str
    mode: Mode
    clock: str
    size: int
    acknowledged: int
    settled_size: int
    settled_ms: int
    exposure: int
    balance_total: int
    wallets: int
    policy_sequence: int
    lists: dict[int, tuple[int, int]]
    counter_driver: str
    counter: int
    certificate_not_after_s: int
    window_exposure: int


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that listeners may want to know; names as in the interface's events."""

    name: str
    data: dict[str, Any]


Listener = Callable[[Event], None]
