"""Every vector of the protocol holds, and the command that checks them says so."""

from pathlib import Path

import pytest

from tests.vectors.files import PROTOCOL
from wallet.protocol.vectors.__main__ import main

FILES = sorted(PROTOCOL.glob("*.json"))


def test_all_six_files_are_there() -> None:
    assert [path.stem for path in FILES] == [
        "forks",
        "ids",
        "journal",
        "merkle",
        "orders",
        "sync",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_our_code_agrees_with_every_case(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(path)])
    printed = capsys.readouterr().out.splitlines()
    assert code == 0, printed
    assert printed[-1].endswith(" passed, 0 failed")
    assert int(printed[-1].split()[0]) > 30
