"""A SoftHSM2 token for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.softhsm import SoftHsm


@pytest.fixture
def hsm(tmp_path: Path) -> Iterator[SoftHsm]:
    """An own token "gateway", seen by this process. What the test opens, it closes."""
    softhsm = SoftHsm(tmp_path / "softhsm")
    softhsm.init_token()
    with softhsm.in_this_process():
        yield softhsm
