"""`key rotate`: other keys in the place of those that are in use."""

from __future__ import annotations

import sys

from edge.commands.common import WELL, Arguments, Subparsers, await_it, daemon
from edge.config import Config
from edge.errors import ArgumentsWrong, NotProvisioned
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.http.local_keys import ExchangedAnswer
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

    tls = which.add_parser("tls", help="the server's key; paired terminals go on")
    tls.set_defaults(run=_rotate_server)
    terminals = which.add_parser(
        "terminals",
        help="the authority of terminals, in two steps",
        description="Without --finish: terminals that are paired from now on belong to another "
        "authority, and those of the old one go on. With --finish: the old one is worth nothing.",
    )
    terminals.add_argument("--finish", action="store_true")
    terminals.add_argument(
        "--force", action="store_true", help="shut out terminals that were not paired again"
    )
    terminals.set_defaults(run=_rotate_authority)


class AuthorityArguments(Arguments):
    """What `key rotate terminals` takes."""

    finish: bool
    force: bool


def _rotate_server(parsed: Arguments, config: Config) -> int:
    await_it(daemon(config).call("POST", "/keys/server", ExchangedAnswer, body={}))
    print("the server has another key; terminals go on")
    return WELL


def _rotate_authority(parsed: AuthorityArguments, config: Config) -> int:
    if parsed.force and not parsed.finish:
        raise ArgumentsWrong("--force goes with --finish")
    body = {"step": "finish" if parsed.finish else "begin", "force": parsed.force}
    await_it(daemon(config).call("POST", "/keys/authority", ExchangedAnswer, body=body))
    if parsed.finish:
        print("the old authority vouches for no terminal any more")
    else:
        print("pair the terminals again, each when it suits; then: key rotate terminals --finish")
    return WELL


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
