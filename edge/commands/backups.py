"""`backup` and `restore`: a copy of the store under a passphrase, and what the next epoch gets."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

from edge.backup import (
    claims_in,
    derive_key,
    opened_backup,
    read_made,
    restore_hosted,
)
from edge.commands.common import WELL, Arguments, Subparsers, await_it, daemon
from edge.config import Config
from edge.errors import NotProvisioned
from edge.folder import Folder
from edge.gateway import hsm_config
from edge.http.local import BackupAnswer
from edge.http.octets import to_text
from edge.secret_input import read_secret_file, token_secret
from edge.tamper import guarded, open_unmarked, refuse_tampered
from hsm.files import make_folder, replace_durably
from hsm.open import open_token
from wallet.clock import SystemClock
from wallet.protocol.ids import JournalId, journal_text
from wallet.protocol.merkle import leaf_hash
from wallet.store.connection import Connection
from wallet.store.copying import SALT_BYTES


class BackupArguments(Arguments):
    """What `backup` and `restore` take."""

    file: Path
    passphrase_file: Path
    receipts: Path | None


def add_commands(commands: Subparsers) -> None:
    """Add them to the parser."""
    parser = commands.add_parser(
        "backup",
        help="copy the store into one file while payments go on",
        description="The file opens with the passphrase alone, on any machine: keep both apart. "
        "It is no way back: after a loss the issuer opens a new epoch, and the file proves what "
        "the issuer had not got.",
    )
    _add_file(parser)
    parser.set_defaults(run=_backup)
    parser = commands.add_parser(
        "restore",
        help="after a loss: claims, and keys of hosted wallets, from a backup",
        description="With --receipts: writes what the issuer had not got, for `cbdc-cloud gateway "
        "claims`. Without: brings hosted wallets into this folder, which has to be the gateway "
        "that goes on, and not to run.",
    )
    _add_file(parser)
    parser.add_argument("--receipts", type=Path, metavar="DIR", help="where to write receipts")
    parser.set_defaults(run=_restore)


def _add_file(parser: Subparsers) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--passphrase-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="the backup's own passphrase, in the first line",
    )


def _backup(parsed: BackupArguments, config: Config) -> int:
    refuse_tampered(Folder(config.folder))
    salt = secrets.token_bytes(SALT_BYTES)
    key = derive_key(read_secret_file(parsed.passphrase_file), salt)
    body = {"path": str(parsed.file.absolute()), "key": to_text(key), "salt": to_text(salt)}
    made = await_it(daemon(config).call("POST", "/backup", BackupAnswer, body=body))
    print(f"{parsed.file}: {made.journal} epoch {made.epoch}, {made.size} entries")
    print(f"the issuer holds {made.acknowledged} of them")
    return WELL


def _restore(parsed: BackupArguments, config: Config) -> int:
    if parsed.receipts is not None:
        return await_it(_write_receipts(parsed, parsed.receipts))
    with guarded(config, SystemClock()):
        return await_it(_bring_hosted(parsed, config))


async def _write_receipts(parsed: BackupArguments, folder: Path) -> int:
    passphrase = read_secret_file(parsed.passphrase_file)
    make_folder(folder)
    async with opened_backup(parsed.file, passphrase) as backup:
        made = await read_made(backup, parsed.file)

        def write(connection: Connection) -> int:
            count = 0
            for claim in claims_in(connection, made):
                value = {"entry": to_text(claim.entry), "receipt": to_text(claim.receipt)}
                path = folder / f"{leaf_hash(claim.entry).hex()}.json"
                replace_durably(path, json.dumps(value).encode())
                count += 1
            return count

        count = await backup.read(write)
    print(f"{journal_text(JournalId(made.journal))} epoch {made.epoch}: {count} receipts")
    print(f"Next: cbdc-cloud gateway claims --receipts {folder}", file=sys.stderr)
    return WELL


async def _bring_hosted(parsed: BackupArguments, config: Config) -> int:
    passphrase, folder = read_secret_file(parsed.passphrase_file), Folder(config.folder)
    if not folder.store_key.exists():
        raise NotProvisioned(
            f"{folder.root}: a backup does not go on by itself. After the issuer's statement, "
            "`cbdc-edge provision` makes the gateway that goes on; restore there"
        )
    token = await open_token(hsm_config(config.token, folder), secret=token_secret(config.token))
    try:
        into = await open_unmarked(folder, token)
        try:
            async with opened_backup(parsed.file, passphrase) as backup:
                made = await read_made(backup, parsed.file)
                came = await restore_hosted(backup, made, into=into, sealer=token.sealer)
        finally:
            await into.close()
    finally:
        await token.close()
    print(f"{came} hosted wallets came; their PINs are what they were")
    return WELL
