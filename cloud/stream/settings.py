"""How the stream is reached and how much it keeps; and how the server's connection is secured."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cloud.errors import ConfigError

SECRET_BYTES_MAX = 4_096
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=3_600)]
Age = Annotated[int, msgspec.Meta(ge=60, le=31 * 86_400)]
Bytes = Annotated[int, msgspec.Meta(ge=1 << 20, le=1 << 44)]


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without `servers` the stream is a queue inside the cloud's process, and all of it is local.

    With them it is NATS JetStream, and `cbdc-cloud worker` processes reconcile.
    """

    # Such as "nats://one:4222" or "tls://one:4222"; all nodes of the cluster.
    servers: tuple[str, ...] = ()
    # Nodes that keep each message: 3 where there is a cluster.
    replicas: Literal[1, 3] = 1
    # The same for all fronts and workers of a cloud; journals are spread over them.
    partitions: Annotated[int, msgspec.Meta(ge=1, le=1_024)] = 32
    # What one subject may have waiting, and all reports together; beyond it the front refuses.
    # Each server reserves three times these bytes: for messages, for parts, and for what is parked.
    messages_max: Count = 2_000
    bytes_max: Bytes = 1 << 30
    # Reports that nobody took are forgotten after that: gateways have them. Other messages stay.
    age_max_s: Age = 86_400
    # How long a killed worker's message waits for another one.
    ack_wait_s: Seconds = 10
    # How long the servers know a message again that is published twice.
    repetition_s: Seconds = 120
    attempts_max: Annotated[int, msgspec.Meta(ge=2, le=1_000)] = 10
    # How long a gateway's connection waits for a worker; then it is told what is held.
    outcome_wait_s: Seconds = 20
    connect_timeout_s: Seconds = 10
    request_timeout_s: Seconds = 2
    # Processes beside each worker that check signatures.
    verifying_processes: Annotated[int, msgspec.Meta(ge=0, le=64)] = 1
    # TLS: whom to trust, and who we are; files in PEM.
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    # Who we are by name: `user` with a password in a file, or a token, or a NATS credentials file.
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    credentials_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")


def connection_options(config: StreamConfig) -> dict[str, Any]:
    """TLS and credentials, as the driver takes them. Raises: ConfigError `config-invalid`."""
    options: dict[str, Any] = {}
    if config.ca_file is not None or config.certificate_file is not None:
        options["tls"] = _context(config)
    if config.password_file is not None:
        options |= {"user": config.user, "password": _secret(config.password_file)}
    if config.token_file is not None:
        options["token"] = _secret(config.token_file)
    if config.credentials_file is not None:
        if not config.credentials_file.is_file():
            raise ConfigError("config-invalid", f"{config.credentials_file}: no such file")
        options["user_credentials"] = str(config.credentials_file)
    return options


def _context(config: StreamConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if config.certificate_file is not None:
            context.load_cert_chain(config.certificate_file, config.key_file)
    except OSError as error:
        raise ConfigError("config-invalid", f"stream TLS: {error}") from error
    return context


def _secret(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(SECRET_BYTES_MAX).strip().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("config-invalid", f"{path}: {type(error).__name__}") from error
