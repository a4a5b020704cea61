"""`cbdc-cloud evidence verify`: one file, one root certificate, and nothing else on the machine."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud import cli
from tests.fuzz.objects import mutated
from tests.support.books import opened
from tests.support.breaches import checkpoint, forge, transfer
from tests.support.issuer import Issuer, Key
from tests.support.world import ISSUER
from tests.vectors.files import PROTOCOL, load
from wallet.protocol.breach import breach_entry, breach_pair, breach_replay
from wallet.protocol.codec import encode
from wallet.protocol.evidence import EVIDENCE_BYTES_MAX

ANNA, BERT = Key("anna"), Key("bert")
FORKS: dict[str, Any] = load(PROTOCOL / "forks.json")
CASES: list[dict[str, Any]] = FORKS["cases"]
ROOT = Path(__file__).resolve().parents[3]


def evidence() -> list[bytes]:
    """Proofs of several kinds against one journal."""
    book = opened("north", holders={ANNA: 1_000, BERT: 0})
    first = forge(book, book.pay(ANNA, BERT, 50_000), time_ms=book.now_ms + 2 * 86_400_000)
    second = forge(book, book.pay(ANNA, BERT, 60_000))
    size = len(book.context.entries)
    entries = book.context.entries[:size]
    return [
        breach_entry(transfer(book, first)),
        breach_pair(transfer(book, first), transfer(book, second)),
        breach_replay(checkpoint(book), entries, rest=[], lists=[]),
    ]


class Court:
    """Somebody with the root and files."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._patch, self._capsys = folder, monkeypatch, capsys
        self.root(ISSUER.root)

    def root(self, der: bytes) -> None:
        """The certificate that is trusted."""
        (self.folder / "root.der").write_bytes(der)

    def verify(self, raw: bytes, *more: str, size: int | None = None) -> tuple[int, str, str]:
        """(exit code, output, errors) of the command; `size`: zeroes follow up to that."""
        path = self.folder / "file.cbor"
        path.write_bytes(raw)
        os.truncate(path, len(raw) if size is None else size)
        words = ["cbdc-cloud", "evidence", "verify", str(path)]
        self._patch.setattr(sys, "argv", [*words, "--root", str(self.folder / "root.der"), *more])
        code = cli.main()
        out, errors = self._capsys.readouterr()
        return code, out, errors


@pytest.fixture
def court(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Court:
    """The third party."""
    return Court(tmp_path, monkeypatch, capsys)


def test_every_vector_is_proven_or_refused_with_its_code(court: Court) -> None:
    court.root(bytes.fromhex(FORKS["root_certificate"]["der"]))
    grace = ("--grace-s", str(FORKS["certificate_grace_s"]))
    proven = 0
    for case in CASES:
        code, out, errors = court.verify(bytes.fromhex(case["fork"]), *grace)
        if case["expected"] == "fork":
            assert (code, errors) == (0, ""), case["name"]
            assert out.startswith("Proven: journal jnl1"), case["name"]
            assert case["kind"] in out
            proven += 1
        else:
            wanted = case.get("expected_code", "not-proven")
            assert (code, out) == (1, ""), case["name"]
            assert errors.startswith(f"cbdc-cloud: {wanted}: "), case["name"]
    assert 20 < proven < len(CASES)


def test_what_is_proven_is_said_in_sentences(court: Court) -> None:
    said = [court.verify(raw) for raw in evidence()]
    assert [code for code, _, _ in said] == [0, 0, 0]
    assert "entry 4 is a pay of 500.00 EUR from wal1" in said[0][1]
    assert "entries 4 and 5 are out of time: it falls by 172800000 ms" in said[1][1]
    assert "which the rules refuse: order-expired" in said[2][1]


def test_no_altered_byte_proves_anything_else(court: Court) -> None:
    choice = random.Random(1)
    for raw in evidence():
        honest = court.verify(raw)[1].splitlines()[:2]
        for _ in range(80):
            code, out, errors = court.verify(mutated(raw, choice))
            if code == 0:
                # What a change leaves valid still says the same of the same journal.
                assert out.splitlines()[:2] == honest
            else:
                assert (code, out) == (1, "")
                assert errors.startswith("cbdc-cloud: ")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff" * 100,
        b"\x81" * 10_000,
        b"\x9b" + b"\xff" * 8,
        encode(["replay", b"", [b""] * 1_000, [bytes(32)] * 1_000, []]),
        encode(["entry", [b"\x00" * 70_000, b"\x80"]]),
        encode([4, b"\x80", b"\x80", [bytes(32)], []]),
        encode("entry"),
    ],
)
def test_hostile_files_are_refused(court: Court, raw: bytes) -> None:
    code, out, errors = court.verify(raw)
    assert (code, out) == (1, "")
    assert errors.startswith("cbdc-cloud: ")


def test_another_issuers_root_proves_nothing(court: Court) -> None:
    court.root(Issuer("another").root)
    for raw in evidence():
        code, _, errors = court.verify(raw)
        assert (code, "proves nothing against anybody" in errors) == (1, True)
    court.root(b"no certificate")
    code, _, errors = court.verify(evidence()[0])
    assert (code, "is no root certificate" in errors) == (1, True)
    court.root(ISSUER.sub)
    assert court.verify(evidence()[0])[0] == 1


def test_a_file_that_is_too_large_or_not_there_is_an_error(court: Court) -> None:
    assert court.verify(evidence()[0])[0] == 0
    code, _, errors = court.verify(evidence()[0], size=EVIDENCE_BYTES_MAX + 1)
    assert (code, "too-large" in errors) == (1, True)
    court.root(b"x" * 20_000)
    assert court.verify(b"")[0] == 1
    (court.folder / "root.der").unlink()
    code, _, errors = court.verify(b"")
    assert (code, "No such file" in errors) == (1, True)


async def test_it_asks_for_no_configuration_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "proof").write_bytes(evidence()[0])
    (tmp_path / "root.der").write_bytes(ISSUER.root)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cloud.cli", "--config", str(tmp_path / "none.toml")),
        *("evidence", "verify", "proof", "--root", "root.der"),
        stdout=asyncio.subprocess.PIPE,
        env={
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "CBDC_CLOUD_FOLDER": "/proc/nowhere",
        },
        cwd=tmp_path,
    )
    out, _ = await process.communicate()
    assert (process.returncode, out.startswith(b"Proven: ")) == (0, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["proof", "root.der"]
