"""The atheris harness runs, from a corpus that it makes of the vectors."""

import os
import subprocess
import sys
from pathlib import Path

HARNESS = Path(__file__).with_name("fuzz_codec.py")
TOP = HARNESS.parents[2]
RUNS = 4_000


def test_the_harness_finds_nothing_in_a_few_thousand_runs(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    done = subprocess.run(
        [
            sys.executable,
            str(HARNESS),
            f"-runs={RUNS}",
            "-max_total_time=20",
            "-max_len=4096",
            "-seed=1",
            f"-artifact_prefix={tmp_path}/",
            str(corpus),
        ],
        cwd=TOP,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr
    assert len(list(corpus.iterdir())) > 100
