"""How a journal begins: the first entry of an epoch, and the engine over what a store holds."""

from __future__ import annotations

from hsm.api import Token, begin_count
from wallet.clock import Clock, FlooredClock
from wallet.faults import Faults, Point
from wallet.journal.engine import Engine
from wallet.journal.head import Head, own_certificate, start_window, store_chain
from wallet.journal.names import Names
from wallet.journal.recovery import Recovered
from wallet.journal.trust import TrustContext
from wallet.protocol.certificates import Chain, TrustAnchor
from wallet.protocol.entry import Clock as Certainty
from wallet.protocol.entry import Open
from wallet.protocol.refusals import ProtocolError, Refusal
from wallet.protocol.rules import decide, entry_bytes
from wallet.protocol.state import State
from wallet.store.connection import Connection
from wallet.store.database import Database
from wallet.store.journal import append_entries, entry_count


async def write_opening(
    *,
    database: Database,
    token: Token,
    clock: Clock,
    anchor: TrustAnchor,
    chain: Chain,
    opening: Open,
    faults: Faults,
) -> None:
    """Make the store a journal of this epoch, in one transaction.

    Raises: ProtocolError when the issuer's objects do not hold, OutOfOrder when the store holds a
    journal already, StoreError, HsmError.
    """
    own_certificate(chain, anchor, token.signer, journal=opening.journal, epoch=opening.epoch)
    entry = _first_entry(opening, anchor, now_ms=clock.now_ms())
    if not await database.read(entry_count):
        # Where a journal is, its count began with it.
        await begin_count(token.counter)
    counter = await token.counter.read()

    def store(connection: Connection) -> None:
        append_entries(connection, 0, [entry])
        faults.at(Point.OPENING_WRITTEN)
        store_chain(connection, chain)
        faults.at(Point.CHAIN_WRITTEN)
        start_window(connection, counter, driver=token.counter.driver)
        faults.at(Point.WINDOW_WRITTEN)

    faults.at(Point.BEFORE_OPENING)
    await database.write(store)
    faults.at(Point.OPENED)


def engine_of(
    database: Database,
    token: Token,
    clock: Clock,
    anchor: TrustAnchor,
    found: Recovered,
    faults: Faults,
) -> Engine:
    """The engine over what a store holds. Raises: ProtocolError `certificate-invalid`."""
    state = found.state
    return Engine(
        database=database,
        state=state,
        frontier=found.frontier,
        names=Names(found.recent, faults=faults),
        head=Head(
            signer=token.signer,
            counter=token.counter,
            clock=clock,
            anchor=anchor,
            journal=state.journal,
            epoch=state.epoch,
            chain=found.chain,
            window=found.window,
        ),
        signed=None,
        stored_size=found.checkpoint_size,
        clock=FlooredClock(clock, floor_ms=max(state.time_ms, state.settled_ms)),
        context=TrustContext(anchor),
        faults=faults,
    )


def _first_entry(opening: Open, anchor: TrustAnchor, *, now_ms: int) -> bytes:
    state = State(opening.journal, opening.epoch)
    decision = decide(state, opening, TrustContext(anchor), now_ms=now_ms, clock=Certainty.SURE)
    if isinstance(decision, Refusal):
        raise ProtocolError(decision.code, decision.detail)
    return entry_bytes(state, decision, time_ms=now_ms, clock=Certainty.SURE)
