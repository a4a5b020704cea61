"""Where the vector files are."""

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
PROTOCOL = DATA / "protocol"
WYCHEPROOF = DATA / "wycheproof"
MERKLE = DATA / "rfc6962-merkle" / "testdata"


def load(path: Path) -> Any:
    """A file of vectors."""
    return json.loads(path.read_bytes())


def wycheproof(name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(group, test) of every test in a file of Wycheproof."""
    groups = load(WYCHEPROOF / f"{name}_test.json")["testGroups"]
    return [(group, test) for group in groups for test in group["tests"]]
