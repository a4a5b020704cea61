"""The store's key: made and sealed by the token, exchanged, and found again after a crash.

While the key is exchanged there are two sealed files. The new key is sealed before the store is
touched, and takes the place of the old one after the store opens with it: whenever that is cut off,
one of the two files opens the store.
"""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from edge.folder import Folder
from edge.log import Log
from edge.secret_input import read_file
from hsm.api import Token
from hsm.files import create_durably, replace_durably
from hsm.memory import wipe
from wallet.store.database import KEY_BYTES, Database
from wallet.store.errors import WrongKey
from wallet.store.rotation import Step, rekey_store

STORE_KEY_LABEL = "store-key"
SEALED_BYTES_MAX = 8192
_log = Log("store-key")


async def make_store_key(folder: Folder, token: Token) -> None:
    """Make the store's key, sealed by the token, where there is none. Raises: HsmError, OSError."""
    if not folder.store_key.exists():
        key = secrets.token_bytes(KEY_BYTES)
        sealed = await token.sealer.seal(key, label=STORE_KEY_LABEL)
        wipe(key)
        create_durably(folder.store_key, sealed)


async def read_store_key(folder: Folder, token: Token) -> bytes:
    """The store's key, opened by the token. Raises: HsmError, FileUnreadable."""
    return await _read(folder.store_key, token)


async def _read(path: Path, token: Token) -> bytes:
    sealed = read_file(path, bytes_max=SEALED_BYTES_MAX)
    return await token.sealer.unseal(sealed, label=STORE_KEY_LABEL)


async def open_store(folder: Folder, token: Token) -> Database:
    """The store, by whichever of its keys is the right one.

    Raises: HsmError, FileUnreadable, StoreError, OSError.
    """
    # A store that is missing has to be missed: it is not made anew under the next key.
    if folder.next_store_key.exists() and folder.store.exists():
        # The next key first: the old one would make a store that was exchanged look tampered with.
        try:
            database = await _open(folder, await _read(folder.next_store_key, token))
        except WrongKey:
            _log.info("store-key.kept")
        else:
            _promote(folder)
            return database
    database = await _open(folder, await read_store_key(folder, token))
    folder.next_store_key.unlink(missing_ok=True)
    return database


async def _open(folder: Folder, key: bytes) -> Database:
    """Open the store and leave the key behind nowhere."""
    try:
        return await Database.open(folder.store, key=key)
    finally:
        wipe(key)


def _promote(folder: Folder) -> None:
    """The next key is the key."""
    sealed = read_file(folder.next_store_key, bytes_max=SEALED_BYTES_MAX)
    replace_durably(folder.store_key, sealed)
    folder.next_store_key.unlink()
    _log.info("store-key.exchanged")


async def rotate_store_key(folder: Folder, token: Token, *, step: Step) -> None:
    """Exchange the key of a store that nobody has open.

    `step` is told what has just been done: `sealed`, those of `rekey_store`, `promoted`.
    Raises: StoreInUse while the daemon runs, HsmError, StoreError, OSError.
    """
    # What an exchange left behind that was cut off is settled first.
    await (await open_store(folder, token)).close()
    old, new = await read_store_key(folder, token), secrets.token_bytes(KEY_BYTES)
    replace_durably(folder.next_store_key, await token.sealer.seal(new, label=STORE_KEY_LABEL))
    step("sealed")
    try:
        await asyncio.to_thread(rekey_store, folder.store, key=old, new_key=new, step=step)
    finally:
        wipe(old)
        wipe(new)
    _promote(folder)
    step("promoted")
