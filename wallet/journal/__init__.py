"""The journal: state, store and signer as one. Decide, append, commit, sign, answer."""

from wallet.journal.errors import EntryMissing, JournalError, JournalTampered, JournalUnopened
from wallet.journal.journal import Journal
from wallet.journal.recovery import stored_list
from wallet.journal.values import Event, JournalStatus, Mode, Receipted

__all__ = [
    "EntryMissing",
    "Event",
    "Journal",
    "JournalError",
    "JournalStatus",
    "JournalTampered",
    "JournalUnopened",
    "Mode",
    "Receipted",
    "stored_list",
]
