"""`key rotate`: other keys in the place of those that are in use."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from edge.commands.common import DEGRADED, WELL, Arguments, Subparsers, await_it, daemon
from edge.config import Config, TokenConfig
from edge.errors import ArgumentsWrong, NotProvisioned
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.http.local_keys import EndedAnswer, ExchangedAnswer
from edge.secret_input import read_secret_file, token_secret
from edge.store_key import rotate_store_key
from edge.succession import NextKeys, next_settings, succeed
from edge.tamper import guarded, open_unmarked, refuse_tampered
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
    signing.add_argument(
        "--sealing-label",
        help="the label of the new sealing key there, after a key ceremony; else it stays",
    )
    signing.add_argument(
        "--nv-index", type=_nv_index, help="where the new counter stands in a TPM: 0x0180CBDD"
    )
    signing.set_defaults(run=_rotate_signing)


class SigningArguments(Arguments):
    """What `key rotate signing` takes."""

    end: bool
    token_file: Path | None
    key_label: str | None
    sealing_label: str | None
    nv_index: int | None


def _nv_index(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: a number such as 0x0180CBDD") from error


def _rotate_signing(parsed: SigningArguments, config: Config) -> int:
    if parsed.end == (parsed.token_file is not None):
        raise ArgumentsWrong("either --end, or --token-file with the successor's token")
    if parsed.token_file is None:
        return _end_epoch(config)
    keys = NextKeys(
        key_label=parsed.key_label,
        sealing_label=parsed.sealing_label,
        nv_index=parsed.nv_index,
    )
    settings = next_settings(config.token, keys)
    clock, enrolment_token = SystemClock(), read_secret_file(parsed.token_file)
    with guarded(config, clock) as look:

        def say(step: str) -> None:
            print(f"signing key: {step}", file=sys.stderr)
            look()

        work = succeed(
            config,
            secret=token_secret(config.token),
            enrolment_token=enrolment_token.decode("ascii", "replace"),
            keys=keys,
            clock=clock,
            say=say,
        )
        await_it(work)
    print("the gateway goes on under another key; what was before is kept beside it")
    _say_settings(config.token, settings)
    return WELL


def _say_settings(before: TokenConfig, after: TokenConfig) -> None:
    """What has to change in the configuration, which the command does not write."""
    changed = {
        "key_label": (before.key_label, f'"{after.key_label}"'),
        "sealing_label": (before.sealing_label, f'"{after.sealing_label}"'),
        "nv_index": (before.nv_index, f"{after.nv_index or 0:#010x}"),
    }
    lines = [
        f"{name} = {text}" for name, (old, text) in changed.items() if getattr(after, name) != old
    ]
    if lines:
        print("\n".join(["set in the configuration, under [token]:", *lines]))


def _end_epoch(config: Config) -> int:
    refuse_tampered(Folder(config.folder))
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
    refuse_tampered(Folder(config.folder))
    await_it(daemon(config).call("POST", "/keys/server", ExchangedAnswer, body={}))
    print("the server has another key; terminals go on")
    return WELL


def _rotate_authority(parsed: AuthorityArguments, config: Config) -> int:
    if parsed.force and not parsed.finish:
        raise ArgumentsWrong("--force goes with --finish")
    refuse_tampered(Folder(config.folder))
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

    with guarded(config, SystemClock()) as look:

        def say(step: str) -> None:
            print(f"database key: {step}", file=sys.stderr)
            look()

        work = exchange_store_key(config, folder, say, secret=token_secret(config.token))
        await_it(work)
    print("the store has another key; the old one opens nothing any more")
    return WELL


async def exchange_store_key(
    config: Config, folder: Folder, step: Callable[[str], None], *, secret: bytes
) -> None:
    """Another key for the store. Raises: as `open_unmarked` and `rotate_store_key`."""
    token = await open_token(hsm_config(config.token, folder), secret=secret)
    try:
        # What an exchange left behind that was cut off is settled by this, too.
        await (await open_unmarked(folder, token)).close()
        await rotate_store_key(folder, token, step=step)
    finally:
        await token.close()
