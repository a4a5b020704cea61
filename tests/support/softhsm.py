"""A SoftHSM2 token of a test's own: its own configuration, its own folder, no trace elsewhere."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hsm.api import Algorithm
from hsm.pkcs11 import Pkcs11Config

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/arm-linux-gnueabihf/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
COMMAND_TIMEOUT_S = 60


def module_path() -> Path:
    """Return the path of SoftHSM2's module.

    Raises:
        FileNotFoundError: it is not installed (Debian: softhsm2).
    """
    for path in map(Path, MODULES):
        if path.exists():
            return path
    raise FileNotFoundError("libsofthsm2.so is not installed: apt-get install softhsm2")


class SoftHsm:
    """A folder with SoftHSM2 tokens.

    A process sees them while SOFTHSM2_CONF names `conf`: `environment` is for processes that a test
    starts, `in_this_process()` for the test itself.
    """

    def __init__(self, folder: Path, *, mechanisms: str = "ALL") -> None:
        self.module_path = module_path()
        self.tokens = folder / "tokens"
        self.conf = folder / "softhsm2.conf"
        self.variables = {"SOFTHSM2_CONF": str(self.conf)}
        self._away = folder / "away"
        self.tokens.mkdir(parents=True)
        self.conf.write_text(
            f"directories.tokendir = {self.tokens}\n"
            "objectstore.backend = file\n"
            "log.level = ERROR\n"
            "slots.removable = true\n"
            f"slots.mechanisms = {mechanisms}\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that sees these tokens."""
        return {**os.environ, **self.variables}

    @contextlib.contextmanager
    def in_this_process(self) -> Iterator[None]:
        """Let this process see these tokens. Tokens opened meanwhile are closed before the end."""
        before = {name: os.environ.get(name) for name in self.variables}
        os.environ.update(self.variables)
        try:
            yield
        finally:
            for name, value in before.items():
                del os.environ[name]
                if value is not None:
                    os.environ[name] = value

    def init_token(self, label: str = "gateway", *, pin: str = "4711") -> None:
        """Make a token with a user PIN."""
        command = ("softhsm2-util", "--init-token", "--free", "--label", label)
        self._run(*command, "--so-pin", "87654321", "--pin", pin)

    def config(
        self,
        folder: Path,
        *,
        token_label: str = "gateway",
        key_label: str = "journal",
        pin: str = "4711",
        algorithm: Algorithm = Algorithm.EDDSA,
        sealing_label: str = "",
        timeout_s: float = 30.0,
    ) -> Pkcs11Config:
        """Return the driver's configuration; `folder` is for its counter."""
        return Pkcs11Config(
            module_path=self.module_path,
            token_label=token_label,
            key_label=key_label,
            pin=pin,
            folder=folder,
            algorithm=algorithm,
            sealing_label=sealing_label,
            timeout_s=timeout_s,
        )

    def tool(self, *arguments: str, token_label: str = "gateway", pin: str = "4711") -> str:
        """Run OpenSC's pkcs11-tool, logged in, and return what it prints."""
        command = ["pkcs11-tool", "--module", str(self.module_path), "--token-label", token_label]
        return self._run(*command, "--login", "--pin", "env:TOKEN_PIN", *arguments, TOKEN_PIN=pin)

    def serial(self) -> str:
        """The serial of the first token, by OpenSC's pkcs11-tool."""
        shown = self._run("pkcs11-tool", "--module", str(self.module_path), "--list-token-slots")
        serials: list[str] = re.findall(r"serial num +: (\w+)", shown)
        return serials[0]

    def vanish(self) -> None:
        """Take the tokens away, as one pulls a stick."""
        self._away.mkdir()
        for token in list(self.tokens.iterdir()):
            token.rename(self._away / token.name)

    def come_back(self) -> None:
        """Put them back."""
        for token in list(self._away.iterdir()):
            token.rename(self.tokens / token.name)
        self._away.rmdir()

    def remove(self) -> None:
        """Delete all, even the folder of the tokens."""
        shutil.rmtree(self.tokens)

    def _run(self, *command: str, **environment: str) -> str:
        done = subprocess.run(
            command,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")
        return done.stdout
