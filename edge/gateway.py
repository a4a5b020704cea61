"""The gateway itself: token, store, journal and hosted wallets, opened together or not at all.

Its mode is the journal's, or says why there is none: `not-provisioned`, or `sealed` when the
token is gone. In both the daemon runs on, says so, and tries again.
"""

from __future__ import annotations

import functools
import secrets

from edge.audit import Audit
from edge.authority import make_authority
from edge.config import Config, TokenConfig
from edge.events import Events
from edge.folder import Folder
from edge.identity import Identity, load_identity
from edge.log import Log
from edge.observing import Observing
from edge.secret_input import read_file
from edge.settings import note_settings
from edge.terminals import Terminals
from edge.verdicts import repair_verdicts
from edge.version import version
from hsm.api import Algorithm, HsmError, KeyMissing, SealBroken, Token
from hsm.files import create_durably
from hsm.open import TokenConfig as HsmConfig
from hsm.open import open_token
from wallet.clock import Clock
from wallet.hosted import HostedWallets
from wallet.journal import Event, Journal, JournalUnopened, Mode
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
    """The token's configuration as the drivers want it."""
    return HsmConfig(
        driver=config.driver,
        folder=folder.token,
        algorithm=Algorithm.ES256 if config.algorithm == "es256" else Algorithm.EDDSA,
        module_path=config.module,
        token_label=config.label,
        key_label=config.key_label,
        timeout_s=config.timeout_s,
    )


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
        audit: Audit,
    ) -> None:
        self.token = token
        self.database = database
        self.identity = identity
        self.journal = journal
        self.terminals = terminals
        self.events = events
        self.audit = audit
        self.hosted = HostedWallets(journal=journal, database=database, token=token)
        self.observing = Observing(journal, self.hosted, audit)
        journal.listen(self._heard)

    def _heard(self, event: Event) -> None:
        """One listener for both: payments pass here, and only changes of mode are audited."""
        self.events.take(event)
        if event.name in _MODE_EVENTS:
            self.observing.take(event)

    async def probe_store(self) -> None:
        """Ask the store; its trouble is the next payment's refusal, here it is only noted."""
        try:
            await self.database.read(entry_count)
        except StoreError as error:
            _log.warning("store.silent", code=error.code)

    async def prune(self, now_ms: int) -> None:
        """Forget what has expired: answers, requests, events. Raises: StoreError."""
        self.observing.count_keys()
        await self.audit.prune()
        await self.database.write(lambda c: prune_answers(c, now_ms=now_ms))
        await self.database.write(lambda c: prune_requests(c, now_ms - REQUESTS_KEPT_MS))
        await self.events.prune()

    async def close(self) -> None:
        """Finish what waits, then let go of the store and the token."""
        try:
            await self.journal.close()
            await self.events.flush()
        finally:
            self.observing.count_keys()
            self.audit.note("gateway.closed", token="closed")
            await self.audit.detach()
            await self.database.close()
            await self.token.close()


class Gateway:
    """What the interfaces talk to. `opened` is None while it is sealed or not provisioned."""

    def __init__(self, config: Config, *, secret: bytes, clock: Clock) -> None:
        self.config = config
        self.folder = Folder(config.folder)
        self.clock = clock
        self.opened: Opened | None = None
        self.cause = ""
        self.audit = Audit(self.folder.audit, clock)
        self._secret = secret
        self._mode = Mode.NOT_PROVISIONED

    @property
    def mode(self) -> Mode:
        """What it can do now."""
        return self._mode if self.opened is None else self.opened.journal.mode

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
                self.audit.note("token.refused", code=error.code)
                raise
            return self._closed(Mode.SEALED, f"{error.code}: {error}")
        return await self._open_store(token)

    async def _open_store(self, token: Token) -> Mode:
        opened = None
        try:
            key = await read_store_key(self.folder, token)
            opened = await self._open_journal(token, key)
        except HsmError as error:
            if isinstance(error, SealBroken | KeyMissing):
                self.audit.note("token.refused", code=error.code)
                raise
            return self._closed(Mode.SEALED, f"{error.code}: {error}")
        finally:
            if opened is None:
                await token.close()
        self.opened = opened
        _log.info("gateway.opened", mode=str(self.mode))
        return self.mode

    async def _note_opening(self, token: Token, database: Database, journal: Journal) -> None:
        """Keys are in use from now on: the token's, and the store's which it unsealed."""
        await self.audit.attach(database)
        settings = await database.write(lambda connection: note_settings(connection, self.config))
        self.audit.note("settings.used", **settings)
        await self.audit.record(
            "gateway.opened",
            mode=str(journal.mode),
            version=version(),
            token="opened",
            token_driver=token.driver,
            algorithm=token.signer.algorithm.name.lower(),
            store_key="unsealed",
        )

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
                await self.audit.detach()
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
        await self._note_opening(token, database, journal)
        return Opened(
            token=token,
            database=database,
            identity=identity,
            journal=journal,
            terminals=terminals,
            events=events,
            audit=self.audit,
        )

    def _closed(self, mode: Mode, cause: str) -> Mode:
        if (mode, cause) != (self._mode, self.cause):
            _log.warning("gateway.closed", mode=str(mode), cause=cause)
            self.audit.note("gateway.not-open", mode=str(mode), cause=cause)
        self._mode, self.cause = mode, cause
        return mode

    async def close(self) -> None:
        """Close what is open."""
        opened, self.opened = self.opened, None
        if opened is not None:
            await opened.close()


_MODE_EVENTS = frozenset({"gateway.frozen", "gateway.open"})
# What no waiting mends: an operator has to look.
_FATAL = frozenset({"token-pin-wrong", "seal-broken", "token-refused"})


def _log_progress(done: int, size: int) -> None:
    _log.info("journal.replayed", entries=done, size=size)
