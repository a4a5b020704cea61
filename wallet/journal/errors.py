"""What can go wrong with a journal as a whole. A refusal of one order is a value, not here."""

from __future__ import annotations


class JournalError(Exception):
    """Root of the journal's errors; `code` is stable."""

    code = "journal-failed"


class JournalTampered(JournalError):
    """The store does not add up to the checkpoint that this journal signed."""

    code = "journal-tampered"


class JournalUnopened(JournalError):
    """There is no open epoch in this store yet."""

    code = "journal-unopened"


class EntryMissing(JournalError):
    """No entry of this index."""

    code = "entry-missing"
