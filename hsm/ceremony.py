"""A key ceremony: the keys of a gateway are made in a token before witnesses, in steps.

`look` shows which token it is, `make` makes the keys and says what the token says of them, `remove`
takes them back. Whoever calls them shows each step to people and keeps the record.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from hsm.api import Algorithm, TokenRefused
from hsm.open import TokenConfig, pkcs11_config

if TYPE_CHECKING:
    from hsm.pkcs11 import Pkcs11Config

KEY_ID_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """Which token it is, by its own words. `counter`: who will count, "pkcs11" or "software"."""

    module: Path
    library: str
    label: str
    serial: str
    maker: str
    model: str
    hardware: str
    firmware: str
    counter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKey:
    """One object of the token. `attributes`: what was checked of it after its creation."""

    label: str
    kind: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The keys that were made, and the public one, which signed for them."""

    algorithm: Algorithm
    public_key: bytes
    keys: tuple[MadeKey, ...]


async def look(config: TokenConfig, *, secret: bytes) -> TokenFacts:
    """Log in and look at the token; nothing is made.

    Raises:
        TokenRefused: the driver knows no ceremony.
        HsmError: as `hsm.open.open_token`.
    """
    driver, driver_config = _driver(config, secret)
    facts: TokenFacts = await driver.look(driver_config)
    return facts


async def make(config: TokenConfig, *, secret: bytes, key_id: bytes) -> Made:
    """Make the signing pair and the sealing key under the labels of the configuration.

    Nothing is left in the token when it fails, unless the token is lost meanwhile: then `remove`
    finds it by its `key_id`.

    Raises:
        TokenRefused: keys of these labels exist, or the token makes keys that can leave it.
        HsmError: as `hsm.open.create_token`.
    """
    driver, driver_config = _driver(config, secret)
    made: Made = await driver.make(driver_config, key_id)
    return made


async def remove(config: TokenConfig, *, secret: bytes, key_id: bytes) -> int:
    """Remove what a ceremony made, known by its labels and its id; how many objects it were.

    Raises:
        HsmError: as `hsm.open.open_token`.
    """
    driver, driver_config = _driver(config, secret)
    removed: int = await driver.remove(driver_config, key_id)
    return removed


def _driver(config: TokenConfig, secret: bytes) -> tuple[ModuleType, "Pkcs11Config"]:
    if config.driver != "pkcs11":
        raise TokenRefused(
            f"the driver {config.driver} makes its keys at provisioning: a key ceremony is for"
            " PKCS#11 tokens"
        )
    driver_config = pkcs11_config(config, secret)
    # Imported here, so that a machine without the library does everything else.
    from hsm.pkcs11 import ceremony

    return ceremony, driver_config
