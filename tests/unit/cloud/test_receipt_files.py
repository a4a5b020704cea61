"""Receipts that are handed in from files: any number of them, as many at a time as a call takes."""

import json
from pathlib import Path

import pytest

from cloud.errors import CloudError
from cloud.http.recovery_types import CLAIMS_MAX
from cloud.recovery_commands import CALL_BYTES_MAX, LINE_BYTES_MAX, calls


def line(number: int, *, length: int = 4) -> str:
    """A receipt as it stands in a file."""
    return json.dumps({"entry": f"{number:0{length}}", "receipt": "AA", "more": "is left out"})


def test_a_file_of_many_lines_is_handed_in_by_calls(tmp_path: Path) -> None:
    file = tmp_path / "many"
    file.write_text("\n\n".join(line(number) for number in range(2 * CLAIMS_MAX + 1)))
    found = list(calls(file))
    assert [len(part) for part in found] == [CLAIMS_MAX, CLAIMS_MAX, 1]
    assert [item["entry"] for part in found for item in part] == [
        f"{number:04}" for number in range(2 * CLAIMS_MAX + 1)
    ]


def test_large_receipts_go_by_calls_that_a_body_takes(tmp_path: Path) -> None:
    length = 21_000
    (tmp_path / "one.json").write_text("\n".join(line(n, length=length) for n in range(30)))
    (tmp_path / "two.json").write_text(line(30, length=length))
    found = list(calls(tmp_path))
    assert sum(len(part) for part in found) == 31
    sizes = [sum(len(item["entry"]) for item in part) for part in found]
    assert max(sizes) <= CALL_BYTES_MAX < max(sizes) + length + 2


@pytest.mark.parametrize(
    "text", ["nonsense", '{"entry": "AA"}', "[]", '{"entry": "' + "A" * LINE_BYTES_MAX + '"}']
)
def test_what_is_no_receipt_is_named_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(CloudError, match=r"receipt-unreadable: .*one\.json"):
        list(calls(tmp_path))
