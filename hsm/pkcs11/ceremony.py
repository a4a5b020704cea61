"""The steps of a key ceremony in a PKCS#11 token, each a visit: log in, do it, log out."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import pkcs11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error

from hsm.ceremony import Made, MadeKey, TokenFacts
from hsm.pkcs11.config import Pkcs11Config
from hsm.pkcs11.counter import Counting
from hsm.pkcs11.errors import translated
from hsm.pkcs11.keys import CAPTIVE, destroy, find, generate
from hsm.pkcs11.module import Module, module_for

Result = TypeVar("Result")
Work = Callable[[Module, pkcs11.Token], Result]

KIND_NAMES = {
    ObjectClass.PRIVATE_KEY: "signing key, private",
    ObjectClass.PUBLIC_KEY: "signing key, public",
    ObjectClass.SECRET_KEY: "sealing key, secret",
}


async def look(config: Pkcs11Config) -> TokenFacts:
    """Which token it is. Raises: HsmError."""
    return await _visit(config, lambda module, token: _facts(config, module, token))


async def make(config: Pkcs11Config, key_id: bytes) -> Made:
    """Make the keys, and read back what the token says of them. Raises: HsmError."""
    counting = Counting(config.folder)
    await asyncio.to_thread(counting.prepare)

    def work(module: Module, token: pkcs11.Token) -> Made:
        counting.choose(token)
        generate(token, config, key_id=key_id)
        return _made(config, token)

    return await _visit(config, work)


async def begin_counter(config: Pkcs11Config) -> None:
    """Begin a count for a folder whose keys are made elsewhere. Raises: HsmError."""
    counting = Counting(config.folder)
    await asyncio.to_thread(counting.prepare)
    await _visit(config, lambda module, token: counting.choose(token))


async def remove(config: Pkcs11Config, key_id: bytes) -> int:
    """Remove the objects of the configuration's labels that bear this id. Raises: HsmError."""

    def work(module: Module, token: pkcs11.Token) -> int:
        session = token.open(rw=True)
        try:
            return destroy(session, config.labels, key_id=key_id)
        finally:
            session.close()

    return await _visit(config, work)


async def _visit(config: Pkcs11Config, work: Work[Result]) -> Result:
    module = module_for(config.module_path)
    return await module.thread.call(
        lambda: _visited(module, config, work), timeout_s=config.timeout_s
    )


def _visited(module: Module, config: Pkcs11Config, work: Work[Result]) -> Result:
    visitor = object()
    module.join(visitor)
    try:
        with translated():
            token = module.library().get_token(token_label=config.token_label)
            module.log_in(token, config.pin)
            return work(module, token)
    finally:
        with contextlib.suppress(PKCS11Error):
            module.leave(visitor)


def _facts(config: Pkcs11Config, module: Module, token: pkcs11.Token) -> TokenFacts:
    library = module.library()
    version = ".".join(map(str, library.library_version))
    counting = Counting(config.folder)
    return TokenFacts(
        module=config.module_path,
        library=f"{library.library_description} {version}, {library.manufacturer_id}",
        label=token.label,
        serial=token.serial.decode("ascii", "replace").strip(),
        maker=token.manufacturer_id,
        model=token.model,
        hardware=".".join(map(str, token.hardware_version)),
        firmware=".".join(map(str, token.firmware_version)),
        counter="pkcs11" if counting.would_be_in(token) else "software",
    )


def _made(config: Pkcs11Config, token: pkcs11.Token) -> Made:
    keys = find(token, config)
    try:
        objects = [
            made
            for label in config.labels
            for made in list(keys.session.get_objects({Attribute.LABEL: label}))
        ]
        made_keys = sorted((_made_key(one) for one in objects), key=lambda key: key.kind)
    finally:
        keys.session.close()
    return Made(algorithm=config.algorithm, public_key=keys.public_key, keys=tuple(made_keys[::-1]))


def _made_key(made: pkcs11.Object) -> MadeKey:
    object_class = made[Attribute.CLASS]
    checked = {} if object_class is ObjectClass.PUBLIC_KEY else CAPTIVE
    return MadeKey(
        label=made[Attribute.LABEL],
        kind=KIND_NAMES[object_class],
        attributes=tuple(f"{name.name} {'yes' if made[name] else 'no'}" for name in checked),
    )
