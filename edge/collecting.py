"""Receipts of other journals, kept for the issuer: a journal that hides an entry is found out."""

from __future__ import annotations

from edge.gateway import Opened
from wallet.protocol.policy import JournalLimit
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt
from wallet.protocol.refusals import Code, ProtocolError
from wallet.protocol.trust import ENDLESS_S
from wallet.store.objects import CollectedReceipt, Kept, add_receipt

# Refusals of a note that no later try changes, although its receipt holds.
HOPELESS = frozenset({Code.NOTE_EXPIRED, Code.JOURNAL_REVOKED})


async def keep_receipt(opened: Opened, entry: bytes, receipt: bytes) -> Kept:
    """Verify a receipt and keep it for the next exchange; one of our own is `known`.

    Revocation does not matter: the journals that receipts are most needed of are on the list.
    Raises: ProtocolError for what is no receipt, StoreError.
    """
    state = opened.journal.state
    grace_s = state.journal_limit(JournalLimit.CERTIFICATE_GRACE_S)
    verified = verify_receipt(
        receipt,
        entry,
        root=opened.journal.anchor,
        grace_s=ENDLESS_S if grace_s is None else grace_s,
        revoked=NOTHING_REVOKED,
    )
    if verified.journal == state.journal:
        # The issuer gets our own entries anyway.
        return Kept.KNOWN
    collected = CollectedReceipt(hash=verified.leaf, entry=entry, receipt=receipt, state="new")
    return await opened.database.write(lambda connection: add_receipt(connection, collected))


async def keep_refused(opened: Opened, entry: bytes, receipt: bytes, *, code: str) -> None:
    """A note that comes too late is evidence all the same: two at one index are a fork.

    Raises: StoreError.
    """
    if code not in HOPELESS:
        return
    try:
        await keep_receipt(opened, entry, receipt)
    except ProtocolError:
        # It proves nothing either.
        return
