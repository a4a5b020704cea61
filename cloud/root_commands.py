"""What `cbdc-cloud issuer root` does: a root whose key never lies where the cloud runs.

`make` and `certify` run where the root is kept, without a network, a configuration or a database.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import secrets
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from cloud.clock import SystemClock
from cloud.config import Config
from cloud.errors import CloudError
from cloud.issuer import root
from cloud.issuer.pki import Workshop
from cloud.issuer.vault import Vault
from cloud.service import make_passphrase, open_store
from hsm.files import create_durably
from hsm.keyfile import STANDARD

PASSPHRASE_BYTES_MAX = 1_024
WELL = 0
_PASSPHRASE = "a file whose first line opens the root's key; otherwise it is asked for"


def add_root(actions: Any) -> None:
    """Add the commands to the parser."""
    top = actions.add_parser("root", help="keep the root's key away from here")
    verbs = top.add_subparsers(dest="step", required=True, metavar="STEP")
    made = verbs.add_parser("make", help="at the root: a new key file and its certificate")
    made.add_argument("key", type=Path, help="a file that is not there yet")
    made.add_argument("--certificate", type=Path, required=True, help="for root.der")
    made.add_argument("--organisation", required=True)
    made.add_argument("--passphrase-file", type=Path, help=_PASSPHRASE)
    made.set_defaults(alone=make_root)
    asked = verbs.add_parser("requests", help="at the cloud: what the root is to certify")
    asked.add_argument("file", type=Path, help="a file that is not there yet")
    asked.set_defaults(run=write_requests)
    signed = verbs.add_parser("certify", help="at the root: sign the requests")
    signed.add_argument("requests", type=Path)
    signed.add_argument("--key", type=Path, required=True)
    signed.add_argument("--certificate", type=Path, required=True, help="root.der")
    signed.add_argument("--out", type=Path, required=True, help="a file that is not there yet")
    signed.add_argument("--passphrase-file", type=Path, help=_PASSPHRASE)
    signed.set_defaults(alone=certify)
    taken = verbs.add_parser("install", help="at the cloud: take what the root has certified")
    taken.add_argument("file", type=Path)
    taken.set_defaults(run=install)
    out = verbs.add_parser("take-out", help="at the cloud: move the root's key into a file")
    out.add_argument("key", type=Path, help="a file that is not there yet")
    out.add_argument("--passphrase-file", type=Path, help=_PASSPHRASE)
    out.set_defaults(run=take_out)


# ---- at the root ------------------------------------------------------------------------
def make_root(options: argparse.Namespace) -> int:
    """A new root. Raises: OSError where one of the files is there already."""
    passphrase = _passphrase(options.passphrase_file, twice=True)
    key, certificate = root.make(
        organisation=options.organisation,
        seed=secrets.token_bytes(32),
        now_ms=SystemClock().now_ms(),
        random=secrets.token_bytes,
        passphrase=passphrase,
        cost=STANDARD,
    )
    create_durably(options.key, key)
    create_durably(options.certificate, certificate)
    print(f"{options.key}: stays here, with a copy in another safe; nobody can make it again")
    print(f"{options.certificate}: to the cloud, and to whoever verifies receipts")
    print(f"Next, at the cloud: cbdc-cloud init --root-certificate {options.certificate}")
    return WELL


def certify(options: argparse.Namespace) -> int:
    """Sign what is asked for, after saying what that is. Raises: CloudError, HsmError, OSError."""
    requests = root.read_requests(_read(options.requests, root.FILE_BYTES_MAX))
    print("This root is to certify, for a cloud:")
    for wanted in requests.wanted:
        print(f"  {wanted.name:<18} {wanted.public_key}")
    authority = root.open_key(
        _read(options.key, root.FILE_BYTES_MAX),
        _read(options.certificate, root.FILE_BYTES_MAX),
        passphrase=_passphrase(options.passphrase_file),
    )
    made = root.certify(
        requests, authority, now_ms=SystemClock().now_ms(), random=secrets.token_bytes
    )
    create_durably(options.out, made)
    print(f"{options.out}: back to the cloud; `cbdc-cloud issuer root install` takes it")
    return WELL


def _passphrase(path: Path | None, *, twice: bool = False) -> bytes:
    """From a file, or from a person. Raises: CloudError `passphrase-missing`."""
    if path is not None:
        found = _read(path, PASSPHRASE_BYTES_MAX).split(b"\n")[0].strip()
    elif not sys.stdin.isatty():
        raise CloudError("passphrase-missing", "nobody to ask; give --passphrase-file")
    else:
        found = getpass.getpass("Passphrase of the root's key: ").encode()
        if twice and getpass.getpass("The same again: ").encode() != found:
            raise CloudError("passphrase-missing", "the two differ")
    if not found:
        raise CloudError("passphrase-missing", "it is empty")
    return found


# ---- at the cloud -----------------------------------------------------------------------
async def begin(config: Config, certificate: Path) -> None:
    """Make an issuer under a root that was made elsewhere. Raises: CloudError, HsmError."""
    make_passphrase(config)
    async with _workshop(config, create=True) as workshop:
        await root.adopt(workshop, _read(certificate, root.FILE_BYTES_MAX))


async def write_requests(config: Config, options: argparse.Namespace) -> int:
    """The next keys of the journals' authority and of every role."""
    async with _workshop(config) as workshop:
        asked = await root.ask(workshop)
    create_durably(options.file, asked)
    print(f"{options.file}: to the root, which signs it: `cbdc-cloud issuer root certify`")
    return WELL


async def install(config: Config, options: argparse.Namespace) -> int:
    """Put what was certified in use. A cloud that runs takes it within a quarter of an hour."""
    made = root.read_certificates(_read(options.file, root.FILE_BYTES_MAX))
    async with _workshop(config) as workshop:
        names = await root.install(workshop, made)
    ends = [x509.load_der_x509_certificate(bytes.fromhex(one.certificate)) for one in made.made]
    first = min(certificate.not_valid_after_utc for certificate in ends)
    print(f"in use from now on: {', '.join(names)}")
    print(f"the first of them ends on {first:%Y-%m-%d}; ask the root again before that")
    return WELL


async def take_out(config: Config, options: argparse.Namespace) -> int:
    """Move the root's key into a file. It is durable there, and reads, before it is gone here."""
    passphrase = _passphrase(options.passphrase_file, twice=True)
    async with _workshop(config) as workshop:
        seed = await root.held_seed(workshop)
        create_durably(options.key, root.close_key(seed, passphrase=passphrase))
        written = _read(options.key, root.FILE_BYTES_MAX)
        certificate = await root.held_certificate(workshop)
        root.open_key(written, certificate, passphrase=passphrase)
        await root.let_go(workshop)
    moment = datetime.fromtimestamp(workshop.now_ms // 1_000, UTC)
    print(f"{options.key}: the root's key is here alone; carry it away, with a second copy")
    print(f"backups of the database from before {moment:%Y-%m-%d %H:%M} UTC hold it, sealed")
    return WELL


@contextlib.asynccontextmanager
async def _workshop(config: Config, *, create: bool = False) -> AsyncIterator[Workshop]:
    """The cloud's keys in a transaction. Raises: CloudError, HsmError."""
    now_ms = SystemClock().now_ms()
    async with (
        open_store(config, now_ms=now_ms, create=create) as (database, token),
        database.transaction() as connection,
    ):
        yield Workshop(
            connection=connection,
            vault=Vault(token.sealer),
            now_ms=now_ms,
            random=secrets.token_bytes,
        )


def _read(path: Path, bytes_max: int) -> bytes:
    """A small file. Raises: OSError; CloudError `file-invalid` for a larger one."""
    with path.open("rb") as stream:
        content = stream.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise CloudError("file-invalid", f"{path}: more than {bytes_max:,} bytes")
    return content
