"""`cbdc-cloud sync import` and `export`: a courier's folder in, sealed answers out."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config
from cloud.errors import CloudError
from cloud.http.carried import PATH, UNASKED_PATH
from cloud.http.octets import from_text
from sync.courier import (
    SHORT_BYTES,
    Fate,
    Kind,
    Label,
    Outcome,
    explained,
    find_files,
    put_file,
    read_label,
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
    sync = verbs.add_parser("sync", help="what couriers carry from and to gateways")
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
    made = actions.add_parser(
        "export",
        help="write what gateways may lack, unasked",
        description="Writes for one gateway, or for each, a sealed file with the lists, the policy,"
        " keys, certificates, the newest settlement and signed grants: `cbdc-edge sync import`"
        " takes it. It acknowledges nothing, and what the gateway holds already changes nothing.",
    )
    made.add_argument("stick", type=Path, metavar="DIR")
    made.add_argument("--journal", metavar="JNL", help="for this gateway alone")
    made.add_argument("--officer-file", type=Path, required=True, help="the token of any officer")
    made.set_defaults(run=export_answers)


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


async def export_answers(config: Config, options: argparse.Namespace) -> int:
    """One file for each gateway; one of an earlier export is replaced."""
    api = Api(config, options.officer_file)
    try:
        find_files(options.stick, Kind.ANSWER)
        found = (await api.get(UNASKED_PATH, port="gateway_port"))["gateways"]
        named = [one for one in found if options.journal in (None, one["journal"])]
        if not named:
            raise CloudError("gateway-unknown", options.journal or "no gateway is enrolled")
        for one in named:
            made = await api.get(f"{UNASKED_PATH}?journal={one['journal']}", port="gateway_port")
            label, sealed = _answer_label({"first": 0, "end": 0, **made})
            path = await asyncio.to_thread(_replace, options.stick, label, sealed)
            print(f"{path.name}: for {one['name']}, {len(sealed)} bytes")
    except CourierError as error:
        raise CloudError(str(error.code), f"{error.detail}; what was written before is good") from (
            error
        )
    return WELL


def _replace(stick: Path, label: Label, sealed: bytes) -> Path:
    """Write it, and then remove those of earlier exports. Raises: CourierError."""
    path = put_file(stick, label, sealed)
    for other in find_files(stick, Kind.ANSWER):
        before = read_label(other.name)
        if other != path and before is not None and _place(before) == _place(label):
            other.unlink(missing_ok=True)
    return path


def _place(label: Label) -> tuple[bytes, int, bytes]:
    return label.journal, label.epoch, label.exchange[:SHORT_BYTES]


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
