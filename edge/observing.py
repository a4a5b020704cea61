"""Notes in the audit trail what changed since it last looked: mode, clock, certificate, keys."""

from __future__ import annotations

import hashlib

from edge.audit import Audit
from sync.machine import State
from wallet.hosted import HostedWallets
from wallet.journal import Event, Journal, Mode


class Observing:
    """Looks at one open gateway. Changes of mode are told by the journal, and missed by no look."""

    def __init__(self, journal: Journal, hosted: HostedWallets, audit: Audit) -> None:
        self._journal = journal
        self._hosted = hosted
        self._audit = audit
        self._clock = "sure"
        self._certificate = journal.chain[0]
        self._suspended = False

    def take(self, event: Event) -> None:
        """An event of the journal."""
        mode = event.data.get("mode")
        if mode is not None:
            self._audit.note("gateway.mode", mode=str(mode), token=_token(Mode(str(mode))))

    def look(self, sync: State | None) -> None:
        """Note what is not as it was."""
        clock = self._journal.status().clock
        if clock != self._clock:
            self._clock = clock
            self._audit.note(f"clock.{clock}")
        leaf = self._journal.chain[0]
        if leaf != self._certificate:
            self._certificate = leaf
            self._audit.note("key.certified", certificate=hashlib.sha256(leaf).hexdigest())
        suspended = sync is State.SUSPENDED
        if suspended != self._suspended:
            self._suspended = suspended
            self._audit.note("connectivity.suspended" if suspended else "connectivity.resumed")

    def count_keys(self) -> None:
        """Note how often hosted wallets' keys were used since the last count."""
        used = self._hosted.take_uses()
        if used:
            self._audit.note("hosted.keys-used", **used)


def _token(mode: Mode) -> str | None:
    """What a change of mode says of the token."""
    return {Mode.SEALED: "gone", Mode.OPEN: "answers"}.get(mode)
