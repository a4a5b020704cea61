"""The command that checks vector files notices every fault, and never falls over a file."""

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.issuer import Key
from tests.vectors.files import PROTOCOL, load
from wallet.protocol.cose import ORDER_TYPE
from wallet.protocol.messages import decode_order, order_payload, to_sign
from wallet.protocol.refusals import InvariantBroken
from wallet.protocol.vectors.__main__ import main
from wallet.protocol.vectors.orders import named_claims
from wallet.protocol.vectors.replay import OneOrder, Surroundings

Run = Callable[[Any], tuple[int, list[str]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Check a document; gives the exit code and the lines printed."""

    def check(document: Any) -> tuple[int, list[str]]:
        path = tmp_path / "vectors.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        code = main([str(path)])
        return code, capsys.readouterr().out.splitlines()

    return check


def cut(name: str, section: str, change: dict[str, Any]) -> dict[str, Any]:
    """A file with the first case of one section alone, altered."""
    document = load(PROTOCOL / f"{name}.json")
    kept = {"entries"} if section == "keys" else {"entries", "keys"}
    lists = [key for key, value in document.items() if isinstance(value, list) and key not in kept]
    for key in lists:
        document[key] = document[key][:1] if key == section else []
    document[section][0] = {**document[section][0], **change}
    return dict(document)


FAULTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("ids", "valid", {"key_id": "00"}, "key_id: got"),
    ("ids", "valid", {"text": "wal1x"}, "malformed"),
    ("ids", "valid", {"cose_alg": 5}, "no key of algorithm 5"),
    ("ids", "upper_case_text", {"id": "00" * 20}, "id: got"),
    ("ids", "invalid_text", {"text": load(PROTOCOL / "ids.json")["valid"][0]["text"]}, "accepted"),
    ("ids", "invalid_key", {"expected_code": "busy"}, "refused with weak-key, want busy"),
    ("merkle", "roots", {"root": "00"}, "root: got"),
    ("merkle", "inclusion", {"path": []}, "path: got"),
    ("merkle", "inclusion", {"path": None}, "TypeError"),
    ("merkle", "consistency", {"path": ["00"]}, "path: got"),
    ("merkle", "invalid_inclusion", {"expected_code": "busy"}, "want busy"),
    ("merkle", "invalid_inclusion", load(PROTOCOL / "merkle.json")["inclusion"][0], "accepted"),
    ("sync", "invalid", load(PROTOCOL / "sync.json")["envelopes"][0], ": opened"),
    ("forks", "cases", {"expected": "not-proven"}, "accepted"),
    ("forks", "cases", {"kind": "fork-index"}, "kind: got"),
    ("sync", "envelopes", {"direction": "down"}, "unknown-type"),
    ("sync", "envelopes", {"kid": "00"}, "kid: got"),
    ("sync", "envelopes", {"plain": "zz"}, "ValueError"),
    ("sync", "invalid", {"fails_at": "verify"}, "not opened"),
    ("sync", "invalid", {"expected_code": "busy"}, "want busy"),
    ("orders", "valid", {"payload": "00"}, "payload: got"),
    ("orders", "valid", {"signer": "nobody"}, "KeyError"),
    ("orders", "valid", {"order_id": "00"}, "order_id: got"),
    ("orders", "invalid", {"expected_code": "busy"}, "want busy"),
    ("orders", "ambiguous", {"by_the_words": "refused"}, "accepted, want a refusal"),
    ("orders", "signed_again", {"expected_code_of_other_order": "busy"}, "want busy"),
    ("orders", "requests", {"request_id": "00"}, "request_id: got"),
    ("orders", "invalid_requests", {"expected_code": "busy"}, "want busy"),
    ("orders", "keys", {"id": "00"}, "id: got"),
    ("journal", "edge_receipts", {"index": 99}, "index: got"),
    ("journal", "tampered_receipts", {"expected_step": 6}, "refused in step 1, want 6"),
    ("journal", "role_certificates", {"name": "kings"}, "known role"),
    ("journal", "issuer_objects", {"hash": "00"}, "hash: got"),
    ("journal", "issuer_objects", {"kind": "grant"}, "unknown-type"),
    ("journal", "invalid_issuer_objects", {"expected_code": "busy"}, "want busy"),
    ("journal", "wallets", {"text": None, "id": "00"}, "id: got"),
    ("journal", "requests", {"request_id": "00"}, "request_id: got"),
]


@pytest.mark.parametrize(("name", "section", "change", "printed"), FAULTS)
def test_a_fault_is_printed_with_its_case(
    run: Run, name: str, section: str, change: dict[str, Any], printed: str
) -> None:
    assert run(cut(name, section, {}))[0] == 0
    code, lines = run(cut(name, section, change))
    assert code == 1
    assert any(line.startswith(f"FAIL vectors.json: {section}: ") for line in lines)
    assert any(printed in line for line in lines), lines
    assert lines[-1].endswith(" 1 failed")


def test_a_file_of_journals_may_leave_the_sub_ca_to_the_chains(run: Run) -> None:
    document = cut("journal", "edge_receipts", {})
    del document["sub_ca_certificate"]
    assert run(document)[0] == 0


def journal_faults() -> Iterator[tuple[str, Callable[[dict[str, Any]], None], str]]:
    """(name, what to spoil in the first journal, what must be printed)."""
    yield "leaf hash", lambda j: j["entries"][1].update(leaf_hash="00"), "entries: 1: leaf_hash"
    yield "balance", lambda j: j["entries"][3]["after"].update(balance_total=1), "balance_total"
    yield "hop", lambda j: j["entries"][5]["after"].update(hop=9), "entries: 5: hop: got 0, want 9"
    yield "order", lambda j: j["entries"][5]["body"].update(amount=9), "payload of the order"
    yield "gap", lambda j: j["entries"].pop(1), "refused with unknown-wallet"
    yield "entry", lambda j: j["entries"].insert(0, "x"), "not an object"
    yield "text", lambda j: j.update(text="jnl1x"), "malformed"
    yield "root", lambda j: j["checkpoints"][0].update(root="00"), "checkpoints: 8: root"
    yield "signature", lambda j: j["checkpoints"][0].update(signature="00" * 64), "bad-signature"
    yield "receipt", lambda j: j["receipts"][0].update(path=[]), "path: got"


@pytest.mark.parametrize(("name", "spoil", "printed"), list(journal_faults()))
def test_a_fault_in_a_journal_is_printed(
    run: Run, name: str, spoil: Callable[[dict[str, Any]], None], printed: str
) -> None:
    document = load(PROTOCOL / "journal.json")
    document["journals"] = document["journals"][:1]
    spoil(document["journals"][0])
    code, lines = run(document)
    assert code == 1
    assert any(printed in line for line in lines), lines


@pytest.mark.parametrize(
    ("document", "printed"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), "cannot be read"),
        ("[]", "no object"),
        ("{}", "no vectors that are known here"),
        ({"cases": []}, "KeyError"),
        ({"valid": 5, "invalid_text": 7}, "not a list"),
        ({"invalid_text": []}, "no cases"),
        ({"invalid_text": [5]}, "not an object"),
        ({"invalid_text": [{}]}, "KeyError"),
        ({"roots": [], "entries": ["zz"]}, "ValueError"),
        ({"root_certificate": {"der": "00"}, "envelopes": []}, "certificate-invalid"),
        ({"journals": [], "root_certificate": None}, "TypeError"),
        ({"requests": [], "context": None}, "AttributeError"),
        ({"invalid_text": [{"name": "\ud800"}]}, "\\ud800: KeyError"),
    ],
)
def test_a_broken_file_is_a_failure_and_no_stack_trace(
    run: Run, document: Any, printed: str
) -> None:
    code, lines = run(document)
    assert code == 1
    assert any(printed in line for line in lines), lines
    assert not any("Traceback" in line for line in lines)


def test_a_file_that_is_not_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/nowhere/vectors.json"]) == 1
    assert "cannot be read" in capsys.readouterr().out


def test_without_a_file_it_tells_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "FILE..." in capsys.readouterr().err


def test_it_runs_as_a_command() -> None:
    command = [sys.executable, "-m", "wallet.protocol.vectors"]
    files = [str(PROTOCOL / f"{name}.json") for name in ("ids", "forks")]
    done = subprocess.run([*command, *files], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "163 passed, 0 failed\n"


def test_either_code_passes_where_two_are_acceptable(run: Run) -> None:
    given = {"expected_code": "busy", "also_acceptable": ["weak-key"]}
    assert run(cut("ids", "invalid_key", given))[0] == 0
    step = {"expected_step": 6, "also_acceptable_steps": [1]}
    assert run(cut("journal", "tampered_receipts", step))[0] == 0


def test_other_keys_and_values_are_checked_alike(run: Run) -> None:
    """An order signed anew by a key that no vector file holds."""
    document = cut("orders", "valid", {})
    assert run(resigned(document, Key("a key of ours")))[0] == 0


def resigned(document: dict[str, Any], key: Key) -> dict[str, Any]:
    made = copy.deepcopy(document)
    case = made["valid"][0]
    case["claims"].update(payer=key.public.id.hex(), amount=77, sequence=70_000)
    payload = order_payload(**named_claims(case["claims"]))
    protected, message = to_sign(key.public, ORDER_TYPE, payload)
    raw = key.sign_object(ORDER_TYPE, payload)
    secret = hashlib.sha256(b"a key of ours").hexdigest()
    made["keys"] = [
        {
            "name": case["signer"],
            "cose_alg": key.algorithm,
            "private_key": secret,
            "cose_key": key.public.cose_key.hex(),
            "key_id": key.public.key_id.hex(),
            "id": key.public.id.hex(),
        }
    ]
    case.update(
        payload=payload.hex(),
        protected=protected.hex(),
        sig_structure=message.hex(),
        signature=raw[-64:].hex(),
        cose=raw.hex(),
        order_id=decode_order(raw).identity.hex(),
    )
    return made


def test_surroundings_without_an_issuer_answer_for_no_role() -> None:
    assert OneOrder(None).refundable(bytes(32)) is None
    signed = decode_order(bytes.fromhex(cut("orders", "valid", {})["valid"][0]["cose"])).signed
    with pytest.raises(InvariantBroken):
        Surroundings(None).check_role(signed, "sync")
