"""What is held of a report that no worker said anything of in time."""

from __future__ import annotations

from cloud.database import Connection
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.envelope import Up
from wallet.protocol.receipt import verify_checkpoint
from wallet.protocol.refusals import ProtocolError
from wallet.protocol.trust import ENDLESS_S


async def held_of(connection: Connection, anchor: TrustAnchor, up: Up) -> int:
    """The size up to which the entries of the report's own journal are known to be held.

    All of it where the very root that its checkpoint signs is stored; else no more than what was
    acknowledged before: the entries above that may be others, which is for the reconciler to see.
    """
    row = await connection.fetchrow(
        "SELECT size, root FROM journal_epoch WHERE journal = $1 AND epoch = $2",
        *(up.journal, up.epoch),
    )
    if row is None:
        return 0
    size: int = row["size"]
    try:
        checkpoint = verify_checkpoint(up.checkpoint, root=anchor, grace_s=ENDLESS_S)
    except ProtocolError:
        return min(size, up.acknowledged_size)
    if (checkpoint.size, checkpoint.root) == (size, row["root"]):
        return checkpoint.size
    return min(size, up.acknowledged_size)
