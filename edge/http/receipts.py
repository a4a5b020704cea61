"""Receipts of other journals: kept for the next exchange, so that a hidden entry is found out.

They are also how holders claim what a lost gateway never told. Revocation does not matter here: the
journals that receipts are most needed of are the ones on the list.
"""

from __future__ import annotations

from aiohttp import web

from edge.gateway import Opened
from edge.http.body import BodyType, answer, read_bytes
from edge.http.context import Context, note_item
from edge.http.idempotency import once
from edge.http.types import NoteBody, ReceiptKept, ReceiptsAnswer, ReceiptsBody
from wallet.protocol.policy import JournalLimit
from wallet.protocol.receipt import NOTHING_REVOKED, verify_receipt
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.trust import ENDLESS_S
from wallet.store.objects import CollectedReceipt, add_receipt

RECEIPTS = BodyType(ReceiptsBody)


async def post_receipts(context: Context, request: web.Request) -> web.Response:
    """Hand in receipts seen elsewhere; each is verified before it is kept."""
    raw = await read_bytes(request, timeout_s=context.body_timeout_s)
    body = RECEIPTS.decode(raw, request)

    async def keep() -> web.Response:
        answers = [await _keep(context.opened, brought) for brought in body.receipts]
        for number, item in enumerate(answers):
            if item.kept == "refused":
                note_item(context, request, "post_receipts", item=number, code=item.code)
        return answer(request, ReceiptsAnswer(answers=answers))

    return await once(context, request, raw, keep)


async def _keep(opened: Opened, brought: NoteBody) -> ReceiptKept:
    state = opened.journal.state
    grace_s = state.journal_limit(JournalLimit.CERTIFICATE_GRACE_S)
    try:
        verified = verify_receipt(
            brought.receipt.raw,
            brought.entry.raw,
            root=opened.journal.anchor,
            grace_s=ENDLESS_S if grace_s is None else grace_s,
            revoked=NOTHING_REVOKED,
        )
    except ProtocolError as error:
        return ReceiptKept(kept="refused", code=str(error.code), detail=error.detail)
    if verified.journal == state.journal:
        # The issuer gets our own entries anyway.
        return ReceiptKept(kept="known")
    collected = CollectedReceipt(
        hash=verified.leaf, entry=brought.entry.raw, receipt=brought.receipt.raw, state="new"
    )
    kept = await opened.database.write(lambda c: add_receipt(c, collected))
    return ReceiptKept(kept=str(kept))
