"""Secrets in memory: where they are, that they can be used, and that they are gone afterwards."""

import asyncio
import ctypes
import re
import secrets
import subprocess
import sys
from pathlib import Path

import nacl.bindings
import pytest

from hsm import keyfile, software
from hsm.api import TokenGone
from hsm.memory import Secret, all_locked, wipe
from hsm.sodium import sign
from tests.support.tokens import FEEBLE
from wallet.store.database import Database

ROOT = Path(__file__).parents[3]


def fresh(length: int = 32) -> bytes:
    """Bytes that nobody else holds."""
    return secrets.token_bytes(length)


def test_a_secret_gives_copies_of_what_it_was_given() -> None:
    content = fresh()
    held = Secret(content)
    assert held.copy() == content and held.copy() is not held.copy()
    assert (len(held), repr(held), held.wiped) == (32, "<Secret of 32 bytes>", False)
    assert content != bytes(32)


def test_what_a_secret_takes_is_wiped_where_it_was() -> None:
    content = fresh()
    known = bytearray(content)
    held = Secret.take(content)
    assert content == bytes(32)
    assert held.copy() == bytes(known)


def test_a_wiped_secret_is_gone_for_good() -> None:
    held = Secret(fresh())
    held.wipe()
    held.wipe()
    assert held.wiped
    for use in (held.copy, lambda: held.address):
        with pytest.raises(TokenGone):
            use()


def test_a_secret_is_locked_and_signs_from_where_it_is() -> None:
    public, pair = nacl.bindings.crypto_sign_seed_keypair(fresh())
    held = Secret(pair)
    assert held.locked and all_locked()
    signature = sign(held, b"message")
    assert nacl.bindings.crypto_sign_open(signature + b"message", public) == b"message"
    assert signature == nacl.bindings.crypto_sign(b"message", pair)[:64]
    held.wipe()
    with pytest.raises(TokenGone):
        sign(held, b"message")


@pytest.mark.parametrize("length", [2, 32, 64, 4096])
def test_bytes_and_texts_are_overwritten_and_nothing_beside_them(length: int) -> None:
    content, text = fresh(length), fresh(length).hex()
    ends = [ctypes.string_at(id(item) + sys.getsizeof(item) - 1, 1) for item in (content, text)]
    wipe(content)
    wipe(text)
    assert content == bytes(length) and len(content) == length
    assert text == "\0" * 2 * length
    assert ends == [b"\0", b"\0"]


def test_objects_that_all_of_the_program_shares_are_left_alone() -> None:
    for shared in (b"", b"a", "", "a"):
        wipe(shared)
    assert (b"abc"[:1], "abc"[:1]) == (b"a", "a")


# ---- what is left behind ------------------------------------------------------------------


def places_of(pid: int, wanted: bytes) -> int:
    """How often a process has these bytes, or their digits, in memory of its own."""
    forms = [wanted, wanted.hex().encode(), wanted.hex().upper().encode()]
    count = 0
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for first, last in writable(pid):
            memory.seek(int(first, 16))
            try:
                content = memory.read(int(last, 16) - int(first, 16))
            except OSError:
                # A thread that has ended lets its memory go while it is looked at.
                assert (first, last) not in writable(pid)
                continue
            count += sum(content.count(form) for form in forms)
    return count


def writable(pid: int) -> list[tuple[str, str]]:
    """First and last addresses of the memory that a process has for itself."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw.p", maps, re.MULTILINE)


def make_box(folder: Path) -> dict[str, bytes]:
    """A token and a store; gives their keys."""

    async def make() -> dict[str, bytes]:
        token = await software.create(folder / "token", passphrase=b"correct horse", cost=FEEBLE)
        key = fresh()
        (folder / "sealed").write_bytes(await token.sealer.seal(key, label="store-key"))
        await (await Database.open(folder / "store.db", key=key)).close()
        content = (folder / "token" / "token.sealed").read_bytes()
        opened = keyfile.open_file(content, passphrase=b"correct horse")
        await token.close()
        return {"store": key, "signing": opened.secret[:32], "sealing": opened.secret[32:]}

    return asyncio.run(make())


def test_keys_are_where_they_belong_while_they_are_used_and_nowhere_afterwards(
    tmp_path: Path,
) -> None:
    keys = make_box(tmp_path)
    found: dict[str, dict[str, int]] = {}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.memory_child", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        while stage := child.stdout.readline().strip():
            found[stage] = {name: places_of(child.pid, key) for name, key in keys.items()}
            child.stdin.write("\n")
            child.stdin.flush()
    assert child.returncode == 0
    # The store's key is once more where the caller holds it, and in no form that shows it later.
    assert found["held"]["store"] >= 1
    assert found["open"] == {"store": 0, "signing": 1, "sealing": 1}
    assert found["store closed"] == {"store": 0, "signing": 1, "sealing": 1}
    assert found["closed"] == {"store": 0, "signing": 0, "sealing": 0}
