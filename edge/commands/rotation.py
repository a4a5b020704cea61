"""`key rotate`: other keys in the place of those that are in use."""

from __future__ import annotations

import sys
from pathlib import Path

from edge.commands.common import DEGRADED, WELL, Arguments, Subparsers, await_it, daemon
from edge.config import Config
from edge.errors import ArgumentsWrong, NotProvisioned
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.http.local_keys import EndedAnswer, ExchangedAnswer
from edge.secret_input import read_secret_file, token_secret
from edge.store_key import rotate_store_key
from edge.succession import succeed
from hsm.api import Token
from hsm.open import open_token
from wallet.clock import SystemClock


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

    signing = which.add_parser(
        "signing",
        help="the journal's key: the next epoch, by the issuer's statement",
        description="First --end, while the daemon runs: no more payments in this epoch. Then two "
        "officers close it (cbdc-cloud gateway close --cause planned), sign its statement and give "
        "a successor's token; with it and --token-file, and the daemon stopped, the gateway goes "
        "on under a new key with all wallets and terminals.",
    )
    signing.add_argument("--end", action="store_true", help="end this epoch for good")
    signing.add_argument("--token-file", type=Path, metavar="FILE", help="the successor's token")
    signing.add_argument("--key-label", help="the new key's label in a PKCS#11 token")
    signing.set_defaults(run=_rotate_signing)


class SigningArguments(Arguments):
    """What `key rotate signing` takes."""

    end: bool
    token_file: Path | None
    key_label: str | None


def _rotate_signing(parsed: SigningArguments, config: Config) -> int:
    if parsed.end == (parsed.token_file is not None):
        raise ArgumentsWrong("either --end, or --token-file with the successor's token")
    if parsed.token_file is None:
        return _end_epoch(config)
    work = succeed(
        config,
        secret=token_secret(config.token),
        enrolment_token=read_secret_file(parsed.token_file).decode("ascii", "replace"),
        key_label=parsed.key_label,
        clock=SystemClock(),
        say=lambda step: print(f"signing key: {step}", file=sys.stderr),
    )
    await_it(work)
    print("the gateway goes on under another key; what was before is kept beside it")
    if parsed.key_label is not None:
        print(f"now set token.key_label to {parsed.key_label} in the configuration")
    return WELL


def _end_epoch(config: Config) -> int:
    ended = await_it(daemon(config).call("POST", "/epoch/end", EndedAnswer, body={}))
    print(f"{ended.journal} epoch {ended.epoch} has ended")
    if not ended.known:
        print("the issuer does not know it yet: synchronise, or ask again", file=sys.stderr)
    return WELL if ended.known else DEGRADED


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
