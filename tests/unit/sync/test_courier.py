"""Files for a courier: names that sort, folders with anything in them, sticks that fail."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from sync.courier import Kind, Label, explained, find_files, put_file, read_label, read_sealed, told
from sync.errors import Code, CourierError, SyncError
from wallet.protocol.ids import JournalId
from wallet.protocol.refusals import Code as Refused
from wallet.protocol.refusals import ProtocolError

JOURNAL = JournalId(bytes(range(20)))


def label(**changes: object) -> Label:
    """The name of a report of ten bytes."""
    fields: dict[str, object] = {
        "kind": Kind.REPORT,
        "journal": JOURNAL,
        "epoch": 1,
        "first": 5,
        "end": 9,
        "exchange": b"\x01\x02\x03\x04",
        "size_bytes": 10,
    }
    return Label(**{**fields, **changes})  # type: ignore[arg-type]  # fields by their names


def test_a_name_says_what_it_was_made_of() -> None:
    assert read_label(label().name) == label()
    answer = label(kind=Kind.ANSWER, epoch=2**50, end=2**53)
    assert read_label(answer.name) == answer


@pytest.mark.parametrize(
    "name",
    [
        "report.up.cbs",
        label().name.replace("jnl1", "wal1"),
        label().name.replace("-e000001", "-e1"),
        label().name.replace("q", "p", 1).replace("jnl1", "jnl1q"),
        label().name + ".part",
        "",
    ],
)
def test_any_other_name_says_nothing(name: str) -> None:
    assert read_label(name) is None


def test_names_sort_by_epoch_and_then_by_size() -> None:
    ordered = [
        label(first=9, end=900),
        label(first=10, end=11),
        label(first=100_000, end=100_001),
        label(epoch=2, first=0, end=1),
        label(epoch=10, first=0, end=1),
    ]
    names = [one.name for one in ordered]
    assert sorted(names) == names


def test_a_folder_gives_one_kind_sorted_and_nothing_unfinished(tmp_path: Path) -> None:
    second = put_file(tmp_path, label(first=9, end=12), b"0123456789")
    first = put_file(tmp_path, label(), b"0123456789")
    put_file(tmp_path, label(kind=Kind.ANSWER), b"0123456789")
    renamed = tmp_path / "zz renamed.cbs"
    renamed.write_bytes(b"x")
    (tmp_path / ("." + label().name)).write_bytes(b"half")
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    (tmp_path / "folder.cbs").mkdir()
    assert find_files(tmp_path, Kind.REPORT) == [first, second, renamed]
    assert find_files(tmp_path, Kind.ANSWER)[-1] == renamed


def test_a_folder_with_too_many_files_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.cbs").touch()
    with pytest.raises(CourierError) as caught:
        find_files(tmp_path, Kind.REPORT, files_max=1)
    assert caught.value.code is Code.FILES_TOO_MANY


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    gone = tmp_path / "stick"
    for act in (
        lambda: find_files(gone, Kind.REPORT),
        lambda: put_file(gone, label(), b"x"),
        lambda: read_sealed(gone / label().name),
    ):
        with pytest.raises(CourierError) as caught:
            act()
        assert caught.value.code is Code.FOLDER_GONE


def test_a_file_that_is_shorter_than_its_name_says_was_copied_by_half(tmp_path: Path) -> None:
    path = put_file(tmp_path, label(), b"0123456789")
    assert read_sealed(path) == b"0123456789"
    path.write_bytes(b"01234")
    with pytest.raises(CourierError, match="5 of 10 bytes") as caught:
        read_sealed(path)
    assert caught.value.code is Code.FILE_CUT


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.FOLDER_FULL),
        (errno.EDQUOT, Code.FOLDER_FULL),
        (errno.EROFS, Code.FOLDER_CLOSED),
        (errno.EIO, Code.FOLDER_GONE),
    ],
)
def test_what_a_disk_says_is_told_in_our_words(number: int, code: Code) -> None:
    error = told(OSError(number, os.strerror(number)), Path("/media/stick"))
    assert (error.code, "/media/stick" in error.detail) == (code, True)


def test_a_write_that_finds_no_room_leaves_nothing_under_any_name(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
    try:
        with pytest.raises(CourierError) as caught:
            put_file(tmp_path, label(), b"0123456789")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code is Code.FOLDER_FULL
    assert list(tmp_path.iterdir()) == []


def test_failures_are_explained_to_whoever_reads() -> None:
    foreign = ProtocolError(Refused.UNKNOWN_KEY, "a key that is not held")
    report, answer = explained(foreign, Kind.REPORT), explained(foreign, Kind.ANSWER)
    assert report.code == answer.code == "unknown-key"
    assert ("issuer" in report.sentence, "gateway" in answer.sentence) == (True, True)
    assert not report.well
    other = explained(SyncError(Code.UNKNOWN_REPORT, "who asked?"), Kind.ANSWER)
    assert other.sentence == "who asked?"
