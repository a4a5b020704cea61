"""What passed and what failed: one count a case, however many checks it has."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

from wallet.protocol.refusals import InvariantBroken, ProtocolError

# What a case that is written wrongly, or code that is, may raise: a failed case, no stack trace.
BROKEN = (
    ProtocolError,
    InvariantBroken,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
_SHOWN_MAX = 200


class Case:
    """One case: collects what is wrong with it."""

    def __init__(self, report: Report, name: str, *, frame: bool = False) -> None:
        self._report = report
        self._name = name
        self._frame = frame
        self._problems: list[str] = []

    def __enter__(self) -> Case:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> bool:
        broken = isinstance(error, BROKEN)
        if broken:
            self.fail(f"{type(error).__name__}: {error}")
        if self._problems or not self._frame:
            self._report.count(self._name, self._problems)
        return broken

    def fail(self, problem: str) -> None:
        """Something is wrong with this case."""
        self._problems.append(problem)

    def equal(self, what: str, got: Any, want: Any) -> None:
        """Bytes are compared with hex, all else with what the file says."""
        if isinstance(got, bytes):
            got = got.hex()
        if isinstance(want, bytes):
            want = want.hex()
        if got != want:
            self.fail(f"{what}: got {_short(got)}, want {_short(want)}")

    def refused(self, given: dict[str, Any], call: Callable[..., object], *arguments: Any) -> None:
        """`call` must raise one of the codes that the case names, at a step that it names."""
        try:
            call(*arguments)
        except ProtocolError as error:
            self.code(given, str(error.code), getattr(error, "step", None))
            return
        self.fail(f"accepted, want {given.get('expected_code', 'a refusal')}")

    def code(self, given: dict[str, Any], got: str, step: int | None = None) -> None:
        """A refusal's code, and its step, against what the case names."""
        if "expected_code" in given:
            codes = [given["expected_code"], *given.get("also_acceptable", [])]
            if got not in codes:
                self.fail(f"refused with {got}, want {' or '.join(codes)}")
        if "expected_step" in given:
            steps = [given["expected_step"], *given.get("also_acceptable_steps", [])]
            if step not in steps:
                self.fail(f"refused in step {step}, want {' or '.join(map(str, steps))}")


class Report:
    """All cases of all files."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self.passed = 0
        self.failed = 0
        self.file = ""

    def case(self, section: str, name: object) -> Case:
        """A case of a section, to be used as a context."""
        return Case(self, f"{section}: {name}")

    def frame(self, section: str, name: object) -> Case:
        """What stands around cases: it counts when it fails, and only then."""
        return Case(self, f"{section}: {name}", frame=True)

    def cases(
        self, document: dict[str, Any], section: str, *, named: str = "name"
    ) -> Iterator[tuple[Case, dict[str, Any]]]:
        """Each case of a section; one without the member `named` goes by its number."""
        listed = document.get(section, [])
        if not isinstance(listed, list):
            with self.frame(section, "all") as case:
                case.fail("not a list")
            return
        for number, given in enumerate(listed):
            if isinstance(given, dict):
                yield self.case(section, given.get(named, number)), given
            else:
                with self.case(section, number) as case:
                    case.fail("not an object")

    def count(self, name: str, problems: list[str]) -> None:
        """A case has ended."""
        if not problems:
            self.passed += 1
            return
        self.failed += 1
        for problem in problems:
            self._write(f"FAIL {self.file}: {name}: {problem}")


def unhex(text: str) -> bytes:
    """Bytes of hex. Raises: ValueError, TypeError."""
    return bytes.fromhex(text)


def serial(text: str) -> bytes:
    """A serial in hex, whose leading zero may be missing."""
    return bytes.fromhex(text.zfill(len(text) + len(text) % 2))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}... ({len(text)} characters)"
