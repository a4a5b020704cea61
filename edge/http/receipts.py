"""Receipts of other journals: kept for the next exchange, so that a hidden entry is found out.

They are also how holders claim what a lost gateway never told.
"""

from __future__ import annotations

from aiohttp import web

from edge.collecting import keep_receipt
from edge.gateway import Opened
from edge.http.body import BodyType, answer, read_bytes
from edge.http.context import Context, note_item
from edge.http.idempotency import once
from edge.http.types import NoteBody, ReceiptKept, ReceiptsAnswer, ReceiptsBody
from wallet.protocol.refusals import ProtocolError

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
    try:
        kept = await keep_receipt(opened, brought.entry.raw, brought.receipt.raw)
    except ProtocolError as error:
        return ReceiptKept(kept="refused", code=str(error.code), detail=error.detail)
    return ReceiptKept(kept=str(kept))
