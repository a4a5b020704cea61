"""Which token a gateway has, from its configuration."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hsm.api import Algorithm, KeyMissing, PinWrong, TokenRefused
from hsm.open import TokenConfig, create_token, open_token, reseal_token
from hsm.pkcs11 import Pkcs11Config
from tests.support.tokens import FEEBLE, verify

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_the_software_driver_is_chosen_by_its_name(
    tmp_path: Path, algorithm: Algorithm
) -> None:
    config = TokenConfig(driver="software", folder=tmp_path, algorithm=algorithm, cost=FEEBLE)
    made = await create_token(config, secret=b"passphrase")
    opened = await open_token(config, secret=b"passphrase")
    assert opened.driver == "software"
    assert opened.signer.public_key == made.signer.public_key
    verify(opened, b"message", await opened.signer.sign(b"message"))


async def test_a_key_file_of_another_algorithm_is_not_opened(tmp_path: Path) -> None:
    config = TokenConfig(driver="software", folder=tmp_path, cost=FEEBLE)
    await create_token(config, secret=b"passphrase")
    with pytest.raises(KeyMissing):
        await open_token(replace(config, algorithm=Algorithm.ES256), secret=b"passphrase")


def test_a_misspelt_driver_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenRefused, match="software, pkcs11, tpm"):
        TokenConfig(driver="pkcs12", folder=tmp_path)  # type: ignore[arg-type] # as a file may say


def pkcs11_config(folder: Path) -> TokenConfig:
    return TokenConfig(
        driver="pkcs11",
        folder=folder,
        module_path=folder / "module.so",
        token_label="gateway",
        key_label="journal",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"module_path": None},
        {"token_label": ""},
        {"key_label": ""},
        {"timeout_s": 0.0},
        {"timeout_s": 1e9},
        {"timeout_s": float("nan")},
    ],
)
async def test_a_pkcs11_configuration_with_holes_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    config = replace(pkcs11_config(tmp_path), **change)  # type: ignore[arg-type] # any field at all
    with pytest.raises(TokenRefused):
        await open_token(config, secret=b"4711")


async def test_a_pin_that_is_no_text_is_a_wrong_pin_and_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(PinWrong) as refused:
        await create_token(pkcs11_config(tmp_path), secret=b"47\xff11")
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_the_pin_is_not_in_the_text_of_a_configuration(tmp_path: Path) -> None:
    config = Pkcs11Config(
        module_path=tmp_path, token_label="t", key_label="k", pin="4711-secret", folder=tmp_path
    )
    assert "4711" not in repr(config)


async def test_only_a_tpm_is_resealed(tmp_path: Path) -> None:
    config = TokenConfig(driver="software", folder=tmp_path, cost=FEEBLE)
    with pytest.raises(TokenRefused, match="only a TPM"):
        await reseal_token(config, secret=b"passphrase", policy="none")


WITHOUT_LIBRARY = """
import asyncio, sys
from pathlib import Path
# What an import meets on a machine without the libraries.
sys.modules["pkcs11"] = sys.modules["tpm2_pytss"] = None
from hsm.api import Algorithm, TokenRefused
from hsm.open import TokenConfig, create_token
from tests.support.tokens import FEEBLE
folder = Path(sys.argv[1])
asyncio.run(create_token(TokenConfig(driver="software", folder=folder, cost=FEEBLE), secret=b"p"))
for driver in ("pkcs11", "tpm"):
    config = TokenConfig(driver=driver, folder=folder, algorithm=Algorithm.ES256)
    try:
        asyncio.run(create_token(config, secret=b"p"))
    except TokenRefused as error:
        print(error)
"""


def test_a_machine_without_the_library_has_software_tokens(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count("not installed") == 2


@pytest.mark.parametrize(
    "change",
    [
        {"tcti": ""},
        {"pcr_policy": "some"},
        {"nv_index": 0x01C00002},  # where makers keep certificates
        {"nv_index": 1},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"algorithm": Algorithm.EDDSA},
    ],
)
async def test_a_tpm_configuration_with_holes_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    config = TokenConfig(driver="tpm", folder=tmp_path, algorithm=Algorithm.ES256)
    with pytest.raises(TokenRefused):
        await open_token(replace(config, **change), secret=b"4711")  # type: ignore[arg-type] # any field at all


def test_the_secrets_of_a_tpm_are_not_in_the_text_of_a_configuration(tmp_path: Path) -> None:
    config = TokenConfig(
        driver="tpm", folder=tmp_path, owner_auth=b"of-the-owner", endorsement_auth=b"of-the-maker"
    )
    assert "of-the" not in repr(config)
