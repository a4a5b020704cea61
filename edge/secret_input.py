"""Secrets that people give: from a file, the environment or a question, never from arguments."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from edge.config import TokenConfig
from edge.errors import FileUnreadable
from hsm.process import forget_variable

SECRET_BYTES_MAX = 1024
PASSPHRASE_VARIABLE = "CBDC_EDGE_PASSPHRASE"
PIN_VARIABLE = "CBDC_EDGE_TOKEN_PIN"


def read_file(path: Path, *, bytes_max: int) -> bytes:
    """A small file. Raises: FileUnreadable."""
    try:
        with path.open("rb") as stream:
            content = stream.read(bytes_max + 1)
    except OSError as error:
        raise FileUnreadable(f"{path}: {error.strerror}") from error
    if len(content) > bytes_max:
        raise FileUnreadable(f"{path}: larger than {bytes_max} bytes")
    return content


def read_secret_file(path: Path) -> bytes:
    """The first line of a file that holds one secret. Raises: FileUnreadable."""
    secret = read_file(path, bytes_max=SECRET_BYTES_MAX).split(b"\n")[0].strip()
    if not secret:
        raise FileUnreadable(f"{path}: empty")
    return secret


def ask(question: str, *, instead: str) -> bytes:
    """Ask a person, without showing the answer; `instead` says where else it may come from.

    Raises: FileUnreadable without a terminal.
    """
    if not sys.stdin.isatty():
        raise FileUnreadable(f"{question}: nobody to ask; give {instead}")
    return getpass.getpass(f"{question}: ").encode()


def token_secret(config: TokenConfig, *, environment: Mapping[str, str] = os.environ) -> bytes:
    """The passphrase or PIN of the token; a TPM may have none. Raises: FileUnreadable."""
    if config.driver == "software":
        path, variable, question = config.passphrase_file, PASSPHRASE_VARIABLE, "Passphrase"
        key = "token.passphrase_file"
    else:
        path, variable, question = config.pin_file, PIN_VARIABLE, "PIN of the token"
        key = "token.pin_file"
    if path is not None:
        return read_secret_file(path)
    if environment.get(variable):
        secret = environment[variable].encode()
        if environment is os.environ:
            # It has been read: neither /proc nor a process that we start needs to have it.
            forget_variable(variable)
        return secret
    if config.driver == "tpm":
        # Most TPMs open to their measurements alone, so that a branch starts without anybody there.
        return b""
    return ask(question, instead=f"`{key}` in the configuration, or {variable}")
