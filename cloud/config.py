"""The cloud's configuration: TOML files, then the environment, then flags; all of it checked.

An unknown key is an error; every key has a default, so that an empty file is a configuration.
Secrets are named by the file that holds them, never written here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from cloud.errors import ConfigError
from cloud.stream.settings import StreamConfig

ENVIRONMENT_PREFIX = "CBDC_CLOUD_"
DEFAULT_PATH = Path("/etc/cbdc-cloud/config.toml")
FILE_BYTES_MAX = 1 << 20

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
PoolSize = Annotated[int, msgspec.Meta(ge=1, le=60)]
Connections = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
Rate = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
CurrencyCode = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]


class ShardConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One more database, which new journals may live in: in its own cluster, best."""

    dsn: Annotated[str, msgspec.Meta(min_length=1)]


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where PostgreSQL is. Without `dsn` it is embedded, with its data in the cloud's folder."""

    dsn: str | None = None
    pool_min: PoolSize = 1
    pool_max: PoolSize = 16
    connect_timeout_s: Seconds = 10
    statement_timeout_s: Seconds = 60
    lock_timeout_s: Seconds = 20
    # Shards 1, 2, ... in this order, for ever: new ones come at the end. The database above is 0.
    shards: Annotated[tuple[ShardConfig, ...], msgspec.Meta(max_length=255)] = ()

    def __post_init__(self) -> None:
        if self.pool_min > self.pool_max:
            raise ValueError("pool_min is above pool_max")


class ListenConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the cloud listens: port 0 is any free one."""

    host: str = "127.0.0.1"
    # Gateways: synchronisation and enrolment. Client certificates are asked for.
    gateway_port: Port = 8443
    # Officers and wallet apps, by token.
    api_port: Port = 8444
    # Names and addresses that the server's certificate is good for.
    names: tuple[str, ...] = ("localhost", "127.0.0.1")


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one port takes, each of the two by itself.

    A caller is a token or a gateway's certificate; a peer is an address, behind which there may be
    a bank's proxy with many callers.
    """

    connections_max: Connections = 2_000
    connections_peer_max: Connections = 500
    # From the connection to the end of the first request's head, the TLS handshake included.
    head_timeout_s: Seconds = 10
    # Between two requests on one connection.
    idle_timeout_s: Seconds = 75
    # A report of 64 MiB on a slow line; bodies of people and apps have 20 seconds.
    report_timeout_s: Seconds = 600
    caller_requests_per_s: Rate = 50
    caller_burst: Rate = 200
    peer_requests_per_s: Rate = 500
    peer_burst: Rate = 2_000


class IssuerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who issues, and what."""

    organisation: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] = "CBDC issuer"
    currencies: Annotated[tuple[CurrencyCode, ...], msgspec.Meta(min_length=1)] = ("EUR",)
    # The counter's window in the first policies: `long` where gateways' counters wear out.
    counter_window: Literal["short", "long"] = "short"
    # A file with the words that open the issuer's keys; it is made at `init` where there is none.
    passphrase_file: Path | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. `folder` holds what the cloud keeps: the database, keys, logs."""

    folder: Path = Path("/var/lib/cbdc-cloud")
    database: DatabaseConfig = msgspec.field(default_factory=DatabaseConfig)
    listen: ListenConfig = msgspec.field(default_factory=ListenConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    issuer: IssuerConfig = msgspec.field(default_factory=IssuerConfig)
    stream: StreamConfig = msgspec.field(default_factory=StreamConfig)

    def __post_init__(self) -> None:
        if self.stream.servers and self.database.dsn is None:
            raise ValueError("stream.servers needs database.dsn: workers are other processes")


def load_config(
    path: Path | None, *, environment: Mapping[str, str], flags: Mapping[str, str]
) -> Config:
    """Read the file and the parts in `config.d` beside it, then apply what stands over them.

    `environment` holds variables such as CBDC_CLOUD_DATABASE__DSN, `flags` dotted keys such as
    `database.dsn`. A file that was named has to exist; the default one need not.
    Raises: ConfigError `config-invalid`, `config-missing`.
    """
    values: dict[str, Any] = {}
    for file in _files(path):
        _merge(values, _read(file))
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            _set(values, name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), text)
    for name, text in flags.items():
        _set(values, name.split("."), text)
    try:
        return msgspec.convert(values, Config, strict=False, dec_hook=_decoded)
    except msgspec.ValidationError as error:
        raise ConfigError("config-invalid", str(error)) from error


def _decoded(kind: type, value: object) -> object:
    """Paths, the one kind of value that msgspec does not know; they come as text."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r} is no {kind.__name__}")


def _files(path: Path | None) -> Iterable[Path]:
    main = path or DEFAULT_PATH
    if main.is_file():
        yield main
    elif path is not None:
        raise ConfigError("config-missing", str(path))
    yield from sorted((main.parent / "config.d").glob("*.toml"))


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.loads(stream.read(FILE_BYTES_MAX).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError("config-invalid", f"{file}: {error}") from error


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        known = values.get(key)
        if isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        else:
            values[key] = value


def _set(values: dict[str, Any], keys: list[str], text: str) -> None:
    """Put a text where its keys say; lists are written with commas."""
    *parents, last = keys
    for key in parents:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError("config-invalid", f"{'.'.join(keys)}: {key} is no table")
    values[last] = text.split(",") if last in _LISTS else text


_LISTS = {"names", "currencies", "servers"}
