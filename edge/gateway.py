"""The gateway itself: token, store, journal and hosted wallets, opened together or not at all.

Its mode is the journal's, or says why there is none: `not-provisioned`, or `sealed` when the
token is gone. In both the daemon runs on, says so, and tries again.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path

from edge.audit import Audit
from edge.authority import make_authority
from edge.config import Config, TokenConfig
from edge.events import Events
from edge.folder import Folder
from edge.identity import Identity, load_identity
from edge.log import Log
from edge.observing import Observing
from edge.secret_input import read_secret_file
from edge.settings import note_settings
from edge.store_key import open_store
from edge.tamper import Mark, load_mark, read_mark, store_mark, write_mark
from edge.terminals import Terminals
from edge.verdicts import repair_verdicts
from edge.version import version
from edge.wear import Sample, note_counter
from hsm.api import Algorithm, HsmError, KeyMissing, SealBroken, Token
from hsm.memory import Secret, wipe
from hsm.open import TokenConfig as HsmConfig
from hsm.open import open_token
from wallet.clock import Clock
from wallet.hosted import HostedWallets
from wallet.journal import Event, Journal, JournalError, JournalUnopened, Mode
from wallet.protocol.certificates import TrustAnchor
from wallet.protocol.refusals import InvariantBroken
from wallet.store.database import Database
from wallet.store.errors import StoreError
from wallet.store.idempotency import prune_answers
from wallet.store.journal import entry_count
from wallet.store.requests import prune_requests
from wallet.verifier import spare_processors

REQUESTS_KEPT_MS = 90 * 24 * 3_600_000
# A processor is better used by one of these than by nothing; with one core everything stays here.
VERIFYING_PROCESSES = 1
# How long each step of dropping the keys may take before the next one follows.
DROP_S = 2.0
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
        # Why the token keeps the journal sealed, for the technician; empty while it does not.
        self.cause = ""
        self.observing = Observing(journal, self.hosted, audit)
        journal.listen(self._heard)

    def _heard(self, event: Event) -> None:
        """One listener for all: payments pass here, and only changes of mode are audited."""
        self.events.take(event)
        if event.name in _MODE_EVENTS:
            self.observing.take(event)
            if event.data["mode"] in _FROZEN:
                _tell_frozen(Mode(event.data["mode"]))

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
        self.observing.count_keys()
        await self.audit.prune()
        await self.watch_wear(now_ms)
        await self.database.write(lambda c: prune_answers(c, now_ms=now_ms))
        await self.database.write(lambda c: prune_requests(c, now_ms - REQUESTS_KEPT_MS))
        await self.events.prune()

    async def watch_wear(self, now_ms: int) -> None:
        """Remember what the counter shows. Raises: StoreError."""
        sample = Sample(time_ms=now_ms, counter=self.journal.status().counter)
        await self.database.write(lambda connection: note_counter(connection, sample))

    async def drop(self, mark: Mark) -> bool:
        """Somebody opened the box: let go of all keys within moments, whatever hangs.

        False when the token or the store did not let go: only the end of the process does then.
        """
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            # What is being committed gets its receipt, what waits its refusal.
            "journal": self.journal.close,
            "record": functools.partial(self._record_trip, mark),
            "token": self.token.close,
            "audit": self.audit.detach,
            "store": self.database.close,
        }
        failed = [name for name, step in steps.items() if not await _in_time(name, step)]
        return not {"token", "store"} & set(failed)

    async def _record_trip(self, mark: Mark) -> None:
        # Of the envelopes and of the transport, which Python holds beside the store.
        wipe(self.identity.hpke_private)
        wipe(self.identity.transport_key)
        self.observing.count_keys()
        self.audit.note("tamper.tripped", source=mark.source, reason=mark.reason)
        await self.database.write(lambda connection: store_mark(connection, mark))

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

    def __init__(self, config: Config, *, secret: bytes | Secret, clock: Clock) -> None:
        """`secret`: the token's passphrase or PIN, kept to open it again when it was gone."""
        self.config = config
        self.folder = Folder(config.folder)
        self.clock = clock
        self.opened: Opened | None = None
        self._cause = self._tripped = ""
        self.audit = Audit(self.folder.audit, clock)
        self._secret = secret if isinstance(secret, Secret) else Secret(secret)
        self._mode = Mode.NOT_PROVISIONED

    @property
    def mode(self) -> Mode:
        """What it can do now."""
        return self._mode if self.opened is None else self.opened.journal.mode

    @property
    def cause(self) -> str:
        """Why it can not; empty when nobody knows more than the mode says."""
        if self.opened is None:
            return self._cause
        return self._tripped or _FROZEN.get(self.mode, self.opened.cause)

    async def open(self) -> Mode:
        """Open everything, if it is there.

        A token that is gone makes it `sealed`. Raises: StoreError and JournalError when the store
        does not hold (tampered, wrong key), HsmError for a wrong PIN, FileUnreadable, OSError.
        """
        if self.opened is not None:
            return self.mode
        mark = read_mark(self.folder)
        if mark is not None:
            return self._closed(Mode.FROZEN_TAMPER, mark.sentence)
        if not self.folder.store_key.exists():
            return self._closed(Mode.NOT_PROVISIONED, "no store; `cbdc-edge provision` makes one")
        try:
            token = await self._open_token()
        except HsmError as error:
            if error.code in _FATAL:
                self.audit.note("token.refused", code=error.code)
                raise
            return self._closed(Mode.SEALED, error.explained())
        return await self._open_store(token)

    async def _open_token(self) -> Token:
        secret = self._secret.copy()
        try:
            return await open_token(hsm_config(self.config.token, self.folder), secret=secret)
        finally:
            wipe(secret)

    async def _open_store(self, token: Token) -> Mode:
        opened = None
        try:
            opened = await self._open_journal(token)
        except HsmError as error:
            if isinstance(error, SealBroken | KeyMissing):
                self.audit.note("token.refused", code=error.code)
                raise
            return self._closed(Mode.SEALED, error.explained())
        finally:
            if opened is None:
                await token.close()
        self.opened = opened
        _log.info("gateway.opened", mode=str(self.mode))
        if opened is not None and self.mode in _FROZEN:
            # The journal found it before anybody listened.
            opened.events.tell("gateway.frozen", mode=str(self.mode))
            _tell_frozen(self.mode)
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

    async def _open_journal(self, token: Token) -> Opened | None:
        database = await open_store(self.folder, token)
        opened = None
        try:
            identity = await database.read(load_identity)
            if identity is None:
                self._closed(Mode.NOT_PROVISIONED, "provisioning was not finished; run it again")
                return None
            mark = await database.read(load_mark)
            if mark is not None:
                # Somebody took the file away; the store remembers.
                write_mark(self.folder, mark)
                self._closed(Mode.FROZEN_TAMPER, mark.sentence)
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
        opened = Opened(
            token=token,
            database=database,
            identity=identity,
            journal=journal,
            terminals=terminals,
            events=events,
            audit=self.audit,
        )
        await opened.watch_wear(self.clock.now_ms())
        return opened

    def _closed(self, mode: Mode, cause: str) -> Mode:
        if (mode, cause) != (self._mode, self._cause):
            _log.warning("gateway.closed", mode=str(mode), cause=cause)
            self.audit.note("gateway.not-open", mode=str(mode), cause=cause)
        self._mode, self._cause = mode, cause
        return mode

    def freeze(self, mark: Mark) -> None:
        """Somebody opened the box: refuse from now on, and leave the mark. Raises: OSError."""
        self._tripped = mark.sentence
        if self.opened is not None:
            self.opened.journal.freeze()
        if read_mark(self.folder) is None:
            write_mark(self.folder, mark)

    async def drop(self, mark: Mark) -> bool:
        """Forget every key; see `Opened.drop`."""
        self._secret.wipe()
        opened, self.opened = self.opened, None
        self._closed(Mode.FROZEN_TAMPER, mark.sentence)
        return opened is None or await opened.drop(mark)

    async def close(self) -> None:
        """Close what is open."""
        opened, self.opened = self.opened, None
        if opened is not None:
            await opened.close()


# Why a journal that is there takes no payments, whatever the token does.
_FROZEN = {
    Mode.FROZEN_ROLLBACK: "the store does not fit the token's counter: it is an older copy, or a"
    " copy of another box; it never goes on, only a new epoch does: let the issuer close this one,"
    " and enrol for the next one",
    Mode.FROZEN_TAMPER: "a page of the store fails its check",
    Mode.FROZEN_BY_ISSUER: "the issuer revoked this journal or closed its epoch",
}
_MODE_EVENTS = frozenset({"gateway.frozen", "gateway.open"})
# What no waiting mends: an operator has to look.
_FATAL = frozenset({"token-pin-wrong", "seal-broken", "token-refused"})


def _tell_frozen(mode: Mode) -> None:
    _log.warning("gateway.frozen", mode=str(mode), cause=_FROZEN[mode])


async def _in_time(name: str, step: Callable[[], Awaitable[None]]) -> bool:
    """Whether a step of dropping the keys came to its end; the next one follows in any case."""
    try:
        async with asyncio.timeout(DROP_S):
            await step()
    except (TimeoutError, StoreError, HsmError, JournalError, InvariantBroken, OSError) as error:
        _log.error("gateway.not-dropped", step=name, cause=error)
        return False
    return True


def _log_progress(done: int, size: int) -> None:
    _log.info("journal.replayed", entries=done, size=size)
