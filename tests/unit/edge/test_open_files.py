"""The daemon may open as many files as it lets connections in, or says that it may not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from edge.config import Config
from edge.log import start_logging
from edge.open_files import allow_files
start_logging("info")
allow_files(Config())
print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))
"""
WANTED = 2_048 + 3 * 64 + 256


@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "told"),
    [(128, 4_096, WANTED, False), (3_000, 4_096, 3_000, False), (128, 1_024, 1_024, True)],
)
def test_the_process_may_open_as_many_files_as_it_lets_connections_in(
    soft: int, hard: int, allowed: int, told: bool
) -> None:
    program = PROGRAM.format(soft=soft, hard=hard)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [allowed, hard]
    assert ("files.few" in done.stderr) == told
