"""A process that locks files, as a hung client of theirs would.

Run as a program it locks every file below a folder, says so in one line, and holds the locks until
its standard input ends.
"""

import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[2]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold locks of another process on every file below the folder."""
    command = [sys.executable, "-m", "tests.support.file_locks", str(folder)]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            holder.stdin.close()


def main(folder: Path) -> None:
    """Lock, say so, wait."""
    files = [path.open("r+b") for path in folder.rglob("*") if path.is_file()]
    for file in files:
        fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
