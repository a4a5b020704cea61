"""What `cbdc-cloud gateway audit` does: gateways' audit logs as they told them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from cloud.client import Api
from cloud.config import Config
from cloud.http.octets import from_text
from hsm.files import create_durably, make_folder

WELL, DEGRADED = 0, 3


def add_trails(actions: Any) -> None:
    """Add the command to the parser of `gateway`."""
    shown = actions.add_parser(
        "audit",
        help="gateways' audit logs as they told them; says which contradict themselves",
        description="Prints the head that each gateway told last: `cbdc-edge audit --head` on the"
        " gateway holds its log against it. Exit code 3 where reports contradict.",
    )
    shown.add_argument("--json", action="store_true")
    shown.add_argument(
        "--evidence", type=Path, metavar="DIR", help="write both signed reports of each finding"
    )
    shown.add_argument("--officer-file", type=Path, required=True, help="the officer's token")
    shown.set_defaults(run=show_trails)


async def show_trails(config: Config, options: argparse.Namespace) -> int:
    """All logs, and what was found."""
    api = Api(config, options.officer_file)
    found = await api.get("/v1/issuer/trails")
    if options.json:
        print(json.dumps(found, indent=2))
    for line in [] if options.json else found["trails"]:
        _print_trail(line)
    findings = [finding for line in found["trails"] for finding in line["findings"]]
    if options.evidence is not None:
        make_folder(options.evidence)
        for finding in findings:
            await _write_reports(api, options.evidence, finding["finding"])
    return DEGRADED if findings else WELL


def _print_trail(line: dict[str, Any]) -> None:
    state = "contradicts itself" if line["findings"] else "in order"
    print(f"{line['journal']}  {line['name']}  epoch {line['epoch']}  {state}")
    print(f"  told last  {line['head']}")
    for finding in line["findings"]:
        print(f"  {finding['finding']}  {finding['code']}: {finding['detail']}")


async def _write_reports(api: Api, folder: Path, finding: int) -> None:
    reports = await api.get(f"/v1/issuer/trails/{finding}")
    for name in ("earlier", "later"):
        path = folder / f"finding-{finding}-{name}.cose"
        # A folder that has them already: evidence does not change.
        if not path.exists():
            create_durably(path, from_text(reports[name]))
