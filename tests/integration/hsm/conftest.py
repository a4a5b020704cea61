"""A SoftHSM2 token, or a software TPM, for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.softhsm import SoftHsm
from tests.support.swtpm import Swtpm, running_swtpm


@pytest.fixture
def hsm(tmp_path: Path) -> Iterator[SoftHsm]:
    """An own token "gateway", seen by this process. What the test opens, it closes."""
    softhsm = SoftHsm(tmp_path / "softhsm")
    softhsm.init_token()
    with softhsm.in_this_process():
        yield softhsm


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Swtpm]:
    """An own TPM, powered on."""
    with running_swtpm(tmp_path / "chip") as swtpm:
        yield swtpm
