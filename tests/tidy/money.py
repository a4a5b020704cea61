"""No float where money is counted, and no clock or decimal in the pure protocol."""

import ast
import re
from collections.abc import Iterator

from tests.tidy.finding import Finding, Source

MONEY_PATHS = ("wallet/protocol", "cloud/ledger")
# CBOR has reals, so its codec reads and writes them; it counts nothing.
CODEC = "wallet/protocol/codec"
MONEY_NAME = re.compile(r"(^|_)(amount|balance|minor)(_|$)")
CLOCK_CALLS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}


def floats_in_money_paths(source: Source) -> list[Finding]:
    """Floats, true division and decimals in the folders that count money."""
    if not source.within(*MONEY_PATHS) or source.within(CODEC):
        return []
    return [
        source.finding(node, f"{reason} where money is counted")
        for node in ast.walk(source.tree)
        if (reason := _inexact(node))
    ]


def floats_named_as_money(source: Source) -> list[Finding]:
    """Anything named as an amount, anywhere, that is declared or made a float."""
    return [
        source.finding(node, f"{name} is a float")
        for node in ast.walk(source.tree)
        for name, parts in _named(node)
        if MONEY_NAME.search(name)
        and any(_inexact(inner) for part in parts for inner in ast.walk(part))
    ]


def clock_in_protocol(source: Source) -> list[Finding]:
    """Calls in the pure protocol that read a clock; time is an argument there."""
    if not source.within("wallet/protocol"):
        return []
    return [
        source.finding(node, f"{node.func.attr}() reads a clock")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CLOCK_CALLS
    ]


def _inexact(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=float() | complex()):
            return f"the literal {node.value!r}"
        case ast.Name(id="float"):
            return "a float"
        case ast.BinOp(op=ast.Div()) if not (_is_text(node.left) or _is_text(node.right)):
            return "a true division"
        case ast.AugAssign(op=ast.Div()) if not _is_text(node.value):
            return "a true division"
        case ast.ImportFrom(module="decimal") | ast.alias(name="decimal"):
            return "a decimal"
    return None


def _is_text(node: ast.AST) -> bool:
    """Whether an operand of `/` shows that the other one is a path of a file."""
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _named(node: ast.AST) -> Iterator[tuple[str, list[ast.expr]]]:
    """Names that a node binds, each with the annotation and the value that it gets."""
    match node:
        case ast.arg():
            yield node.arg, [node.annotation] if node.annotation else []
        case ast.AnnAssign():
            yield from ((name, [node.annotation]) for name in _target_names(node.target))
            if node.value is not None:
                yield from ((name, [node.value]) for name in _target_names(node.target))
        case ast.Assign():
            yield from ((n, [node.value]) for t in node.targets for n in _target_names(t))
        case ast.keyword(arg=str()):
            yield str(node.arg), [node.value]


def _target_names(target: ast.expr) -> list[str]:
    match target:
        case ast.Name():
            return [target.id]
        case ast.Attribute():
            return [target.attr]
    return []
