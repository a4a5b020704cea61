"""Error codes that keep their meaning, and handlers that say what they handle."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from tests.tidy.finding import Finding, Source

CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
BROAD = {"Exception", "BaseException"}
# A thread that hands whatever happened to its caller must take everything, and say so.
EXEMPT = re.compile(r"noqa: BLE001 - \w.{10,}")


def repeated_codes(sources: list[Source]) -> list[Finding]:
    """Codes of errors that are written in more than one place, or are not lower-case-with-hyphens.

    A code is the string given to `code` in a class's body, or a value of an enumeration `Code`.
    """
    places: dict[str, list[Finding]] = defaultdict(list)
    findings = []
    for source in sources:
        for node, code in _codes(source.tree):
            places[code].append(source.finding(node, f"the code {code} is not unique"))
            if not CODE.fullmatch(code):
                findings.append(source.finding(node, f"{code!r} is no lower-case-with-hyphens"))
    return findings + [place for found in places.values() if len(found) > 1 for place in found]


def broad_handlers(source: Source) -> list[Finding]:
    """Handlers that name no type, or one that takes everything and does not say why."""
    exempt = {number for number, line in source.lines() if EXEMPT.search(line)}
    broad = (n for n in ast.walk(source.tree) if _is_broad_handler(n) or _is_broad_suppress(n))
    findings = [source.finding(node, "the handler takes everything") for node in broad]
    return [finding for finding in findings if finding.line not in exempt]


def _codes(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef) and not _is_record(owner):
            for node in owner.body:
                name, value = _binding(node)
                if isinstance(value, str) and (name == "code" or owner.name == "Code"):
                    yield node, value


def _is_record(owner: ast.ClassDef) -> bool:
    """Whether `code` in this class is a field with a default, as in an answer that is read."""
    names = {ast.unparse(node) for node in [*owner.bases, *owner.decorator_list]}
    return any("Struct" in name or "dataclass" in name for name in names)


def _binding(node: ast.stmt) -> tuple[str | None, object]:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=value)):
            return name, value
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=value)):
            return name, value
    return None, None


def _is_broad_handler(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler) or _goes_on(node):
        return False
    return node.type is None or any(_is_broad(inner) for inner in _members(node.type))


def _goes_on(handler: ast.ExceptHandler) -> bool:
    """Whether the handler only cleans up: the exception leaves it as it came."""
    last = handler.body[-1]
    return handler.type is not None and isinstance(last, ast.Raise) and last.exc is None


def _is_broad_suppress(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "suppress" and any(_is_broad(argument) for argument in node.args)


def _members(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _is_broad(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in BROAD
