"""No core, nobody's look into our memory, and no page on a swap disk, as far as the system lets."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hsm.process import Hygiene

ROOT = Path(__file__).parents[3]
CRASHES = [signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT]
GENEROUS = "import resource; hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
GENEROUS += "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\n"


def crash(folder: Path, number: signal.Signals, *, first: str) -> tuple[bool, list[Path]]:
    """A child that does something first and then crashes: whether the kernel made a core of it."""
    code = GENEROUS + first + f"\nimport os, signal; os.kill(os.getpid(), {int(number)})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment)
    _, status = os.waitpid(child.pid, 0)
    child.returncode = 0
    assert os.WTERMSIG(status) == number
    return os.WCOREDUMP(status), list(folder.iterdir())


@pytest.mark.parametrize("number", CRASHES)
def test_a_crash_leaves_no_core_under_a_generous_limit(
    tmp_path: Path, number: signal.Signals
) -> None:
    done = "from hsm.process import forbid_cores; forbid_cores()"
    assert crash(tmp_path, number, first=done) == (False, [])
    # Raised again from outside, it is still nobody's to look into.
    if os.geteuid() == 0:
        assert crash(tmp_path, number, first=done + "\n" + GENEROUS) == (False, [])
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        # Else the test would show nothing: without it there is a core.
        assert crash(tmp_path, number, first="pass")[0]


def told(code: str) -> Hygiene:
    """What a child has in force after it did something."""
    code += "\nimport msgspec; from hsm.process import hygiene"
    code += "\nprint(msgspec.json.encode(hygiene()).decode())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    return msgspec.json.decode(done.stdout, type=Hygiene)


def test_hygiene_is_what_the_kernel_tells() -> None:
    before = told(GENEROUS)
    assert (before.dumpable, before.locked) == (True, "keys")
    assert before.cores is (resource.getrlimit(resource.RLIMIT_CORE)[1] != 0)
    after = told("from hsm.process import forbid_cores; forbid_cores()")
    assert (after.cores, after.dumpable) == (False, False)


# Without the right to lock memory beyond a limit, whoever runs the test.
DROP = """
import ctypes, os, resource
from hsm.memory import Secret
from hsm.process import hygiene, lock_memory
import msgspec
resource.setrlimit(resource.RLIMIT_MEMLOCK, (LIMIT, LIMIT))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
assert not lock_memory()
a = Secret(b"a" * 32)
"""


def test_all_memory_is_locked_where_the_system_lets_and_the_keys_alone_where_not() -> None:
    assert told(DROP.replace("(LIMIT, LIMIT)", "(262144, 262144)")).locked == "keys"
    assert told(DROP.replace("(LIMIT, LIMIT)", "(0, 0)")).locked == "nothing"
    lock = "from hsm.process import lock_memory; assert lock_memory()"
    if os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] < 0:
        assert told(lock).locked == "all"


def test_a_variable_that_was_forgotten_is_gone_from_what_proc_shows() -> None:
    code = (
        "import os; from hsm.process import forget_variable\n"
        "from pathlib import Path\n"
        "shown = lambda: b'correct horse' in Path('/proc/self/environ').read_bytes()\n"
        "before = shown(); forget_variable('PASS'); forget_variable('NONE')\n"
        "print(before, shown(), os.environ.get('PASS'))"
    )
    environment = {**os.environ, "PASS": "correct horse"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment,
    )
    assert done.stdout.split() == ["True", "False", "None"], done.stderr
