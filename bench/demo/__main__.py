"""`python -m bench.demo`: the main job on real input, told scene by scene."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from bench.demo.story import Story

FOLDER = Path(".build/demo")
CUSTOMERS = 160


def main() -> int:
    """Run the story; 0 when the closing account adds up to the cent."""
    parser = argparse.ArgumentParser(prog="bench.demo", description=__doc__)
    parser.add_argument(
        "--customers", type=int, default=CUSTOMERS, help="whose purchases to replay"
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where it all happens")
    options = parser.parse_args()
    story = Story(options.folder.absolute(), options.customers)
    story.clean()
    same = asyncio.run(story.tell())
    print("\nTime:")
    for title, seconds in story.times:
        print(f"   {seconds:6.1f} s  {title}")
    print(f"\nAll of it is still in {options.folder}. Try by hand:")
    north = story.gateways[0]
    for program, secret in ((story.cloud, ""), (north, "CBDC_EDGE_PASSPHRASE=demo ")):
        name = "cbdc-cloud" if program is story.cloud else "cbdc-edge"
        place = options.folder / program.folder.name
        print(f"   {secret}.venv/bin/{name} --folder {place} {' '.join(program.options)} run &")
    print(f"   .venv/bin/cbdc-edge --folder {options.folder}/north status")
    print(f"   .venv/bin/cbdc-cloud --folder {options.folder}/cloud status")
    print(
        f"   .venv/bin/cbdc-pos verify {options.folder}/receipts/*.json"
        f" --root {options.folder}/cloud/root.der"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
