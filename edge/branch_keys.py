"""Other keys for the branch's network, while paired terminals go on.

The server's key is exchanged in one file, under the authority that terminals trust already. The
authority is exchanged in two steps: from the first one on new terminals belong to the next
authority and trust both; the second one is for when the terminals of the old one are gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.authority import (
    NEXT,
    PEM_BYTES_MAX,
    Authority,
    has_next_authority,
    new_authority,
    new_server,
    open_authority,
)
from edge.errors import RotationRefused
from edge.folder import Folder
from edge.secret_input import read_file
from hsm.api import Sealer
from hsm.files import replace_durably
from wallet.store.database import Database
from wallet.store.meta import get_meta, put_meta
from wallet.store.terminals import Terminal

_SINCE = "authority-since"


async def rotate_server(folder: Folder, sealer: Sealer, *, names: Sequence[str]) -> None:
    """Another key for the server.

    Raises: RotationRefused while the authority is exchanged, which ends with another key as well;
    HsmError, FileUnreadable, OSError.
    """
    if has_next_authority(folder):
        raise RotationRefused("finish the exchange of the terminals' authority: it does this too")
    _write_server(folder, await open_authority(folder, sealer), names)


def _write_server(folder: Folder, authority: Authority, names: Sequence[str]) -> None:
    key, certificate = new_server(authority, names)
    # One file, so that no crash leaves a key beside another one's certificate.
    replace_durably(folder.tls / "server.pem", key + certificate)
    for name in ("server.key", "server.crt"):
        (folder.tls / name).unlink(missing_ok=True)


async def signing_authority(folder: Folder, sealer: Sealer) -> Authority:
    """The authority that new terminals get their certificates from. Raises: as `open_authority`."""
    name = NEXT if has_next_authority(folder) else "authority"
    return await open_authority(folder, sealer, name=name)


async def begin_authority(
    folder: Folder, sealer: Sealer, database: Database, *, now_ms: int
) -> None:
    """New terminals belong to another authority from now on.

    Raises: RotationRefused while an exchange goes on, HsmError, StoreError, OSError.
    """
    if has_next_authority(folder):
        raise RotationRefused("an exchange of the terminals' authority goes on: finish it")
    await database.write(lambda c: put_meta(c, _SINCE, str(now_ms).encode()))
    await new_authority(folder, sealer, name=NEXT)


async def finish_authority(
    folder: Folder,
    sealer: Sealer,
    database: Database,
    terminals: Sequence[Terminal],
    *,
    names: Sequence[str],
    force: bool,
) -> None:
    """The old authority vouches for nobody any more. It may be killed and asked for again.

    `force`: terminals that are still of the old one are shut out. Raises: RotationRefused while
    there are some, or where nothing was begun; HsmError, StoreError, OSError.
    """
    if not has_next_authority(folder):
        raise RotationRefused("no exchange of the terminals' authority was begun")
    began = await database.read(lambda c: get_meta(c, _SINCE))
    since_ms = int(began or b"0")
    behind = [t for t in terminals if t.revoked_ms is None and t.created_ms <= since_ms]
    if behind and not force:
        text = ", ".join(f"{terminal.id} ({terminal.name})" for terminal in behind)
        raise RotationRefused(f"pair these again first, or revoke them: {text}")
    _write_server(folder, await open_authority(folder, sealer, name=NEXT), names)
    for suffix in ("key.sealed", "crt"):
        content = read_file(folder.tls / f"{NEXT}.{suffix}", bytes_max=PEM_BYTES_MAX)
        replace_durably(folder.tls / f"authority.{suffix}", content)
    # The certificate is what says that an exchange goes on: it leaves first.
    for suffix in ("crt", "key.sealed"):
        (folder.tls / f"{NEXT}.{suffix}").unlink(missing_ok=True)
