"""Keys of the next epoch in a token that holds those of the one before."""

from __future__ import annotations

from hsm.api import KeyMissing
from hsm.pkcs11.ceremony import begin_counter
from hsm.pkcs11.config import Pkcs11Config
from hsm.pkcs11.token import Pkcs11Token, add_signer, create, open_token


async def begin_next(config: Pkcs11Config, *, held: bool) -> Pkcs11Token:
    """Open the keys of the next epoch, or make them; the folder gets a count of its own.

    `held`: a ceremony made them. Otherwise a signing pair is made beside the sealing key where
    that one has a label of its own, else both. It may be killed and asked again: keys that have a
    count in this folder are its own, and any others of their label are refused.

    Raises:
        TokenRefused: the token has keys of this label that are not this folder's.
        HsmError: as `create`, `add_signer` and `open_token`.
    """
    if held:
        await begin_counter(config)
        return await open_token(config)
    try:
        return await open_token(config)
    except KeyMissing:
        if config.label_of_sealing == config.key_label:
            return await create(config)
    await begin_counter(config)
    return await add_signer(config)
