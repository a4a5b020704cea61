"""Ceilings of files and functions, documentation of modules, what may stand at the top."""

import ast

from tests.tidy.finding import Finding, Source

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

TOP = {
    *("hsm", "wallet", "sync", "edge", "cloud", "firmware-images", "sdk"),
    *("tests", "bench", "docs", "README.md", "ARCHITECTURE.md", "HACKING.md"),
    *("Makefile", "pyproject.toml", "LICENSE"),
}


def long_files(source: Source) -> list[Finding]:
    """Python files above the ceiling."""
    length = len(source.text.splitlines())
    if length <= FILE_LINES_MAX:
        return []
    return [Finding(path=source.path, line=length, what=f"{length} lines in one file")]


def long_functions(source: Source) -> list[Finding]:
    """Functions above the ceiling, from `def` to the last line."""
    return [
        source.finding(node, f"{node.name} has {length} lines")
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]


def undocumented(source: Source) -> list[Finding]:
    """A public module, and its public classes and functions, without a docstring."""
    if any(part.startswith("_") and part != "__init__.py" for part in source.path.split("/")):
        return []
    tree = source.tree
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    missing = [node for node in public if ast.get_docstring(node) is None]
    findings = [source.finding(node, f"{node.name} says nothing of itself") for node in missing]
    if ast.get_docstring(tree) is None:
        findings.insert(0, Finding(path=source.path, line=1, what="the module has no docstring"))
    return findings


def strangers_at_the_top(paths: list[str]) -> list[str]:
    """Files and folders at the top that the house does not know."""
    tops = {path.split("/")[0] for path in paths}
    return sorted(
        top
        for top in tops - TOP
        if not top.startswith(".")
        and not (top.startswith("requirements") and top.endswith(".lock"))
    )
