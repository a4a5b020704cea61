"""Looking things up in a journal: entries by name, receipts again, roots of earlier sizes."""

from __future__ import annotations

from collections.abc import Sequence

from wallet.journal.engine import UNRECEIPTED, Engine
from wallet.journal.errors import EntryMissing
from wallet.journal.index import bears, reference_name, stored_names, stored_wallet_entries
from wallet.journal.values import Receipted
from wallet.protocol.checkpoint import PATH_LEAD
from wallet.protocol.context import Refundable
from wallet.protocol.entry import EntryKind, Note, Payment, decode_entry
from wallet.protocol.ids import WalletId
from wallet.protocol.merkle import (
    EMPTY_ROOT,
    Node,
    Provider,
    cover,
    inclusion_path,
    join,
    leaf_hash,
    stored_nodes,
)
from wallet.protocol.refusals import Code, Refusal, refuse
from wallet.protocol.state import State
from wallet.store.checkpoints import checkpoint_for
from wallet.store.connection import Connection
from wallet.store.journal import read_entries, read_nodes

BLOCK = 256


class Lookups:
    """What can be read of a journal. Nothing here changes it."""

    def __init__(self, engine: Engine, *, acknowledged: int) -> None:
        self._engine = engine
        self._database = engine.database
        self.acknowledged = acknowledged

    @property
    def state(self) -> State:
        """The state after the newest entry. Only the journal itself changes it."""
        return self._engine.state

    @property
    def failure(self) -> BaseException | None:
        """What broke the journal, which takes nothing from then on; None while it serves."""
        failed = self._engine.failed
        return failed.exception() if failed.done() else None

    async def _known(self, identity: bytes) -> Receipted | Refusal | None:
        """What became of an order that is recorded here; None for one that is not."""
        index = await self.find(identity)
        if index is None:
            return None
        if self._engine.signed is None or index >= self._engine.signed.size:
            return refuse(Code.SEALED, UNRECEIPTED)
        return await self.receipted(index)

    async def find(self, name: bytes) -> int | None:
        """The entry of an order's or request's identity, or of a leaf hash (32 bytes each)."""
        found = await self._find_all(name)
        return found[0] if found else None

    async def find_reference(self, reference: str) -> list[int]:
        """Payments with this reference, oldest first."""
        return await self._find_all(reference_name(reference))

    async def _find_all(self, name: bytes) -> list[int]:
        recent = self._engine.names.find(name)
        stored = await self._database.read(lambda c: stored_names(c, name))
        candidates = sorted({*stored, *recent})
        found = []
        for index in candidates:
            raw = (await self.entries(index, 1))[0]
            if bears(decode_entry(raw), leaf_hash(raw), name):
                found.append(index)
        return found

    async def wallet_entries(
        self, wallet: WalletId, *, before: int | None = None, limit: int = 50
    ) -> list[int]:
        """Indexes of a wallet's entries below `before`, newest first."""
        end = self.state.size if before is None else before
        found = self._engine.names.of_wallet(wallet, before=end, limit=limit)
        if len(found) < limit:
            end = found[-1] if found else end
            rest = limit - len(found)
            found += await self._database.read(
                lambda c: stored_wallet_entries(c, wallet, before=end, limit=rest)
            )
        return found

    async def entries(self, first: int, count: int) -> list[bytes]:
        """Entries in order. Raises: EntryMissing when the first one does not exist."""
        found = await self._database.read(lambda c: read_entries(c, first, count))
        if not found:
            raise EntryMissing(f"there is no entry {first}")
        return found

    async def receipted(self, index: int) -> Receipted:
        """An entry with a receipt under the newest checkpoint. Raises: EntryMissing."""
        signed = self._engine.signed
        if signed is None or index >= signed.size:
            raise EntryMissing(f"no checkpoint covers entry {index}")
        raw = (await self.entries(index, 1))[0]
        maker, size = self._engine.head.maker(signed), signed.size
        path = await self._database.read(lambda c: inclusion_path(index, size, node_provider(c)))
        entry = decode_entry(raw)
        return Receipted(
            index=index,
            kind=entry.kind,
            time_ms=entry.time_ms,
            entry=raw,
            receipt=maker.receipt(index, b"".join([PATH_LEAD + node for node in path])),
            leaf=leaf_hash(raw),
            repeated=True,
        )

    async def root_at(self, size: int) -> bytes:
        """Root of the tree at a size up to the journal's own."""
        if size == self._engine.frontier.size:
            return self._engine.frontier.root()
        return await self._database.read(lambda c: root_of(node_provider(c), size))

    async def segment_end(
        self, *, entries_max: int, above: int | None = None
    ) -> tuple[int, bytes] | None:
        """(size, checkpoint) that ends the next segment, or None when nothing is signed yet.

        `above`: where it begins, if not where the issuer is known to have stopped.
        Segments end where a checkpoint was signed, so that each is covered by its own; a batch
        larger than `entries_max` goes whole.
        """
        signed, first = self._engine.signed, self.acknowledged if above is None else above
        if signed is None:
            return None
        if signed.size - first <= entries_max:
            return signed.size, signed.checkpoint
        found = await self._database.read(
            lambda c: checkpoint_for(c, above=first, at_most=first + entries_max)
        )
        return found or (signed.size, signed.checkpoint)

    async def _refundable(self, leaf: bytes) -> Refundable | None:
        index = await self.find(leaf)
        if index is None:
            return None
        entry = decode_entry((await self.entries(index, 1))[0])
        if not isinstance(entry.body, Payment | Note) or leaf_hash(entry.raw) != leaf:
            return None
        if entry.kind not in (EntryKind.PAY, EntryKind.TRANSFER_IN):
            return None
        order = entry.body.order
        return Refundable(
            payer=order.payer,
            payee=order.payee,
            amount_minor=order.amount_minor,
            time_ms=entry.time_ms,
        )


def node_provider(connection: Connection) -> Provider:
    """Nodes of the tree from the store: leaves from entries, higher ones from every 8th level."""

    def block(level: int, number: int) -> Sequence[bytes]:
        if level == 0:
            return [leaf_hash(raw) for raw in read_entries(connection, number * BLOCK, BLOCK)]
        return read_nodes(connection, level, number * BLOCK, BLOCK)

    return stored_nodes(block)


def root_of(node: Provider, size: int) -> bytes:
    """Root at a size, from perfect subtrees."""
    if size == 0:
        return EMPTY_ROOT
    return join([Node(level, index, node(level, index)) for level, index in cover(0, size)])
