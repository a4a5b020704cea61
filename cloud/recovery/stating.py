"""What a statement does where its journal lives: in one transaction, and kept in it."""

from __future__ import annotations

from cloud.reconciler import collected
from cloud.reconciler import forks as proofs
from cloud.reconciler.evidence import Evidence, suspend
from cloud.recovery import kept
from cloud.recovery.arrivals import HIDDEN
from cloud.recovery.closures import Closure
from cloud.recovery.kept import Stated
from cloud.recovery.posting import post_total
from cloud.recovery.total import Total
from cloud.shards.homes import Site, homes_of
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.refusals import Code


async def carry_out(
    site: Site,
    anchor: TrustAnchor,
    closure: Closure,
    total: Total,
    stated: Stated,
    *,
    now_ms: int,
) -> None:
    """Post what the epoch comes to, and keep that it was. Raises: LedgerError, WalletError."""
    await post_total(site, closure, total, now_ms=now_ms)
    await _convict(site, anchor, total, now_ms=now_ms)
    await site.home.execute(
        "UPDATE journal_epoch SET stated_ms = $3, stated_by = $4 WHERE journal = $1 AND epoch = $2",
        *(*closure.place, now_ms, closure.closure_id),
    )
    await kept.keep_stated(site, closure.place, stated)


async def _convict(site: Site, anchor: TrustAnchor, total: Total, *, now_ms: int) -> None:
    """Two claims at one index are evidence against the journal, whatever they move."""
    for one, other in total.forks:
        parts = proofs.of_index(
            anchor,
            (one.entry.raw, one.receipt or b""),
            (other.entry.raw, other.receipt or b""),
        )
        found = Evidence(kind="fork", code=Code.PROOF_INVALID, index=one.index, parts=parts)
        await suspend(site.home, total.told["epoch_id"], found, now_ms=now_ms)
    # Notes among the claims show what the journals that they left hide.
    shown = [change.note for change in total.notes if change.state == HIDDEN]
    receipts = [(note.entry, note.receipt) for note in shown if note is not None]
    holding = await collected.check(anchor, receipts)
    journals = [item.verified.journal for item in holding]
    site.here.homes.hear(await homes_of(site.head, journals))
    await collected.take(site.home, anchor, holding, site.here, now_ms=now_ms)
