"""As whom PostgreSQL runs, and what a stale note of it means."""

import os
from pathlib import Path

import pytest

from cloud.errors import DatabaseError
from cloud.postmaster import FolderLock, Postmaster, read_postmaster
from cloud.runner import (
    choose_runner,
    is_reachable,
    plain_prefix,
    programs_folder,
    root_prefix,
    runner_for,
    server_user,
)


def test_an_ordinary_user_runs_it_directly_and_it_ends_with_us() -> None:
    assert plain_prefix("/bin/setpriv") == ("/bin/setpriv", "--pdeathsig", "INT", "--")
    assert plain_prefix(None) == ()


def test_root_gives_it_to_another_user_without_capabilities() -> None:
    prefix = root_prefix("setpriv", (12, 34), True)
    assert prefix[:6] == ("setpriv", "--reuid", "12", "--regid", "34", "--clear-groups")
    assert prefix[6:10] == ("--inh-caps", "-all", "--ambient-caps", "-all")
    assert prefix[-1] == "--"


def test_one_capability_is_kept_where_a_folder_on_the_way_is_closed(tmp_path: Path) -> None:
    assert "-all,+dac_override" in root_prefix("setpriv", (12, 34), False)
    closed = tmp_path / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0o700)
    assert not is_reachable(closed / "inner")
    program = tmp_path / "program"
    program.touch(0o600)
    assert not is_reachable(program)
    assert is_reachable(Path("/etc/hostname").parent)


def test_the_owner_of_a_folder_goes_on_serving_it(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(tmp_path, 4_321, 1_234)
        assert server_user(tmp_path) == (4_321, 1_234)
        assert choose_runner(tmp_path).owner == (4_321, 1_234)
    else:
        assert server_user(tmp_path) == (os.getuid(), os.getgid())
        assert choose_runner(tmp_path).owner is None


def test_without_root_nothing_changes_hands(tmp_path: Path) -> None:
    runner = runner_for(tmp_path, is_root=False, setpriv=None)
    runner.own(tmp_path)
    assert (runner.prefix, tmp_path.stat().st_uid) == ((), os.getuid())
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    assert runner.command("initdb")[-1].endswith("/initdb")


def test_root_without_setpriv_or_another_user_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="setpriv"):
        runner_for(tmp_path, is_root=True, setpriv=None)
    with pytest.raises(DatabaseError, match="no user"):
        server_user(tmp_path / "new", ["nobody-of-that-name"])


def test_a_missing_wheel_is_told() -> None:
    with pytest.raises(DatabaseError, match="is missing"):
        programs_folder("no_package_of_that_name")


def test_a_new_folder_gets_a_user_that_is_not_root(tmp_path: Path) -> None:
    assert server_user(tmp_path / "new")[0] != 0


def test_a_lock_is_held_once_and_given_back(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "lock")
    with pytest.raises(DatabaseError, match="database-in-use"):
        FolderLock(tmp_path / "lock")
    lock.release()
    FolderLock(tmp_path / "lock").release()


@pytest.mark.parametrize("text", ["", "\n", "no number\n"])
def test_half_a_note_is_no_note(tmp_path: Path, text: str) -> None:
    assert read_postmaster(tmp_path) is None
    (tmp_path / "postmaster.pid").write_text(text)
    assert read_postmaster(tmp_path) is None


def test_a_server_is_ready_when_its_note_says_so(tmp_path: Path) -> None:
    lines = ["17", str(tmp_path), "1", "5432", "/socket", "", "0 0"]
    (tmp_path / "postmaster.pid").write_text("\n".join([*lines, "starting"]))
    assert read_postmaster(tmp_path) == Postmaster(pid=17, data=tmp_path, ready=False)
    (tmp_path / "postmaster.pid").write_text("\n".join([*lines, "ready   "]))
    assert read_postmaster(tmp_path) == Postmaster(pid=17, data=tmp_path, ready=True)


def test_a_process_that_works_elsewhere_is_not_the_server(tmp_path: Path) -> None:
    assert not Postmaster(pid=os.getpid(), data=tmp_path, ready=True).is_alive()
    assert Postmaster(pid=os.getpid(), data=Path.cwd(), ready=True).is_alive()
    assert not Postmaster(pid=2**22 + 1, data=tmp_path, ready=True).is_alive()
