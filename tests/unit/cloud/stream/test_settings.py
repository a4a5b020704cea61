"""How the stream is reached: secrets from files, and what does not go together."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from cloud.config import load_config
from cloud.errors import ConfigError
from cloud.stream.settings import StreamConfig, connection_options
from tests.support.tls_pair import Authority


def load(tmp_path: Path, text: str, **environment: str) -> Any:
    """A configuration of this text."""
    path = tmp_path / "config.toml"
    path.write_text(text)
    return load_config(path, environment=environment, flags={})


def test_without_servers_there_is_nothing_to_reach(tmp_path: Path) -> None:
    assert load(tmp_path, "").stream == StreamConfig()
    assert connection_options(StreamConfig()) == {}


def test_servers_need_a_database_that_others_reach(tmp_path: Path) -> None:
    text = '[stream]\nservers = ["nats://one:4222", "nats://two:4222"]\nreplicas = 3\n'
    with pytest.raises(ConfigError, match=r"config-invalid.*database\.dsn"):
        load(tmp_path, text)
    found = load(tmp_path, text + '[database]\ndsn = "postgresql://elsewhere"\n').stream
    assert (found.servers, found.replicas) == (("nats://one:4222", "nats://two:4222"), 3)
    found = load(
        tmp_path,
        "",
        CBDC_CLOUD_DATABASE__DSN="postgresql://elsewhere",
        CBDC_CLOUD_STREAM__SERVERS="nats://one:4222,nats://two:4222",
    ).stream
    assert found.servers == ("nats://one:4222", "nats://two:4222")


@pytest.mark.parametrize(
    "text",
    [
        'user = "cloud"',
        'password_file = "/x"',
        'certificate_file = "/x"',
        'key_file = "/x"',
        "replicas = 2",
        "partitions = 0",
        "attempts_max = 1",
        "unknown = 1",
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="config-invalid"):
        load(tmp_path, f"[stream]\n{text}\n")


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a long word\n")
    (tmp_path / "token").write_text("another\n")
    (tmp_path / "user.creds").write_text("-----BEGIN NATS USER JWT-----\n")
    found = connection_options(
        StreamConfig(
            user="cloud",
            password_file=tmp_path / "password",
            token_file=tmp_path / "token",
            credentials_file=tmp_path / "user.creds",
        )
    )
    assert found == {
        "user": "cloud",
        "password": "a long word",
        "token": "another",
        "user_credentials": str(tmp_path / "user.creds"),
    }


def test_tls_has_a_floor_and_our_certificate(tmp_path: Path) -> None:
    authority = Authority()
    ours = authority.credentials()
    (tmp_path / "ca.pem").write_text(authority.certificate)
    (tmp_path / "ours.pem").write_text(ours.certificate)
    (tmp_path / "ours.key").write_text(ours.key)
    found = connection_options(
        StreamConfig(
            ca_file=tmp_path / "ca.pem",
            certificate_file=tmp_path / "ours.pem",
            key_file=tmp_path / "ours.key",
        )
    )["tls"]
    assert found.minimum_version == ssl.TLSVersion.TLSv1_3
    assert found.verify_mode == ssl.CERT_REQUIRED
    assert len(found.get_ca_certs()) == 1


@pytest.mark.parametrize(
    "name", ["ca_file", "token_file", "credentials_file", "password_file", "certificate_file"]
)
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    values: dict[str, Any] = {name: tmp_path / "none"}
    if name == "password_file":
        values["user"] = "cloud"
    if name == "certificate_file":
        values["key_file"] = tmp_path / "none"
    with pytest.raises(ConfigError, match="config-invalid"):
        connection_options(StreamConfig(**values))
