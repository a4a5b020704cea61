"""`key rotate`: other keys in the place of those that are in use."""

from __future__ import annotations

import sys

from edge.commands.common import WELL, Arguments, Subparsers, await_it
from edge.config import Config
from edge.errors import NotProvisioned
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.secret_input import token_secret
from edge.store_key import rotate_store_key
from hsm.api import Token
from hsm.open import open_token


def add_rotation(what: Subparsers) -> None:
    """Add it to the parser of `key`."""
    rotate = what.add_parser("rotate", help="put another key in the place of one in use")
    which = rotate.add_subparsers(metavar="KEY", required=True)
    database = which.add_parser(
        "database",
        help="the key of the store; stop the daemon first",
        description="Rewrites the whole store under a new key. It may be killed at any moment: the "
        "next start finds the key that opens the store.",
    )
    database.set_defaults(run=_rotate_database)


def _rotate_database(parsed: Arguments, config: Config) -> int:
    folder = Folder(config.folder)
    if not folder.store_key.exists():
        raise NotProvisioned(f"{folder.root}: no store")

    async def work() -> None:
        token = await opened_token(config, folder)
        try:
            await rotate_store_key(folder, token, step=_say)
        finally:
            await token.close()

    await_it(work())
    print("the store has another key; the old one opens nothing any more")
    return WELL


async def opened_token(config: Config, folder: Folder) -> Token:
    """The gateway's token. Raises: HsmError, FileUnreadable."""
    return await open_token(hsm_config(config.token, folder), secret=token_secret(config.token))


def _say(step: str) -> None:
    print(f"database key: {step}", file=sys.stderr)
