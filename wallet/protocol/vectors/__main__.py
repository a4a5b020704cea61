"""Check vector files; end with `N passed, M failed`, and 1 when something failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wallet.protocol.vectors import evidence, exchanges, identifiers, journals, orders, trees
from wallet.protocol.vectors.report import Report

_FORMS: list[tuple[frozenset[str], Callable[[dict[str, Any], Report], None]]] = [
    (journals.MEMBERS, journals.check),
    (identifiers.MEMBERS, identifiers.check),
    (orders.MEMBERS, orders.check),
    (exchanges.MEMBERS, exchanges.check),
    (evidence.MEMBERS, evidence.check),
    (trees.MEMBERS, trees.check),
]


def main(names: list[str]) -> int:
    """Check the files of these names. Returns the exit code."""
    if not names:
        print("usage: python -m wallet.protocol.vectors FILE...", file=sys.stderr)
        return 2
    report = Report(_print)
    for name in names:
        report.file = Path(name).name
        with report.frame("file", name) as case:
            for problem in _check(Path(name), report):
                case.fail(problem)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


def _print(line: str) -> None:
    """A file may hold text that no terminal can show."""
    print(line.encode("ascii", "backslashreplace").decode())


def _check(path: Path, report: Report) -> list[str]:
    """Check one file. Returns what is wrong with the file itself."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return [f"cannot be read: {error}"]
    if not isinstance(document, dict):
        return ["no object"]
    for members, check in _FORMS:
        if members & document.keys():
            before = report.passed + report.failed
            check(document, report)
            return [] if report.passed + report.failed > before else ["no cases"]
    return ["no vectors that are known here"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
