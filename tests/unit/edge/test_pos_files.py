"""The till's files: wallets' keys, rows of payments, receipts, the terminal."""

import stat
from pathlib import Path

import pytest

from edge.errors import ArgumentsWrong, FileUnreadable
from edge.pos.orders import Row, amount_of, count_rows, parse_amount, read_rows
from edge.pos.purse import DeviceKey, Purse
from edge.pos.receipts import read_receipts, read_root, save_receipt
from edge.pos.terminal import Terminal
from wallet.protocol.messages import decode_order, decode_request
from wallet.protocol.money import AMOUNT_MAX


def test_keys_are_kept_for_their_owner_alone(tmp_path: Path) -> None:
    purse = Purse.open(tmp_path / "till")
    alice, bob = purse.create("alice", "bob")
    path = tmp_path / "till" / "wallets.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Purse.open(tmp_path / "till")
    assert again.key("alice").text == alice.text
    assert again.key(bob.text.upper()).text == bob.text
    path.chmod(0o644)
    with pytest.raises(FileUnreadable, match="others can read"):
        Purse.open(tmp_path / "till")


def test_names_are_new_and_plain(tmp_path: Path) -> None:
    purse = Purse.open(tmp_path)
    purse.create("alice")
    for name in ("alice", "", "a b", "../x", "x" * 65):
        with pytest.raises(FileUnreadable):
            purse.create(name)
    with pytest.raises(FileUnreadable, match="wallet new"):
        purse.key("nobody")


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": "AA"}', '{"a": "?"}'])
def test_a_broken_file_of_keys_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wallets.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(FileUnreadable):
        Purse.open(tmp_path)


def test_a_key_signs_orders_and_requests_that_verify() -> None:
    key = DeviceKey(bytes(range(32)))
    common = {"amount_minor": 5, "currency": "EUR", "created_ms": 1, "expires_ms": 2}
    order = decode_order(
        key.sign_order(
            sequence=0,
            payee=bytes(20),
            payee_journal=bytes(20),
            kind=0,
            authorisation=0,
            payer_journal=bytes(20),
            payer_epoch=1,
            **common,
        )
    )
    order.signed.verify(key.public)
    request = decode_request(key.sign_request(nonce=bytes(16), payee_journal=bytes(20), **common))
    request.signed.verify(key.public)


def test_rows_come_from_csv_and_ndjson(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("from,to,amount,reference\nalice,shop,12.34,r1\nbob,shop,1,\n")
    rows = list(read_rows(path))
    assert rows == [
        Row(payer="alice", payee="shop", amount="12.34", reference="r1"),
        Row(payer="bob", payee="shop", amount="1"),
    ]
    path.write_text('{"from":"alice","to":"shop","amount_minor":7}\n\n{"order":"AA"}\n')
    assert list(read_rows(path)) == [
        Row(payer="alice", payee="shop", amount_minor=7),
        Row(order="AA"),
    ]
    assert count_rows(iter(rows), 1) == rows[:1]
    assert count_rows(iter(rows), None) == rows


def test_a_bad_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text('{"from":"a"}\n{"amount_minor":"x"}\n')
    with pytest.raises(FileUnreadable, match="line 2"):
        list(read_rows(path))
    path.write_text("from,to,amount_minor\na,b,x\n")
    with pytest.raises(FileUnreadable, match="line 2"):
        list(read_rows(path))
    path.write_bytes(b"\xff")
    with pytest.raises(FileUnreadable):
        list(read_rows(path))
    with pytest.raises(FileUnreadable):
        list(read_rows(tmp_path / "gone"))


def test_amounts_are_decimals_or_minor_units() -> None:
    assert amount_of(Row(amount="12.34"), "EUR") == 1_234
    assert amount_of(Row(amount_minor=5), "EUR") == 5
    for text in ("", "1.234", "-1", "1e3"):
        with pytest.raises(FileUnreadable, match="`amount`"):
            amount_of(Row(amount=text), "EUR")


def test_an_amount_that_was_typed_is_named_by_its_option() -> None:
    assert parse_amount("7", "JPY") == 7
    assert parse_amount("10000000000.00", "EUR") == AMOUNT_MAX
    for text in ("", "1.234", "-1", "1e3", "0", "0.00", "10000000000.01"):
        with pytest.raises(ArgumentsWrong, match="--amount"):
            parse_amount(text, "EUR")


def test_receipts_are_files_of_one_line(tmp_path: Path) -> None:
    path = save_receipt(tmp_path / "receipts", payment="ab", entry=b"entry", receipt=b"receipt")
    (held,) = read_receipts(path)
    assert (held.id, held.entry.raw, held.receipt.raw) == ("ab", b"entry", b"receipt")
    path.write_text('{"entry": 1}')
    with pytest.raises(FileUnreadable):
        list(read_receipts(path))
    with pytest.raises(FileUnreadable):
        list(read_receipts(tmp_path / "gone"))
    with pytest.raises(FileUnreadable):
        read_root(path)


def test_a_terminal_is_kept_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    terminal = Terminal(
        url="https://x", gateway="g", terminal="t", authority="a", certificate="c", key="k"
    )
    path = terminal.save(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Terminal.load(tmp_path) == terminal
    with pytest.raises(FileUnreadable, match="certificate"):
        terminal.tls()
    path.write_text("{}")
    with pytest.raises(FileUnreadable):
        Terminal.load(tmp_path)
    with pytest.raises(FileUnreadable, match="not paired"):
        Terminal.load(tmp_path / "gone")
