"""Gateways whose keys are in tokens: SoftHSM2, or a software TPM that a maker certified."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from edge.config import TokenConfig
from tests.support.attested import Trust, certify_chip, manifest_of, measured, tpm_token
from tests.support.branch_local import PASSPHRASE
from tests.support.counting_hsm import CountingHsm
from tests.support.maker import Maker
from tests.support.recovery import Story
from tests.support.softhsm import SoftHsm
from tests.support.swtpm import Swtpm, running_swtpm

# Beside those of the gateways.
MEASURING_INDEX = 0x0180CBE0
FIRST_INDEX, NEXT_INDEX = 0x0180CBDC, 0x0180CBDD


@contextlib.contextmanager
def softhsm_keys(folder: Path, *, counting: bool = False) -> Iterator[tuple[SoftHsm, TokenConfig]]:
    """A token, with a counter or without, and the settings of a gateway on it."""
    hsm = CountingHsm(folder) if counting else SoftHsm(folder)
    hsm.init_token(pin=PASSPHRASE.decode())
    with hsm.in_this_process():
        keys = TokenConfig(
            driver="pkcs11", module=hsm.module_path, label="gateway", key_label="first"
        )
        yield hsm, keys


@contextlib.asynccontextmanager
async def tpm_keys(
    story: Story, maker: Maker, folder: Path
) -> AsyncIterator[tuple[Swtpm, Trust, TokenConfig]]:
    """A certified TPM with an approved image, and the settings of a gateway on it.

    It opens under any firmware; the issuer sees which.
    """
    with running_swtpm(folder) as chip:
        await certify_chip(chip, maker, folder / "factory")
        trust = await Trust.of(story.cloud)
        await trust.approve("maker", maker.root)
        async with tpm_token(chip, folder / "measuring", nv_index=MEASURING_INDEX) as token:
            await trust.approve("image", manifest_of(await measured(token)))
        yield (
            chip,
            trust,
            TokenConfig(
                driver="tpm",
                algorithm="es256",
                tcti=chip.tcti,
                pcr_policy="none",
                nv_index=FIRST_INDEX,
            ),
        )


def moved(keys: TokenConfig, **changes: object) -> TokenConfig:
    """The settings after the technician changed them."""
    return msgspec.structs.replace(keys, **changes)
