"""Nothing left to do, no check switched off in silence, no test that does not test."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.tidy.finding import Finding, Source

# Written in two halves, so that this file does not find itself.
MARKS = re.compile(r"\b(FIX" r"ME|TO" r"DO|XX" r"X|HA" r"CK|NotImplemented" r"Error)\b")
SWITCH = re.compile(r"type:\s*ignore(\[[^\]]*\])?|noqa(:\s*[A-Z0-9, ]+)?|pragma:\s*no \w+|nosec\b")
REASON_LETTERS_MIN = 6
MOCKS = {"MagicMock", "AsyncMock", "Mock", "patch"}
SKIPS = {"skip", "skipif", "xfail", "skipTest", "importorskip"}


def marks(source: Source) -> list[Finding]:
    """Words that say something is unfinished."""
    return [
        Finding(path=source.path, line=number, what=f"{found.group()} is left over")
        for number, line in source.lines()
        if (found := MARKS.search(line))
    ]


def switches_without_reason(source: Source) -> list[Finding]:
    """Comments that switch a check off and do not say why in the same line."""
    return [
        Finding(path=source.path, line=number, what=f"no reason is given for: {comment}")
        for number, comment in _comments(source.text)
        if SWITCH.search(comment) and _letters(SWITCH.sub("", comment)) < REASON_LETTERS_MIN
    ]


def tests_that_do_not_test(source: Source) -> list[Finding]:
    """Skipped tests, mocks, and tests that sleep a fixed time instead of waiting for a state."""
    nodes = list(ast.walk(source.tree))
    found = [source.finding(node, what) for node in nodes if (what := _evasion(node))]
    if source.path.rpartition("/")[2].startswith("test_"):
        loops = (node for node in nodes if isinstance(node, ast.While))
        polling = {inner for loop in loops for inner in ast.walk(loop)}
        slept = [node for node in nodes if _is_sleep(node) and node not in polling]
        found += [source.finding(node, "a sleep where no state is waited for") for node in slept]
    return found


def _evasion(node: ast.AST) -> str | None:
    match node:
        case ast.Attribute(attr=name) if name in SKIPS and _is_of_pytest(node):
            return f"{name}: a test that may not run"
        case ast.Name(id=name) | ast.alias(name=name) if name in MOCKS:
            return f"{name} stands where a real part may run"
        case ast.Call(func=ast.Attribute(attr="setattr", value=ast.Name(id="monkeypatch"))):
            return "monkeypatch.setattr stands where a real part may run"
    return None


def _is_sleep(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(attr="sleep"), args=[argument, *_]):
            return not (isinstance(argument, ast.Constant) and argument.value == 0)
    return False


def _is_of_pytest(node: ast.Attribute) -> bool:
    return ast.unparse(node).startswith(("pytest.", "self.", "unittest."))


def _comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _letters(text: str) -> int:
    return sum(character.isalpha() for character in text)
