"""What a rule reports, and how source files reach the rules."""

import ast
import dataclasses
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("hsm", "wallet", "sync", "edge", "cloud")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One place that breaks a rule."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A text file of the project; `path` is relative to its top, with forward slashes."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text, self.path)

    @property
    def is_test(self) -> bool:
        """Whether the file belongs to the tests rather than to what is shipped or measured."""
        return self.path.startswith("tests/")

    def within(self, *folders: str) -> bool:
        """Whether the file is one of these modules, or lies in one of these folders."""
        return any(self.path == f"{f}.py" or self.path.startswith(f"{f}/") for f in folders)

    def finding(self, node: ast.AST, what: str) -> Finding:
        """Report a node of this file."""
        return Finding(path=self.path, line=getattr(node, "lineno", 1), what=what)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Each line with its number, from 1."""
        return enumerate(self.text.splitlines(), start=1)


def project_paths() -> list[str]:
    """Every file that git tracks or would add."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=30)
    paths = {path for path in listed.stdout.decode().split("\0") if path}
    return sorted(path for path in paths if (ROOT / path).is_file())


def read_sources() -> list[Source]:
    """Every text file of the project; what is not UTF-8 is data and has no rules here."""
    found = []
    for path in project_paths():
        try:
            found.append(Source(path=path, text=(ROOT / path).read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    return found
