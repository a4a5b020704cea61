"""Frauds that succeed, beside the four cases of the public simulator sjure/CBDC-offline-sim.

The peer's figures are what its revision 01d6ad8 (github.com/sjure/CBDC-offline-sim, MIT licence)
reports when it is run with the parameters of its own `run_protocol.bash`, its log switched off:
seed 1, 50 users of whom a tenth cheat, at most 1,000 a payment, an intermediary that fails every
fourth tick and is back after fifty on average. Its runs differ at one seed, so they are medians of
three, November 2026; in all that were made 149 to 155, 20 to 50, 2 to 12 and 5 to 9 attempts
succeeded. Its look-up of what a user has seen, which is quadratic in the payments, was replaced by
a set for these runs: the figures are those of its rules, and not of its run time. Ours come from
the run itself: `tests.sim.system.fraud` makes as many attempts on this system.

A fraud of the peer's succeeds when its payee takes it. Here a payee's gateway takes one, too, as
long as it cannot know; what counts is what goes beyond the bound that the policy sets to that, and
whether all of it is found and attributed. Payees lose nothing: the loss account pays them, and no
value appears, where the peer's intermediary refunds what it has detected with new money.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import msgspec

from bench.figures import Figure, figure
from cloud.database import Database
from tests.sim.system.fraud import Case
from tests.sim.system.fraud import run as run_case
from tests.support.postgres import CONFIG, Server, roomy_memory

SEED = 1


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One case of the peer's. `detected`: of those that succeeded, by the end of its run."""

    name: str
    attempts: int = 159
    succeeded: int
    detected: int
    created: int


PEERS = (
    Peer(name="no protection", succeeded=152, detected=72, created=72_000),
    Peer(name="ban list", succeeded=44, detected=30, created=30_000),
    Peer(name="payee validates", succeeded=3, detected=0, created=0),
    Peer(name="gossip", succeeded=8, detected=0, created=0),
)


def run() -> list[Figure]:
    """Our row beside each of the peer's."""
    case = _measured()
    rows = [_succeeded(case, peer) for peer in PEERS]
    rows += [_detected(case, peer) for peer in PEERS]
    rows.append(
        figure(
            "  value created by them",
            case.created_minor,
            "minor",
            beside="CBDC-offline-sim, no protection",
            beside_value=PEERS[0].created,
            goal="0",
        )
    )
    rows.append(
        figure(
            "  taken by payees within the policy's bound, and borne by the issuer",
            case.accepted,
            "frauds",
            beside="attempts",
            beside_value=case.attempts,
        )
    )
    return rows


def _succeeded(case: Case, peer: Peer) -> Figure:
    return figure(
        f"frauds of {case.attempts} that succeed beyond the policy's bound",
        case.beyond,
        "frauds",
        beside=f"CBDC-offline-sim, {peer.name}: of {peer.attempts}",
        beside_value=peer.succeeded,
        goal="0",
    )


def _detected(case: Case, peer: Peer) -> Figure:
    return figure(
        "  of those that a payee took, found and attributed",
        100 * case.detected / max(1, case.accepted),
        "%",
        beside=f"CBDC-offline-sim, {peer.name}",
        beside_value=100 * peer.detected / peer.succeeded,
        goal="100",
    )


def _measured() -> Case:
    folder = Path(tempfile.mkdtemp(prefix="cbdc-bench-", dir=roomy_memory()))
    server = Server(folder / "postgres")
    try:
        return asyncio.run(_lived(server, folder / "world"))
    finally:
        server.stop()
        shutil.rmtree(folder)


async def _lived(server: Server, folder: Path) -> Case:
    database = await Database.connect(server.dsn("template_cbdc"), config=CONFIG)
    try:
        return await run_case(SEED, database, folder)
    finally:
        await database.close()
