"""The release of this program."""

from __future__ import annotations

import importlib.metadata

DISTRIBUTION = "cbdc-edge-gateway"


def version() -> str:
    """The installed distribution's version; a checkout that is not installed says so."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"
