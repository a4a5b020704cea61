"""The interpreter of a process that serves payments: its collector and its lock."""

from __future__ import annotations

import gc
import sys

# Seconds after which a thread that computes lets one that waits go on; Python's own is 5 ms.
SWITCH_S = 0.0001
YOUNG, MIDDLE, OLD = 50_000, 20, 50


def collect_seldom() -> None:
    """Leave what was built at start-up out of every collection, and collect less often.

    Entries, orders and receipts hold no cycles: reference counts free them. With the usual
    thresholds the collector walks all waiting payments every few hundred allocations; that was
    4 % of the time of a payment.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def yield_soon() -> None:
    """Let the thread that commits have the interpreter soon after it asks.

    Every step of a statement asks for it, while the loop computes most of the time. With Python's
    own interval a commit of 25 payments took 4.5 ms of which it computed one.
    """
    sys.setswitchinterval(SWITCH_S)
