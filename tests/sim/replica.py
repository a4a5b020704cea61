"""The issuer beside a gateway: its own context, the same rules on every entry and every verdict.

It holds what the entries add up to as well, worked out from the first one on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from cloud.reconciler.context import Facts, IssuerContext
from tests.sim.naive import Sheet
from tests.support.world import picture
from wallet.protocol import rules
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.context import Context, Refundable
from wallet.protocol.entry import Entry, EntryKind, Note, Payment, Void, decode_entry
from wallet.protocol.ids import JournalId, WalletId
from wallet.protocol.lists import SignedList
from wallet.protocol.merkle import EMPTY_ROOT, Frontier, leaf_hash
from wallet.protocol.refusals import Refusal
from wallet.protocol.replaying import refundable_of
from wallet.protocol.rules import Proposal
from wallet.protocol.snapshot import read_snapshot, write_snapshot
from wallet.protocol.state import Decision, State


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway's rules said of a proposal, as the next entry of a state of this size."""

    proposal: Proposal
    size: int
    now_ms: int
    clock: int
    outcome: Decision | Refusal


class Verdicts:
    """The last word of the gateway's rules on each thing that people ask for."""

    def __init__(self) -> None:
        self.last: dict[bytes, Verdict] = {}

    def decide(
        self, state: State, proposal: Proposal, context: Context, *, now_ms: int, clock: int
    ) -> Decision | Refusal:
        """The rules' own, in their place."""
        outcome = rules.decide(state, proposal, context, now_ms=now_ms, clock=clock)
        name = name_of(proposal)
        if name is not None:
            self.last[name] = Verdict(
                proposal=proposal, size=state.size, now_ms=now_ms, clock=clock, outcome=outcome
            )
        return outcome


def name_of(proposal: Proposal) -> bytes | None:
    """The identity under which a proposal counts once; None of what people do not ask for."""
    if isinstance(proposal, Payment | Note):
        return proposal.order.identity
    return proposal.request.identity if isinstance(proposal, Void) else None


class Beginning(msgspec.Struct, frozen=True):
    """What the issuer holds when a seed begins."""

    snapshot: bytes
    raws: tuple[bytes, ...]
    entries: tuple[Entry, ...]
    leaves: tuple[bytes, ...]
    roots: tuple[bytes, ...]


class Replica:
    """The issuer's side of one journal."""

    def __init__(self, anchor: TrustAnchor, journal: JournalId) -> None:
        self.state = State(journal, 1)
        self.frontier = Frontier()
        self.sheet = Sheet([])
        self.raws: list[bytes] = []
        self.names: dict[bytes, int] = {}
        self.kinds: set[EntryKind] = set()
        self.lists: dict[bytes, SignedList] = {}
        self._refused: dict[int, list[Verdict]] = defaultdict(list)
        self._payments: dict[bytes, Refundable] = {}
        self.roots: dict[int, bytes] = {0: EMPTY_ROOT}
        self._anchor = anchor
        self._context = self._made_context()

    def _made_context(self) -> IssuerContext:
        facts = Facts(payments=self._payments, roots=self.roots, lists=self.lists)
        return IssuerContext(self._anchor, facts, trusted={})

    # ---- a start in the middle ----------------------------------------------------------------
    def beginning(self) -> Beginning:
        """What it holds now."""
        entries = tuple(decode_entry(raw) for raw in self.raws)
        leaves = tuple(leaf_hash(raw) for raw in self.raws)
        roots = tuple(self.roots[size] for size in range(len(self.raws) + 1))
        snapshot = write_snapshot(self.state, self.frontier)
        return Beginning(snapshot, tuple(self.raws), entries, leaves, roots)

    def begin(self, made: Beginning) -> None:
        """Hold what was held."""
        self.state, self.frontier = read_snapshot(made.snapshot)
        self.roots.update(enumerate(made.roots))
        for entry, leaf in zip(made.entries, made.leaves, strict=True):
            self._file(entry, leaf)

    # ---- what it is told ----------------------------------------------------------------------
    def refused(self, verdict: Verdict) -> None:
        """The gateway told somebody no; the issuer must say the same at that place."""
        assert isinstance(verdict.outcome, Refusal)
        self._refused[verdict.size].append(verdict)

    def follow(self, raws: Sequence[bytes]) -> None:
        """Take the entries that are new; those before must be the same for ever."""
        held = len(self.raws)
        assert list(raws[:held]) == self.raws, "an entry that the issuer holds was altered or lost"
        self._judge()
        for raw in raws[held:]:
            entry, leaf = decode_entry(raw), leaf_hash(raw)
            outcome = rules.apply(self.state, entry, self._context)
            assert isinstance(outcome, rules.Accepted), f"the issuer refuses: {outcome}"
            self.frontier, _ = self.frontier.append(leaf)
            self.roots[self.frontier.size] = self.frontier.root()
            self._file(entry, leaf)
            self._judge()
        assert not self._refused, "a refusal on entries that never came to be"

    def _file(self, entry: Entry, leaf: bytes) -> None:
        self.raws.append(entry.raw)
        self.kinds.add(EntryKind(entry.kind))
        self.sheet.take(entry)
        name = name_of(entry.body)
        if name is not None:
            assert name not in self.names, "one identity was applied twice"
            self.names[name] = entry.index
        payment = refundable_of(entry)
        if payment is not None:
            self._payments[leaf] = payment

    def _judge(self) -> None:
        """The refusals that were given at this size."""
        for verdict in self._refused.pop(self.state.size, ()):
            said = rules.decide(
                self.state,
                verdict.proposal,
                self._context,
                now_ms=verdict.now_ms,
                clock=verdict.clock,
            )
            assert said == verdict.outcome, f"the issuer says {said}, we said {verdict.outcome}"

    # ---- what must hold -----------------------------------------------------------------------
    def agree(self, state: State) -> None:
        """The gateway's state, the replica, and what the entries add up to are the same."""
        assert picture(state) == picture(self.state)
        sheet = self.sheet
        assert state.balance_total() == sheet.supply
        taken_out = sheet.defunded + sum(sheet.sent.values())
        assert sheet.supply == sheet.granted + sheet.arrived - taken_out
        for leaf, given_back in sheet.refunds.items():
            assert given_back <= self._payments[leaf].amount_minor, "more than was paid goes back"
        for wallet, purse in sheet.purses.items():
            held = state.wallets[WalletId(wallet)]
            assert (held.settled, held.unsettled) == (purse.settled, purse.unsettled)
            assert held.hop == purse.hop
