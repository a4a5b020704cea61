"""The gateway itself: token, store, journal and hosted wallets, opened together or not at all.

Its mode is the journal's, or says why there is none: `not-provisioned`, or `sealed` when the
token is gone. In both the daemon runs on, says so, and tries again.
"""

from __future__ import annotations

import functools
import secrets
from pathlib import Path

from edge.authority import make_authority
from edge.config import Config, TokenConfig
from edge.events import Events
from edge.folder import Folder
from edge.identity import Identity, load_identity
from edge.log import Log
from edge.secret_input import read_file, read_secret_file
from edge.terminals import Terminals
from edge.verdicts import repair_verdicts
from hsm.api import Algorithm, HsmError, KeyMissing, SealBroken, Token
from hsm.files import create_durably
from hsm.open import TokenConfig as HsmConfig
from hsm.open import open_token
from wallet.clock import Clock
from wallet.hosted import HostedWallets
from wallet.journal import Journal, JournalUnopened, Mode
from wallet.protocol.certificates import TrustAnchor
from wallet.store.database import KEY_BYTES, Database
from wallet.store.errors import StoreError
from wallet.store.idempotency import prune_answers
from wallet.store.journal import entry_count
from wallet.store.requests import prune_requests
from wallet.verifier import spare_processors

STORE_KEY_LABEL = "store-key"
SEALED_BYTES_MAX = 8192
REQUESTS_KEPT_MS = 90 * 24 * 3_600_000
# A processor is better used by one of these than by nothing; with one core everything stays here.
VERIFYING_PROCESSES = 1
_log = Log("gateway")


def hsm_config(config: TokenConfig, folder: Folder) -> HsmConfig:
    """The token's configuration as the drivers want it. Raises: FileUnreadable."""
    return HsmConfig(
        driver=config.driver,
        folder=folder.token,
        algorithm=Algorithm.ES256 if config.algorithm == "es256" else Algorithm.EDDSA,
        module_path=config.module,
        token_label=config.label,
        key_label=config.key_label,
        sealing_label=config.sealing_label or "",
        tcti=config.tcti,
        pcr_policy=config.pcr_policy,
        nv_index=config.nv_index,
        owner_auth=_hierarchy_auth(config.owner_auth_file),
        endorsement_auth=_hierarchy_auth(config.endorsement_auth_file),
        timeout_s=config.timeout_s,
    )


def _hierarchy_auth(path: Path | None) -> bytes:
    return b"" if path is None else read_secret_file(path)


async def make_store_key(folder: Folder, token: Token) -> bytes:
    """The store's key; made and sealed by the token where there is none.

    Raises: HsmError, FileUnreadable, OSError.
    """
    if folder.store_key.exists():
        return await read_store_key(folder, token)
    key = secrets.token_bytes(KEY_BYTES)
    create_durably(folder.store_key, await token.sealer.seal(key, label=STORE_KEY_LABEL))
    return key


async def read_store_key(folder: Folder, token: Token) -> bytes:
    """The store's key, opened by the token. Raises: HsmError, FileUnreadable."""
    sealed = read_file(folder.store_key, bytes_max=SEALED_BYTES_MAX)
    return await token.sealer.unseal(sealed, label=STORE_KEY_LABEL)


class Opened:
    """An open gateway: everything that needs the token and the store."""

    def __init__(
        self,
        *,
        token: Token,
        database: Database,
        identity: Identity,
        journal: Journal,
        terminals: Terminals,
        events: Events,
    ) -> None:
        self.token = token
        self.database = database
        self.identity = identity
        self.journal = journal
        self.terminals = terminals
        self.events = events
        self.hosted = HostedWallets(journal=journal, database=database, token=token)
        # Why the token keeps the journal sealed, for the technician; empty while it does not.
        self.cause = ""

    async def probe_token(self) -> None:
        """Ask the token, which seals the journal or opens it, and know why it is sealed."""
        await self.journal.probe()
        if self.journal.mode is not Mode.SEALED:
            self.cause = ""
            return
        try:
            await self.token.probe()
        except HsmError as error:
            if self.cause != error.explained():
                self.cause = error.explained()
                _log.warning("gateway.sealed", cause=self.cause)

    async def probe_store(self) -> None:
        """Ask the store; its trouble is the next payment's refusal, here it is only noted."""
        try:
            await self.database.read(entry_count)
        except StoreError as error:
            _log.warning("store.silent", code=error.code)

    async def prune(self, now_ms: int) -> None:
        """Forget what has expired: answers, requests, events. Raises: StoreError."""
        await self.database.write(lambda c: prune_answers(c, now_ms=now_ms))
        await self.database.write(lambda c: prune_requests(c, now_ms - REQUESTS_KEPT_MS))
        await self.events.prune()

    async def close(self) -> None:
        """Finish what waits, then let go of the store and the token."""
        try:
            await self.journal.close()
            await self.events.flush()
        finally:
            await self.database.close()
            await self.token.close()


class Gateway:
    """What the interfaces talk to. `opened` is None while it is sealed or not provisioned."""

    def __init__(self, config: Config, *, secret: bytes, clock: Clock) -> None:
        self.config = config
        self.folder = Folder(config.folder)
        self.clock = clock
        self.opened: Opened | None = None
        self._cause = ""
        self._secret = secret
        self._mode = Mode.NOT_PROVISIONED

    @property
    def mode(self) -> Mode:
        """What it can do now."""
        return self._mode if self.opened is None else self.opened.journal.mode

    @property
    def cause(self) -> str:
        """Why it can not; empty when nobody knows more than the mode says."""
        return self._cause if self.opened is None else self.opened.cause

    async def open(self) -> Mode:
        """Open everything, if it is there.

        A token that is gone makes it `sealed`. Raises: StoreError and JournalError when the store
        does not hold (tampered, wrong key), HsmError for a wrong PIN, FileUnreadable, OSError.
        """
        if self.opened is not None:
            return self.mode
        if not self.folder.store_key.exists():
            return self._closed(Mode.NOT_PROVISIONED, "no store; `cbdc-edge provision` makes one")
        try:
            token = await open_token(
                hsm_config(self.config.token, self.folder), secret=self._secret
            )
        except HsmError as error:
            if error.code in _FATAL:
                raise
            return self._closed(Mode.SEALED, error.explained())
        return await self._open_store(token)

    async def _open_store(self, token: Token) -> Mode:
        opened = None
        try:
            key = await read_store_key(self.folder, token)
            opened = await self._open_journal(token, key)
        except HsmError as error:
            if isinstance(error, SealBroken | KeyMissing):
                raise
            return self._closed(Mode.SEALED, error.explained())
        finally:
            if opened is None:
                await token.close()
        self.opened = opened
        _log.info("gateway.opened", mode=str(self.mode))
        return self.mode

    async def _open_journal(self, token: Token, key: bytes) -> Opened | None:
        database = await Database.open(self.folder.store, key=key)
        opened = None
        try:
            identity = await database.read(load_identity)
            if identity is None:
                self._closed(Mode.NOT_PROVISIONED, "provisioning was not finished; run it again")
                return None
            opened = await self._assemble(token, database, identity)
        except JournalUnopened as error:
            self._closed(Mode.NOT_PROVISIONED, str(error))
        finally:
            if opened is None:
                await database.close()
        return opened

    async def _assemble(self, token: Token, database: Database, identity: Identity) -> Opened:
        journal = await Journal.open(
            database=database,
            token=token,
            clock=self.clock,
            anchor=TrustAnchor(identity.root),
            progress=functools.partial(_log_progress),
            verifying_processes=min(VERIFYING_PROCESSES, spare_processors()),
        )
        await make_authority(self.folder, token.sealer, names=self.config.listen.names)
        terminals = Terminals(
            database=database, sealer=token.sealer, folder=self.folder, clock=self.clock
        )
        await terminals.load()
        await repair_verdicts(journal, database)
        events = Events(database=database, clock=self.clock, kept=self.config.limits.events_kept)
        journal.listen(events.take)
        return Opened(
            token=token,
            database=database,
            identity=identity,
            journal=journal,
            terminals=terminals,
            events=events,
        )

    def _closed(self, mode: Mode, cause: str) -> Mode:
        if (mode, cause) != (self._mode, self._cause):
            _log.warning("gateway.closed", mode=str(mode), cause=cause)
        self._mode, self._cause = mode, cause
        return mode

    async def close(self) -> None:
        """Close what is open."""
        opened, self.opened = self.opened, None
        if opened is not None:
            await opened.close()


# What no waiting mends: an operator has to look.
_FATAL = frozenset({"token-pin-wrong", "seal-broken", "token-refused"})


def _log_progress(done: int, size: int) -> None:
    _log.info("journal.replayed", entries=done, size=size)
