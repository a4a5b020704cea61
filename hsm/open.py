"""Which token a gateway has, from its configuration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from hsm import software
from hsm.api import Algorithm, KeyMissing, PinWrong, Token, TokenRefused
from hsm.keyfile import STANDARD, Cost
from hsm.pcr_policies import PcrPolicy

if TYPE_CHECKING:
    from hsm.pkcs11 import Pkcs11Config
    from hsm.tpm import TpmToken

Driver = Literal["software", "pkcs11", "tpm"]
DRIVERS = get_args(Driver)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenConfig:
    """A driver and what it needs; the PIN or passphrase is not among it.

    `folder` holds the key file of the software driver and its counter, which PKCS#11 uses too, or
    what a TPM made. `cost` is the software driver's, the next four are of PKCS#11, what follows
    `tcti` is of a TPM, as in `hsm.tpm.TpmConfig`.

    Raises:
        TokenRefused: there is no such driver.
    """

    driver: Driver
    folder: Path
    algorithm: Algorithm = Algorithm.EDDSA
    cost: Cost = STANDARD
    module_path: Path | None = None
    token_label: str = ""
    key_label: str = ""
    sealing_label: str = ""
    tcti: str = "device:/dev/tpmrm0"
    pcr_policy: PcrPolicy = "firmware"
    nv_index: int | None = None
    owner_auth: bytes = field(default=b"", repr=False)
    endorsement_auth: bytes = field(default=b"", repr=False)
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        # A misspelt driver must not become the weaker one.
        if self.driver not in DRIVERS:
            raise TokenRefused(f"the drivers of tokens are {', '.join(DRIVERS)}")


async def open_token(config: TokenConfig, *, secret: bytes) -> Token:
    """Open the token with its passphrase or PIN.

    Raises:
        HsmError: as the driver's `open_token`.
    """
    if config.driver == "pkcs11":
        return await _pkcs11(config, secret, new=False)
    if config.driver == "tpm":
        return await _tpm(config, secret, new=False)
    token = await software.open_token(config.folder, passphrase=secret)
    if token.signer.algorithm is not config.algorithm:
        await token.close()
        raise KeyMissing(f"the key file is not of {config.algorithm.name}")
    return token


async def create_token(config: TokenConfig, *, secret: bytes) -> Token:
    """Make new keys under a passphrase, or in the token that the PIN opens.

    Raises:
        HsmError: as the driver's `create`.
    """
    if config.driver == "pkcs11":
        return await _pkcs11(config, secret, new=True)
    if config.driver == "tpm":
        return await _tpm(config, secret, new=True)
    return await software.create(
        config.folder, passphrase=secret, algorithm=config.algorithm, cost=config.cost
    )


async def begin_next_token(config: TokenConfig, *, secret: bytes, held: bool) -> Token:
    """Open the keys of the next epoch beside those of the one before, or make them.

    `held`: a key ceremony made them in a PKCS#11 token.

    Raises:
        HsmError: as the driver's `create` and `open_token`, or `hsm.pkcs11.begin_next`.
    """
    if config.driver == "pkcs11":
        driver_config = pkcs11_config(config, secret)
        from hsm import pkcs11

        return await pkcs11.begin_next(driver_config, held=held)
    try:
        return await open_token(config, secret=secret)
    except KeyMissing:
        return await create_token(config, secret=secret)


async def reseal_token(config: TokenConfig, *, secret: bytes, policy: PcrPolicy) -> None:
    """Seal a TPM's keys to another PCR policy and the measurements of now.

    Raises:
        TokenRefused: the token is no TPM.
        HsmError: as the driver's `open_token`.
    """
    if config.driver != "tpm":
        raise TokenRefused("only a TPM seals to measurements")
    token = await _tpm(config, secret, new=False)
    try:
        await token.reseal(policy)
    finally:
        await token.close()


async def _pkcs11(config: TokenConfig, secret: bytes, *, new: bool) -> Token:
    driver_config = pkcs11_config(config, secret)
    from hsm import pkcs11

    return await (pkcs11.create if new else pkcs11.open_token)(driver_config)


def pkcs11_config(config: TokenConfig, secret: bytes) -> "Pkcs11Config":
    """The configuration as the driver wants it, with the PIN.

    Raises:
        TokenRefused: something is missing: the library, the module's path, a label.
        PinWrong: the PIN is no text.
    """
    # Imported here, so that a machine without the library opens software tokens.
    try:
        from hsm import pkcs11
    except ImportError as error:
        raise TokenRefused("the PKCS#11 library of Python is not installed") from error

    if config.module_path is None:
        raise TokenRefused("a PKCS#11 token needs the path of its module")
    return pkcs11.Pkcs11Config(
        module_path=config.module_path,
        token_label=config.token_label,
        key_label=config.key_label,
        sealing_label=config.sealing_label,
        pin=_pin(secret),
        folder=config.folder,
        algorithm=config.algorithm,
        timeout_s=config.timeout_s,
    )


async def _tpm(config: TokenConfig, secret: bytes, *, new: bool) -> "TpmToken":
    # Imported here, so that a machine without the library opens other tokens.
    try:
        from hsm import tpm
    except ImportError as error:
        raise TokenRefused("the TPM library of Python is not installed") from error

    if config.algorithm is not Algorithm.ES256:
        raise TokenRefused("a TPM signs with ES256")
    driver_config = tpm.TpmConfig(
        folder=config.folder,
        tcti=config.tcti,
        pcr_policy=config.pcr_policy,
        pin=secret,
        nv_index=tpm.NV_INDEX_DEFAULT if config.nv_index is None else config.nv_index,
        owner_auth=config.owner_auth,
        endorsement_auth=config.endorsement_auth,
        timeout_s=config.timeout_s,
    )
    return await (tpm.create if new else tpm.open_token)(driver_config)


def _pin(secret: bytes) -> str:
    try:
        return secret.decode()
    except UnicodeDecodeError:
        # The cause is left out: its text would show the PIN.
        raise PinWrong("the PIN is no UTF-8") from None
