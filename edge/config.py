"""The gateway's configuration: TOML files, then the environment, then flags; all of it checked.

An unknown key is an error; every key has a default, so that an empty file is a configuration.
Secrets are named by the file that holds them, never written here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edge.errors import ConfigInvalid
from hsm.pcr_policies import PcrPolicy

ENVIRONMENT_PREFIX = "CBDC_EDGE_"
DEFAULT_PATH = Path("/etc/cbdc-edge/config.toml")
FILE_BYTES_MAX = 1 << 20

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=86_400)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
DayBytes = Annotated[int, msgspec.Meta(ge=16 * 1024, le=2**50)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


class ListenConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens; port 0 is any free one, written to `ports.json`."""

    host: str = "127.0.0.1"
    # Terminals, by mutual TLS.
    port: Port = 8440
    # Terminals that have no certificate yet.
    pairing_port: Port = 8441
    # Prometheus, on loopback whatever `host` says.
    metrics_port: Port = 9440
    # Names and addresses that the server's certificate is good for.
    names: tuple[str, ...] = ("localhost", "127.0.0.1")


class TokenConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the keys are. The secret that opens them stands in a file of its own."""

    driver: Literal["software", "pkcs11", "tpm"] = "software"
    algorithm: Literal["eddsa", "es256"] = "eddsa"
    # The software token's passphrase; without it: CBDC_EDGE_PASSPHRASE, or a question.
    passphrase_file: Path | None = None
    # The PIN of a PKCS#11 token or TPM; without it: CBDC_EDGE_TOKEN_PIN, or a question. A TPM that
    # is given neither opens to the measurements alone.
    pin_file: Path | None = None
    # A PKCS#11 token: its module, its label, the label of our keys, and that of the sealing key
    # where it differs, as after a key ceremony.
    module: Path | None = None
    label: Text = "cbdc-edge"
    key_label: Text = "journal"
    sealing_label: Text | None = None
    # A TPM: how it is reached, which measurements it opens to, where its counter stands, and the
    # secrets of its hierarchies where its owner set some.
    tcti: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "device:/dev/tpmrm0"
    pcr_policy: PcrPolicy = "firmware"
    nv_index: Annotated[int, msgspec.Meta(ge=0x01800000, le=0x01BFFFFF)] | None = None
    owner_auth_file: Path | None = None
    endorsement_auth_file: Path | None = None
    timeout_s: Seconds = 10

    def __post_init__(self) -> None:
        if self.driver == "pkcs11" and self.module is None:
            raise ValueError("the driver pkcs11 needs `module`, the library of the token")
        if self.driver == "tpm" and self.algorithm != "es256":
            raise ValueError('the driver tpm signs with `algorithm = "es256"` alone')


class LinkConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one network interface is like, and what it may cost: bytes in a day, both ways."""

    # As the system names it, such as wwan0; `*` at the end stands for any rest.
    interface: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,15}\*?$")]
    kind: Literal["free", "metered", "satellite"] = "free"
    day_bytes_max: DayBytes | None = None
    # For seeing whether the cloud answers, as part of the whole; where nothing is said, some 100
    # probes on a link that costs, and 2,500 on others.
    probe_day_bytes_max: DayBytes | None = None


class SyncConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When to synchronise; the cloud's address comes from provisioning unless it is given here."""

    url: str | None = None
    interval_s: Seconds = 60
    # How long the line may stand still; one that is only slow is waited for.
    timeout_s: Seconds = 30
    # The first that names the interface of the default route counts.
    links: Annotated[tuple[LinkConfig, ...], msgspec.Meta(max_length=16)] = ()


class NeighboursConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gateways next door that tell each other newer lists, by mutual TLS with their transport's
    certificates.
    """

    # Their addresses, such as https://10.1.2.4:8442.
    urls: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    # Where this gateway tells its own; without it, it tells nobody.
    port: Port | None = None
    interval_s: Seconds = 300
    timeout_s: Seconds = 30

    def __post_init__(self) -> None:
        for url in self.urls:
            if not url.startswith("https://"):
                raise ValueError(f"the neighbour {url} is not https")


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the interfaces; what money may do is the issuer's policy, not here."""

    body_bytes_max: Annotated[int, msgspec.Meta(ge=4096, le=64 * 1024 * 1024)] = 4 * 1024 * 1024
    requests_max: Count = 1024
    request_timeout_s: Seconds = 30
    event_streams_max: Count = 64
    events_kept: Count = 100_000
    # Connections at the terminals' port: hundreds of tills with a few each; in all, from one
    # address and with one certificate. Beyond that, new ones are closed at once.
    connections_max: Count = 2_048
    connections_per_address_max: Count = 512
    connections_per_terminal_max: Count = 128
    # Likewise at the ports for pairing and for metrics; one address may have half of them.
    other_connections_max: Count = 64
    # How long a new connection may take for the TLS handshake, then for the head of its first
    # request; and how long it may be idle, the head of the next request included.
    handshake_timeout_s: Seconds = 10
    head_timeout_s: Seconds = 10
    idle_timeout_s: Seconds = 75
    # The head of a request: the longest line, and how many fields.
    head_line_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=64 * 1024)] = 8 * 1024
    head_fields_max: Annotated[int, msgspec.Meta(ge=16, le=1024)] = 64


class TamperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tells that somebody opened the box. A trip is for good: see `cbdc-edge tamper`."""

    source: Literal["none", "gpio", "file"] = "none"
    # A file that trips when it is there and does not say 0.
    file: Path | None = None
    # A line of a chip such as /dev/gpiochip0, and the level that means open.
    chip: Path | None = None
    line: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None
    active: Literal["high", "low"] = "high"
    bias: Literal["as-is", "pull-up", "pull-down", "disabled"] = "as-is"

    def __post_init__(self) -> None:
        # A switch that is configured by half would be no switch.
        if self.source == "file" and self.file is None:
            raise ValueError("the tamper switch `file` needs `file`, its path")
        if self.source == "gpio" and (self.chip is None or self.line is None):
            raise ValueError("the tamper switch `gpio` needs `chip` and `line`")


class TechnicianConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The technician's page: plain HTTP without a log-in, so on loopback unless told otherwise."""

    # Where it listens, as HOST:PORT; port 0 is any free one. Without an address there is no page.
    listen: Annotated[str, msgspec.Meta(max_length=255)] = "127.0.0.1:8445"
    # Names and addresses that it is asked for under, beside its own and those of loopback.
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.listen and not _ADDRESS.fullmatch(self.listen):
            raise ValueError("`listen` is an address and a port, such as 127.0.0.1:8445")
        if self.listen and self.port > 65_535:
            raise ValueError(f"no port is {self.port}")

    @property
    def host(self) -> str:
        """Its address, without the brackets of IPv6."""
        return self.listen.rpartition(":")[0].strip("[]").lower()

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.listen.rpartition(":")[2])


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """JSON lines on the standard error output."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it. `folder` holds what the gateway keeps: the store, sealed keys, certificates."""

    folder: Path = Path("/var/lib/cbdc-edge")
    listen: ListenConfig = msgspec.field(default_factory=ListenConfig)
    token: TokenConfig = msgspec.field(default_factory=TokenConfig)
    sync: SyncConfig = msgspec.field(default_factory=SyncConfig)
    neighbours: NeighboursConfig = msgspec.field(default_factory=NeighboursConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    tamper: TamperConfig = msgspec.field(default_factory=TamperConfig)
    technician: TechnicianConfig = msgspec.field(default_factory=TechnicianConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)


def load_config(
    path: Path | None, *, environment: Mapping[str, str], flags: Mapping[str, str]
) -> Config:
    """Read the file and the parts in `config.d` beside it, then apply what stands over them.

    `environment` holds variables such as CBDC_EDGE_LISTEN__PORT, `flags` dotted keys such as
    `listen.port`. A file that was named has to exist; the default one need not.
    Raises: ConfigInvalid.
    """
    values: dict[str, Any] = {}
    for file in _files(path):
        _merge(values, _read(file))
    for name, text in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX) and name not in _SECRETS:
            _set(values, name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"), text)
    for name, text in flags.items():
        _set(values, name.split("."), text)
    try:
        return msgspec.convert(values, Config, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(str(error)) from error


def _path(kind: type[Any], value: Any) -> Any:
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    raise ValueError("not a path")


def _files(path: Path | None) -> Iterable[Path]:
    main = path or DEFAULT_PATH
    if main.is_file():
        yield main
    elif path is not None:
        raise ConfigInvalid(f"{path} does not exist")
    yield from sorted((main.parent / "config.d").glob("*.toml"))


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            return tomllib.loads(stream.read(FILE_BYTES_MAX).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid(f"{file}: {error}") from error


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
            raise ConfigInvalid(f"{'.'.join(keys)}: {key} is no table")
    values[last] = text.split(",") if last in _LISTS else text


_LISTS = {"names", "urls"}
# Variables of the same prefix that are secrets or point to the file, never part of it.
_SECRETS = {"CBDC_EDGE_PASSPHRASE", "CBDC_EDGE_TOKEN_PIN", "CBDC_EDGE_CONFIG"}
