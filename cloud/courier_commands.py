"""`cbdc-cloud sync import`: a courier's folder in, sealed answers out."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config
from cloud.errors import CloudError
from cloud.http.carried import PATH
from cloud.http.octets import from_text
from sync.courier import (
    Fate,
    Kind,
    Label,
    Outcome,
    explained,
    find_files,
    put_file,
    read_sealed,
)
from sync.errors import Code, CourierError
from wallet.protocol.ids import parse_journal
from wallet.protocol.refusals import Code as Refused
from wallet.protocol.refusals import ProtocolError

WELL, FAILED, DEGRADED = 0, 1, 3
_REFUSED = {code.value: code for code in Refused}


def add_sync(verbs: Any) -> None:
    """Add the command to the parser."""
    sync = verbs.add_parser("sync", help="reports of gateways that came by courier")
    actions = sync.add_subparsers(dest="action", required=True, metavar="ACTION")
    taken = actions.add_parser(
        "import",
        help="take reports from folders or sticks, and write the answers there",
        description="Takes every report that it finds, in the order in which they follow each"
        " other, whatever stick they lie on; says of each file what it was. The sealed answer to"
        " each lies beside it afterwards: `cbdc-edge sync import` takes it.",
    )
    taken.add_argument("sticks", type=Path, nargs="+", metavar="DIR")
    taken.add_argument(
        "--answers", type=Path, metavar="DIR", help="write the answers here, and not beside"
    )
    taken.add_argument("--officer-file", type=Path, required=True, help="the token of any officer")
    taken.set_defaults(run=import_reports)


class _File:
    """One file, and what became of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcome: Outcome | None = None


async def import_reports(config: Config, options: argparse.Namespace) -> int:
    """Hand in all that lies there, again and again while that helps."""
    api = Api(config, options.officer_file)
    try:
        found = [path for stick in options.sticks for path in find_files(stick, Kind.REPORT)]
    except CourierError as error:
        raise CloudError(str(error.code), error.detail) from error
    if not found:
        raise CloudError(Code.NO_FILES, "no report of a gateway lies there")
    # Names sort by gateway, epoch and size: one pass is enough, but where files were renamed.
    waiting = files = [_File(path) for path in sorted(found, key=lambda path: path.name)]
    while waiting:
        for file in waiting:
            file.outcome = await _take(api, file.path, options.answers or file.path.parent)
        early = [file for file in waiting if _code(file) == Fate.EARLY]
        # Whatever came may have been what the others waited for.
        waiting = early if len(early) < len(waiting) else []
    return _tell(files)


async def _take(api: Api, path: Path, answers: Path) -> Outcome:
    try:
        content = await asyncio.to_thread(read_sealed, path)
        made = await api.post_report(PATH, content)
        label, sealed = _answer_label(made)
        await asyncio.to_thread(put_file, answers, label, sealed)
    except (CourierError, ProtocolError) as error:
        return explained(error, Kind.REPORT)
    except CloudError as error:
        if error.code in _REFUSED:
            return explained(ProtocolError(_REFUSED[error.code], error.detail), Kind.REPORT)
        if error.code != "gateway-unknown":
            raise
        return Outcome(code=error.code, sentence="its gateway never enrolled here")
    return Outcome(code=made["code"], sentence=made["sentence"])


def _answer_label(made: dict[str, Any]) -> tuple[Label, bytes]:
    sealed = from_text(made["answer"])
    label = Label(
        kind=Kind.ANSWER,
        journal=parse_journal(made["journal"]),
        epoch=made["epoch"],
        first=made["first"],
        end=made["end"],
        exchange=bytes.fromhex(made["exchange"]),
        size_bytes=len(sealed),
    )
    return label, sealed


def _code(file: _File) -> str:
    return "" if file.outcome is None else file.outcome.code


def _tell(files: list[_File]) -> int:
    outcomes = []
    for file in files:
        if file.outcome is not None:
            print(f"{file.path.name}: {file.outcome.code}: {file.outcome.sentence}")
            outcomes.append(file.outcome)
    if all(outcome.well for outcome in outcomes):
        return WELL
    return DEGRADED if any(outcome.well for outcome in outcomes) else FAILED
