"""What must hold when the thirty days are over and everything has arrived.

Money created is 0; every cheat is found, its journal suspended once, and nobody else's; evidence of
a fork convinces who has the root alone; no honest holder is short; gateways and issuer say the same
of every entry; what the issuer bears stays within the bounds of its policy.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from cloud.database import Connection
from cloud.ledger.conservation import Conservation, conservation, discrepancies
from edge.verdicts import read_verdicts
from tests.sim.system.box import Box
from tests.sim.system.issuer import JOURNAL, SUPPLY
from tests.sim.system.people import DAY_MS, Holder
from tests.sim.system.world import GATEWAYS, World
from tests.support.world import picture
from wallet.journal import Mode
from wallet.protocol.fork import verify_fork
from wallet.protocol.ids import journal_text, wallet_text
from wallet.protocol.issued import VerdictState
from wallet.protocol.policy import JournalLimit
from wallet.protocol.refusals import Code
from wallet.protocol.trust import ENDLESS_S

# Long after the last order has expired and the claims window is over.
LATE_MS = 120 * DAY_MS
_STATES = {VerdictState.HELD: "held", VerdictState.PENDING: "pending"}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One row of evidence."""

    journal: bytes
    kind: str
    code: str
    parts: list[bytes]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to: `fraud_minor` was tried beyond what was owned, `borne_minor` lost.

    `lost`: journals that cheated and never came back: nobody can say so, and their claims count.
    """

    cheats: int
    lost: int
    prevented: int
    convicted: int
    fraud_minor: int
    borne_minor: int
    created_minor: int


async def check(world: World) -> Account:
    """All of it."""
    async with world.issuer.database.transaction() as connection:
        await money(connection)
        convicted = await cheats_are_found(world, connection)
        await everybody_agrees(world, connection)
    await recover(world)
    await world.issuer.give_back(now_ms=world.now_ms + LATE_MS)
    async with world.issuer.database.transaction() as connection:
        total = await money(connection)
        # Nothing is on its way for ever, whatever was cheated with.
        assert (total.transit_notes, total.suspense) == (0, 0), total
        await nobody_is_short(world, connection)
        bounded(world, total)
    done = [cheat for cheat in world.cheats if cheat.done]
    return Account(
        cheats=len([cheat for cheat in done if cheat.returns]),
        lost=len([cheat for cheat in done if not cheat.returns]),
        prevented=sum(1 for cheat in world.cheats if cheat.prevented),
        convicted=convicted,
        fraud_minor=sum(cheat.gained for cheat in done),
        borne_minor=borne(total),
        created_minor=total.difference,
    )


async def recover(world: World) -> None:
    """Officers close what was convicted or froze: what its holders have receipts for counts."""
    for cheat in world.cheats:
        if cheat.done or cheat.culprit.journal.mode is not Mode.OPEN:
            made = world.people.tills.get(cheat.culprit.name, [])
            shown = [(each.entry, each.receipt) for each in made]
            await world.issuer.close(cheat.culprit, shown, now_ms=world.now_ms)


async def money(connection: Connection) -> Conservation:
    """Nothing was created: what was issued is somewhere, and no balance was touched."""
    (found,) = await conservation(connection)
    assert (found.difference, found.issued) == (0, SUPPLY), found
    assert await discrepancies(connection) == []
    return found


def borne(total: Conservation) -> int:
    """What cheats cost the issuer: holders have it beyond what was issued, or will have."""
    return -(total.loss + total.suspense + total.transit_notes)


def bounded(world: World, total: Conservation) -> None:
    """It is no more than what was cheated, and that no more than gateways may be exposed to."""
    fraud = sum(cheat.gained for cheat in world.cheats if cheat.done)
    assert borne(total) <= fraud, (borne(total), fraud, total)
    exposure = GATEWAYS * JOURNAL[JournalLimit.EXPOSURE_HARD]
    assert borne(total) <= exposure, total


# ---- cheats -------------------------------------------------------------------------------
async def cheats_are_found(world: World, connection: Connection) -> int:
    """Each culprit is suspended, once, for what it did; nobody else is. Gives how many."""
    rows = await connection.fetch("SELECT journal FROM journal_epoch WHERE state = 'suspended'")
    suspended = {_name(world, row["journal"]) for row in rows}
    done = {cheat.culprit.name: cheat for cheat in world.cheats if cheat.done and cheat.returns}
    assert suspended == set(done), f"suspended {sorted(suspended)}, cheated {sorted(done)}"
    for found in await evidence(connection):
        cheat = done[_name(world, found.journal)]
        assert found.kind in cheat.kinds, (cheat.name, found.kind, found.code)
        if found.kind == "fork" or len(found.parts) == 1:
            proof = verify_fork(found.parts[0], root=world.issuer.anchor, grace_s=ENDLESS_S)
            assert proof.journal == found.journal
    told = await connection.fetch("SELECT body FROM outbox WHERE topic = 'journal.suspended'")
    times = Counter(msgspec.json.decode(row["body"])["journal"] for row in told)
    wanted = {journal_text(cheat.culprit.id): 1 for cheat in done.values()}
    assert times == wanted, "each journal is suspended once"
    return len(suspended)


async def evidence(connection: Connection) -> list[Found]:
    """All of it, the oldest first."""
    rows = await connection.fetch(
        "SELECT journal, kind, code, parts FROM journal_evidence"
        " JOIN journal_epoch USING (epoch_id) ORDER BY evidence_id"
    )
    return [Found(**dict(row)) for row in rows]


def _name(world: World, journal: bytes) -> str:
    return next(box.name for box in world.boxes if box.id == journal)


# ---- agreement ----------------------------------------------------------------------------
async def everybody_agrees(world: World, connection: Connection) -> None:
    """Of an honest journal the issuer holds every entry, the same state, and the same verdicts."""
    cheated = {cheat.culprit.name for cheat in world.cheats if cheat.done or cheat.prevented}
    for box in world.boxes:
        if box.name not in cheated:
            await _agrees(world, connection, box)


async def _agrees(world: World, connection: Connection, box: Box) -> None:
    state = box.journal.state
    row = await connection.fetchrow(
        "SELECT epoch_id, state, size, applied FROM journal_epoch WHERE journal = $1", box.id
    )
    told = (row["state"], row["size"], row["applied"])
    assert told == ("open", state.size, state.size), (box.name, told, box.journal.mode)
    replica = await world.issuer.replica_of(connection, box)
    assert picture(replica) == picture(state), box.name
    rows = await connection.fetch(
        "SELECT index, state, code FROM verdict WHERE epoch_id = $1 AND state <> 'settled'"
        " ORDER BY index",
        row["epoch_id"],
    )
    said = [(row["index"], row["state"], row["code"]) for row in rows]
    heard = await box.database.read(read_verdicts)
    assert [(v.index, _STATES[VerdictState(v.state)], v.code) for v in heard] == said, box.name
    # Nothing of an honest journal is rejected: notes of a journal that cheated may wait, for it or
    # for officers.
    waiting = {("pending", Code.PARENT_MISSING), ("held", Code.JOURNAL_REVOKED)}
    assert waiting >= {each[1:] for each in said}, (box.name, said)


# ---- holders ------------------------------------------------------------------------------
async def nobody_is_short(world: World, connection: Connection) -> None:
    """Every honest holder owns what the receipts say, online and in journals together."""
    short = {}
    for holder in world.people.holders:
        if holder.honest:
            owned = await _owned(connection, holder)
            missing = _expected(world, holder) - owned
            if missing > 0:
                short[holder.name] = missing
    assert short == {}, f"short: {short}"


async def _owned(connection: Connection, holder: Holder) -> int:
    text = wallet_text(holder.id)
    found: int = await connection.fetchval(
        "SELECT coalesce(sum(balance), 0)::bigint FROM ledger_account"
        " WHERE name = $1 OR name LIKE $2",
        *(f"online/{text}", f"offline/%/{text}"),
    )
    return found


def _expected(world: World, holder: Holder) -> int:
    """By receipts; a note that nobody redeemed has come back by now."""
    returned = sum(
        note.amount for note in world.people.notes if note.payer is holder and not note.redeemed
    )
    return holder.expected + returned
