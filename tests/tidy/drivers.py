"""Each driver is imported in its own place alone, and nothing that is not declared."""

import ast
import re
import sys
from collections.abc import Iterator, Mapping

from tests.tidy.finding import ROOMS, Finding, Source

PLACES = {
    "sqlcipher3": "wallet/store",
    "pkcs11": "hsm/pkcs11",
    "tpm2_pytss": "hsm/tpm",
    "gpiod": "edge/gpio",
    "bleak": "edge/ble",
    "nats": "cloud/stream",
    "web3": "cloud/routing/rails/evm",
}


def strayed_drivers(source: Source) -> list[Finding]:
    """Imports of a driver outside its place, however deep in a function they stand."""
    return [
        source.finding(node, f"{driver} is imported outside {PLACES[driver]}")
        for node, name in _imports(source.tree)
        if (driver := name.split(".")[0]) in PLACES and not source.within(PLACES[driver])
    ]


# Which extra of pyproject.toml a place may count on beside what every installation has.
EXTRAS = {
    "edge": "edge",
    "edge/gpio": "gpio",
    "wallet/store": "edge",
    "cloud": "cloud",
    "hsm/tpm": "tpm",
}


def declared(project: Mapping[str, object]) -> dict[str, set[str]]:
    """The packages that `[project]` of pyproject.toml names, by extra; "" is what all have."""
    extras = project.get("optional-dependencies", {})
    assert isinstance(extras, dict)
    needs = {"": project.get("dependencies", []), **extras}
    return {extra: {_name(need) for need in listed} for extra, listed in needs.items()}


def undeclared(
    source: Source, packages: Mapping[str, set[str]], owners: Mapping[str, list[str]]
) -> list[Finding]:
    """Imports of packages that the room's installation would not bring.

    `owners` tells which packages a top-level module comes from; one that is not installed, as a
    driver may be, is taken to be named like its module.
    """
    extras = ["", *(extra for place, extra in EXTRAS.items() if source.within(place))]
    allowed = {name for extra in extras for name in packages.get(extra, set())}
    return [
        source.finding(node, f"{top} is in no package that this room declares")
        for node, name in _imports(source.tree)
        if (top := name.split(".")[0]) not in sys.stdlib_module_names and top not in ROOMS
        if not allowed & {_name(owner) for owner in owners.get(top, [top])}
    ]


def _name(requirement: str) -> str:
    """The normal form of a package's name, without the version that is asked for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


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
