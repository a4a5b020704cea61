"""`python -m bench [--only NAME]`: run the benchmarks, print the table, write results.json."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.figures import Figure, table

NAMES = ("engine", "drivers", "https", "reconciler", "stream", "hot", "startup", "peers", "fraud")
# Minutes long: by their names alone.
LONG = ("growth",)
RESULTS = Path(__file__).with_name("results.json")
TIMEOUT_S = 1_800


def main() -> int:
    """Each benchmark in a process of its own, so that none disturbs another's memory or core."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", choices=NAMES + LONG, help="run one benchmark")
    parser.add_argument("--child", choices=NAMES + LONG, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        figures = importlib.import_module(f"bench.{options.child}").run()
        sys.stdout.buffer.write(msgspec.json.encode(figures))
        return 0
    figures, failed = [], []
    for name in (options.only,) if options.only else NAMES:
        print(f"bench: {name} ...", file=sys.stderr, flush=True)
        made = _run(name)
        figures += made
        failed += [] if made else [name]
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    print(table(figures))
    print(
        f"\nwritten to {RESULTS.relative_to(Path.cwd())}"
        if RESULTS.is_relative_to(Path.cwd())
        else ""
    )
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str) -> list[Figure]:
    command = [sys.executable, "-m", "bench", "--child", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        return []
    return msgspec.json.decode(done.stdout, type=list[Figure])


if __name__ == "__main__":
    sys.exit(main())
