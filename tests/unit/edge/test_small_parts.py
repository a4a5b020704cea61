"""Octets, QR texts, moments, logs, notifications, secrets."""

import io
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from edge.config import TokenConfig
from edge.errors import FileUnreadable
from edge.folder import Folder
from edge.http.octets import (
    Octets,
    decode_hook,
    encode_bytes_hook,
    encode_text_hook,
    from_text,
    schema_hook,
    to_text,
)
from edge.log import Log, start_logging
from edge.moments import duration, moment
from edge.notify import notify, watchdog_s
from edge.qr import decode_base45, encode_base45, from_qr, to_qr
from edge.secret_input import ask, read_file, read_secret_file, token_secret
from edge.version import version


@given(st.binary(max_size=200))
def test_octets_round_trip_and_have_one_text(raw: bytes) -> None:
    text = to_text(raw)
    assert from_text(text) == raw
    assert decode_hook(Octets, text) == Octets(raw) == decode_hook(Octets, raw)
    assert encode_text_hook(Octets(raw)) == text
    assert encode_bytes_hook(Octets(raw)) == raw


@pytest.mark.parametrize(
    "text", ["A", "AB", "AAB", "AA==", "+aaa", "/aaa", "aa a", "é234", "A\nAA"]
)
def test_other_texts_are_no_octets(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        from_text(text)


def test_other_types_are_no_octets() -> None:
    with pytest.raises(ValueError, match="byte string"):
        decode_hook(Octets, 5)
    for hook in (encode_text_hook, encode_bytes_hook):
        with pytest.raises(TypeError):
            hook(object())
    with pytest.raises(TypeError):
        schema_hook(int)
    assert schema_hook(Octets)["type"] == "string"
    assert repr(Octets(b"abc")) == "Octets(3 bytes)"
    assert len({Octets(b"a"), Octets(b"a")}) == 1


@given(st.binary(max_size=400))
def test_qr_texts_round_trip(raw: bytes) -> None:
    assert from_qr(to_qr(raw)) == raw


def test_base45_is_that_of_the_rfc() -> None:
    # RFC 9285 section 4.3 and 4.4.
    assert encode_base45(b"AB") == "BB8"
    assert encode_base45(b"Hello!!") == "%69 VD92EX0"
    assert decode_base45("QED8WEX0") == b"ietf!"


@pytest.mark.parametrize("text", ["GGW", "A", "::::", "a12", "0Z:"])
def test_other_texts_are_no_base45(text: str) -> None:
    with pytest.raises(ValueError, match="base45"):
        decode_base45(text)


@pytest.mark.parametrize("text", ["", "CBDC2:00", "CBDC1:" + "0" * 5_000])
def test_other_texts_are_no_requests(text: str) -> None:
    with pytest.raises(ValueError, match="QR code"):
        from_qr(text)


def test_moments_and_durations_are_for_people() -> None:
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert moment(None) == "never"
    assert duration(None) == "any time"
    assert duration(0) == "0 s"
    assert duration(90_061) == "1 d 1 h"
    assert duration(-61) == "-1 min 1 s"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the log writes."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    start_logging("info", stream=stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("cbdc").setLevel(logging.NOTSET)


def test_a_log_line_is_json_with_an_action(stream: io.StringIO) -> None:
    log = Log("part")
    log.debug("not.seen")
    log.info("payment.refused", code="busy", terminal=None)
    log.warning("look.here")
    try:
        raise ValueError("inside")
    except ValueError as error:
        log.error("fault", cause=error, route="x")
    log.error("plain")
    logging.getLogger("library").warning("a %s", "sentence")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["action"] for line in lines] == [
        "payment.refused",
        "look.here",
        "fault",
        "plain",
        "library-message",
    ]
    assert (lines[0]["part"], lines[0]["code"], lines[0]["terminal"]) == ("part", "busy", None)
    assert "ValueError: inside" in lines[2]["trace"]
    assert lines[4]["message"] == "a sentence"


def test_systemd_is_told_when_it_listens(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        assert notify("READY=1", environment={"NOTIFY_SOCKET": str(path)})
        assert listener.recv(100) == b"READY=1"
    name = f"cbdc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        assert notify("STOPPING=1", environment={"NOTIFY_SOCKET": "@" + name})
        assert listener.recv(100) == b"STOPPING=1"
    assert not notify("READY=1", environment={})
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_the_watchdog_is_fed_twice_as_often_as_asked() -> None:
    assert watchdog_s(environment={"WATCHDOG_USEC": "10000000"}) == 5
    assert watchdog_s(environment={"WATCHDOG_USEC": "no"}) is None
    assert watchdog_s(environment={}) is None


def test_secrets_come_from_files_the_environment_or_a_person(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("words of mine\nnever read\n")
    assert read_secret_file(path) == b"words of mine"
    assert token_secret(TokenConfig(passphrase_file=path)) == b"words of mine"
    environment = {"CBDC_EDGE_PASSPHRASE": "p", "CBDC_EDGE_TOKEN_PIN": "4711"}
    assert token_secret(TokenConfig(), environment=environment) == b"p"
    hardware = TokenConfig(driver="pkcs11", module=tmp_path)
    assert token_secret(hardware, environment=environment) == b"4711"
    measured = TokenConfig(driver="tpm", algorithm="es256")
    assert token_secret(measured, environment=environment) == b"4711"
    assert token_secret(measured, environment={}) == b""
    with pytest.raises(FileUnreadable, match=r"passphrase_file.*CBDC_EDGE_PASSPHRASE"):
        token_secret(TokenConfig(), environment={})
    with pytest.raises(FileUnreadable, match="nobody to ask"):
        ask("PIN", instead="--pin-file")
    path.write_text("\n")
    with pytest.raises(FileUnreadable, match="empty"):
        read_secret_file(path)
    with pytest.raises(FileUnreadable):
        read_file(tmp_path / "gone", bytes_max=10)
    path.write_bytes(bytes(11))
    with pytest.raises(FileUnreadable, match="larger"):
        read_file(path, bytes_max=10)


def test_the_data_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "gateway")
    folder.prepare()
    for path in (folder.root, folder.tls):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    names = {folder.token, folder.store, folder.store_key, folder.socket, folder.ports}
    assert {path.parent for path in names} == {folder.root}


def test_the_version_is_a_text() -> None:
    assert version()
