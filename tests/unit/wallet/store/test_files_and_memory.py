"""The engine's settings and the errors of files, where no whole store shows them."""

import ctypes
import errno
from pathlib import Path

import pytest

from tests.unit.wallet.store.stores import KEY
from wallet.store.connection import LOOKASIDE_ENLARGED, connect, translated_os
from wallet.store.errors import DiskFull, StoreFailed
from wallet.store.memory import enlarge_lookaside


def test_connections_have_their_own_slots_for_small_allocations() -> None:
    assert LOOKASIDE_ENLARGED


def test_a_library_without_that_setting_is_left_as_it_is() -> None:
    assert not enlarge_lookaside(ctypes.CDLL(None))


def test_many_prepared_statements_fit(path: Path) -> None:
    connection = connect(path, key=KEY, query_only=False)
    connection.execute("CREATE TABLE kept (a)")
    for number in range(100):
        connection.execute(f"SELECT {number} FROM kept WHERE a = ?", (number,)).fetchall()
    connection.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_and_no_quota_are_a_full_disk(number: int) -> None:
    assert isinstance(translated_os(OSError(number, "no room")), DiskFull)


def test_any_other_error_of_the_system_is_a_failure() -> None:
    error = translated_os(PermissionError(errno.EACCES, "not permitted", "a-file"))
    assert isinstance(error, StoreFailed)
    assert "a-file" not in str(error)
