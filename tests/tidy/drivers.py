"""Each driver is imported in its own place alone."""

import ast
from collections.abc import Iterator

from tests.tidy.finding import Finding, Source

PLACES = {
    "sqlcipher3": "wallet/store",
    "pkcs11": "hsm/pkcs11",
    "tpm2_pytss": "hsm/tpm",
    "bleak": "edge/ble",
    "web3": "cloud/routing/rails/evm",
}


def strayed_drivers(source: Source) -> list[Finding]:
    """Imports of a driver outside its place, however deep in a function they stand."""
    return [
        source.finding(node, f"{driver} is imported outside {PLACES[driver]}")
        for node, name in _imports(source.tree)
        if (driver := name.split(".")[0]) in PLACES and not source.within(PLACES[driver])
    ]


def _imports(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node, alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(), level=0):
                yield node, str(node.module)
            case ast.Call(func=ast.Attribute(attr="import_module")) if node.args:
                if isinstance(node.args[0], ast.Constant):
                    yield node, str(node.args[0].value)
