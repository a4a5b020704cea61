"""The `cbdc-edge` command. Exit codes: 0 well, 1 error, 2 usage, 3 degraded, 4 sealed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from edge.commands import (
    audit,
    backups,
    device,
    doctor,
    gateway,
    provisioning,
    reset,
    tamper,
    wallets,
)
from edge.commands.common import FAILED, SEALED, USAGE, Arguments
from edge.config import Config, load_config
from edge.errors import (
    ArgumentsWrong,
    ConfigInvalid,
    DaemonRefused,
    EdgeError,
    GatewayTampered,
    NotProvisioned,
)
from edge.version import version
from hsm.api import HsmError, TokenGone, TokenTimeout
from hsm.process import forbid_cores, lock_memory
from wallet.journal import JournalError
from wallet.protocol.refusals import ProtocolError
from wallet.store.errors import StoreError

_SEALED_CODES = {"sealed", "not-provisioned", "frozen-tamper"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    parsed = _parser().parse_args(arguments, namespace=Arguments())
    try:
        return parsed.run(parsed, _config(parsed))
    except (ArgumentsWrong, ConfigInvalid) as error:
        return _fail(error, USAGE)
    except (NotProvisioned, GatewayTampered, TokenGone, TokenTimeout) as error:
        return _fail(error, SEALED)
    except DaemonRefused as error:
        return _fail(error, SEALED if error.problem in _SEALED_CODES else FAILED)
    except (EdgeError, HsmError, StoreError, JournalError, ProtocolError, OSError) as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return FAILED


def run() -> int:
    """Run one command in a process of its own, which leaves no core and no page on a swap disk."""
    forbid_cores()
    lock_memory()
    return main()


def _fail(error: Exception, code: int) -> int:
    text, name = str(error), str(getattr(error, "code", ""))
    if name not in text:
        # Errors of the token leave their code to who prints them.
        text = f"{name}: {text}"
    print(f"cbdc-edge: {text}", file=sys.stderr)
    return code


def _config(parsed: Arguments) -> Config:
    flags = dict(_flag(text) for text in parsed.set)
    if parsed.folder is not None:
        flags["folder"] = str(parsed.folder)
    named = parsed.config or os.environ.get("CBDC_EDGE_CONFIG")
    return load_config(Path(named) if named else None, environment=os.environ, flags=flags)


def _flag(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigInvalid(f"--set {text}: write KEY=VALUE, such as listen.port=8440")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cbdc-edge",
        description="The gateway in the branch: takes payments with or without a network.",
        epilog="Exit codes: 0 well, 1 error, 2 usage, 3 degraded, 4 sealed or not provisioned.",
    )
    parser.add_argument("--version", action="version", version=f"cbdc-edge {version()}")
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="configuration (default: /etc/cbdc-edge/config.toml and config.d/)",
    )
    parser.add_argument("--folder", metavar="DIR", type=Path, help="the data folder")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="one key of the configuration, such as listen.port=8440; may be repeated",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (gateway, provisioning, device, wallets, backups, audit, tamper, reset, doctor):
        module.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(run())
