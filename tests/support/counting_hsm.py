"""A SoftHSM2 token with a monotonic counter, which a module of ours puts in front of it."""

import subprocess
from pathlib import Path

from tests.support.softhsm import SoftHsm

SOURCE = Path(__file__).with_name("counting_module.c")
COMPILE_TIMEOUT_S = 60


class CountingHsm(SoftHsm):
    """A folder with a token and its counter: `put` says what it shows and how it moves."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file = folder / "shown"
        self.variables["COUNTING_MODULE"] = str(self.module_path)
        self.variables["COUNTING_FILE"] = str(self._file)
        self._threads = folder / "threads"
        self.variables["COUNTING_THREADS"] = str(self._threads)
        self.module_path = _compiled(folder)
        self.put(1000)

    def put(self, shown: int, *, step: int = 1, reset: bool = False) -> None:
        """Let it show this before the next reading."""
        self._file.write_text(f"{shown} {step} {int(reset)}\n")

    @property
    def shown(self) -> int:
        """What it showed last."""
        return int(self._file.read_text().split()[0])

    @property
    def threads(self) -> set[int]:
        """Every thread that called the module."""
        return set(map(int, self._threads.read_text().split()))

    def take_counter(self) -> None:
        """Let the token have none."""
        self._file.unlink()


def _compiled(folder: Path) -> Path:
    module = folder / "libcounting.so"
    command = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(module), str(SOURCE)]
    subprocess.run([*command, "-ldl"], check=True, timeout=COMPILE_TIMEOUT_S)
    return module
