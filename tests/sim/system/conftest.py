"""One PostgreSQL for all seeds of a worker, on a Unix socket: no network is needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import database, dsn, postgres, roomy_memory

__all__ = ["database", "dsn", "postgres"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """For the stores of fifteen boxes, in memory where there is room."""
    made = Path(tempfile.mkdtemp(prefix="cbdc-world-", dir=roomy_memory()))
    yield made
    shutil.rmtree(made)
