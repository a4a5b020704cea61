"""`sync export` and `sync import`: reports onto a stick, answers from one."""

from __future__ import annotations

import sys
from pathlib import Path

from edge.commands.common import (
    DEGRADED,
    FAILED,
    WELL,
    Arguments,
    Subparsers,
    await_it,
    daemon,
)
from edge.config import Config
from edge.errors import CourierFailed
from edge.http.local_courier import ExportedAnswer, TakenAnswer, WrittenAnswer
from edge.http.octets import to_text
from sync.courier import Kind, Outcome, explained, find_files, put_file, read_label, read_sealed
from sync.errors import Code, CourierError
from wallet.protocol.refusals import ProtocolError

# More than any policy lets a branch write without the issuer; each is one segment.
REPORTS_MAX = 1_000


class CourierArguments(Arguments):
    """What both take."""

    stick: Path
    further: bool


def add_courier(what: Subparsers) -> None:
    """Add both to the parser of `sync`."""
    parser = what.add_parser(
        "export",
        help="write sealed reports into a folder, for a courier",
        description="Writes what the issuer is not known to hold, sealed for the issuer alone, in "
        "one file a segment. A stick that is full says so; the next one goes on with --further.",
    )
    parser.add_argument("stick", type=Path, metavar="DIR", help="a folder, such as a USB stick's")
    parser.add_argument(
        "--further", action="store_true", help="go on where the sticks end that were written"
    )
    parser.set_defaults(run=_export)
    parser = what.add_parser(
        "import",
        help="take the issuer's sealed answers from a folder",
        description="Takes every answer that it finds, in any order and as often as it comes, and "
        "says of each file what it was.",
    )
    parser.add_argument("stick", type=Path, metavar="DIR", help="a folder, such as a USB stick's")
    parser.set_defaults(run=_import)


# ---- export -------------------------------------------------------------------------------
def _export(parsed: CourierArguments, config: Config) -> int:
    try:
        find_files(parsed.stick, Kind.REPORT)
        return await_it(_write(parsed, config))
    except CourierError as error:
        raise CourierFailed(f"{error}; what was written before is good") from error


async def _write(parsed: CourierArguments, config: Config) -> int:
    local, first = daemon(config), None
    for _ in range(REPORTS_MAX):
        body = {"further": parsed.further} if first is None else {"first": first}
        made = await local.call("POST", "/courier/reports", ExportedAnswer, body=body)
        label = read_label(made.name)
        if label is None:
            raise CourierFailed(f"the daemon's report has a name that is none: {made.name}")
        put_file(parsed.stick, label, made.sealed.raw)
        # Only now may it stand for its entries.
        path = f"/courier/reports/{made.exchange}/written"
        done = await local.call("POST", path, WrittenAnswer, body={})
        print(f"{made.name}: entries {made.first} to {made.end}")
        if made.end >= made.size or made.end == made.first:
            return _say_reached(done)
        first = made.end
    print(f"{REPORTS_MAX} files were written; go on with --further", file=sys.stderr)
    return DEGRADED


def _say_reached(done: WrittenAnswer) -> int:
    if done.reached < done.size:
        print(f"sticks reach up to entry {done.reached} of {done.size}: export once more")
        return DEGRADED
    print(f"all {done.size} entries are held by the issuer or lie on sticks, sealed")
    return WELL


# ---- import -------------------------------------------------------------------------------
def _import(parsed: CourierArguments, config: Config) -> int:
    try:
        files = find_files(parsed.stick, Kind.ANSWER)
    except CourierError as error:
        raise CourierFailed(str(error)) from error
    if not files:
        raise CourierFailed(f"{Code.NO_FILES}: {parsed.stick}: no answer of the issuer lies there")
    outcomes = [_take(path, config) for path in files]
    if all(outcome.well for outcome in outcomes):
        return WELL
    return DEGRADED if any(outcome.well for outcome in outcomes) else FAILED


def _take(path: Path, config: Config) -> Outcome:
    try:
        sealed = to_text(read_sealed(path))
    except (CourierError, ProtocolError) as error:
        outcome = explained(error, Kind.ANSWER)
    else:
        call = daemon(config).call("POST", "/courier/answers", TakenAnswer, body={"sealed": sealed})
        taken = await_it(call)
        outcome = Outcome(code=taken.code, sentence=taken.sentence)
    print(f"{path.name}: {outcome.code}: {outcome.sentence}")
    return outcome
