"""The cloud put together: token, database, issuer, reconciler. Programs and commands open it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from cloud.clock import Clock
from cloud.config import Config
from cloud.database import Database, open_database
from cloud.errors import ConfigError, DatabaseError
from cloud.http import answers
from cloud.issuer import lists, policies, root
from cloud.issuer.desk import Desk
from cloud.issuer.suspensions import list_suspended
from cloud.issuer.vault import Vault
from cloud.log import Log
from cloud.reconciler import stragglers
from cloud.reconciler.leaves import fill_all
from cloud.reconciler.reconciler import Reconciler
from cloud.reconciler.returns import closing_journals, return_expired_notes
from cloud.recovery.learning import learn_endings, unposted
from cloud.shards.news import heard_until
from cloud.shards.reconcilers import Reconcilers
from cloud.shards.shards import Shards, open_shards
from cloud.shards.upkeep import find_homes, forget, tell_homes
from cloud.stream.api import Carrier
from cloud.syncing import Exchange
from hsm import software
from hsm.api import KeyMissing, Token
from hsm.files import create_durably, make_folder
from wallet.protocol.lists import ListId

PASSPHRASE_FILE = "passphrase"
TOKEN_FOLDER = "token"
PASSPHRASE_BYTES_MAX = 4096
VERIFYING_PROCESSES = 2
_log = Log("service")


class Cloud:
    """An open cloud."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        database: Database,
        desk: Desk,
        reconciler: Reconciler | Reconcilers,
        shards: Shards | None = None,
    ) -> None:
        self.config = config
        self.clock = clock
        self.database = database
        self.desk = desk
        self.reconciler = reconciler
        self.shards = shards or Shards([database])
        self.exchange = Exchange(
            database=database, desk=desk, reconciler=reconciler, shards=self.shards
        )
        # What reports go through while they are handed on.
        self.stream: Carrier | None = None
        # What is renewed besides, by whoever serves this cloud.
        self.renewals: list[Callable[[], Awaitable[None]]] = []

    async def refresh(self) -> None:
        """Renew what nears its end; give back notes nobody redeemed; fill the index of leaves;
        forget old answers.
        """
        now_ms = self.clock.now_ms()
        async with self.database.transaction() as connection:
            await self.desk.refresh(connection, now_ms=now_ms)
        if root.is_wanted(self.desk.pki, now_ms=now_ms):
            _log.warning("root.wanted", certificates_end_ms=self.desk.pki.ends_ms)
        for number, _ in self.shards:
            with _only(number):
                await find_homes(self.shards, number, now_ms=now_ms)
        for number, database in self.shards:
            with _only(number):
                await tell_homes(self.shards, number, now_ms=now_ms)
                await stragglers.sweep(database, self.desk.anchor, now_ms=now_ms)
        async with self.database.transaction() as connection:
            await list_suspended(connection, self.desk, now_ms=now_ms)
            await lists.refresh_lists(connection, self.desk, now_ms=now_ms)
        await learn_endings(self.shards, self.desk, now_ms=now_ms)
        for number, database in self.shards:
            with _only(number):
                await self._return_notes(number, database, now_ms=now_ms)
                await fill_all(database)
                await forget(self.shards, number, now_ms=now_ms)
        async with self.database.transaction() as connection:
            await answers.forget(connection, now_ms=now_ms)
        for renew in self.renewals:
            await renew()

    async def _return_notes(self, number: int, database: Database, *, now_ms: int) -> None:
        async with self.database.transaction() as connection:
            # In this order: what is claimed from now on has been told of when we ask.
            closing = await closing_journals(connection)
        closing += await unposted(self.shards)
        async with self.database.transaction() as connection:
            until_ms = await heard_until(self.shards, connection, number, now_ms=now_ms)
        here = self.shards.here(number)
        await return_expired_notes(
            database, closing=closing, due_ms=until_ms, now_ms=now_ms, here=here
        )


@contextlib.contextmanager
def _only(number: int) -> Iterator[None]:
    """Work in one shard: while it is away, the others go on."""
    try:
        yield
    except DatabaseError as error:
        _log.warning("upkeep.failed", shard=number, code=error.code)


def passphrase_path(config: Config) -> Path:
    """The file whose words open the issuer's keys."""
    return config.issuer.passphrase_file or config.folder / PASSPHRASE_FILE


def read_passphrase(config: Config) -> bytes:
    """Raises: ConfigError `not-initialised`."""
    path = passphrase_path(config)
    try:
        with path.open("rb") as stream:
            return stream.read(PASSPHRASE_BYTES_MAX).strip()
    except OSError as error:
        raise ConfigError("not-initialised", f"{path}: {error.strerror}") from error


def make_passphrase(config: Config) -> None:
    """Write a passphrase where there is none; for its owner alone. Raises: OSError."""
    path = passphrase_path(config)
    if not path.exists():
        make_folder(path.parent)
        create_durably(path, secrets.token_urlsafe(32).encode())


async def _open_token(config: Config, *, create: bool) -> Token:
    folder, secret = config.folder / TOKEN_FOLDER, read_passphrase(config)
    try:
        return await software.open_token(folder, passphrase=secret)
    except KeyMissing:
        if not create:
            raise
        return await software.create(folder, passphrase=secret)


@contextlib.asynccontextmanager
async def open_store(
    config: Config, *, now_ms: int, create: bool = False
) -> AsyncIterator[tuple[Database, Token]]:
    """The database and the token of a folder; with `create` what is missing is made.

    Raises: ConfigError `not-initialised`, DatabaseError, HsmError, ShardError.
    """
    token = await _open_token(config, create=create)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(token.close)
        yield await stack.enter_async_context(open_database(config, now_ms=now_ms)), token


@contextlib.asynccontextmanager
async def open_cloud(
    config: Config,
    *,
    clock: Clock,
    create: bool = False,
    verifying_processes: int = VERIFYING_PROCESSES,
    patient: bool = False,
) -> AsyncIterator[Cloud]:
    """The cloud of a folder; with `create` what is missing is made.

    `patient`: shards that are out of reach, other than the head, are opened once they come.
    Raises: ConfigError `not-initialised`, DatabaseError, HsmError, IssuerError `root-away`.
    """
    now_ms = clock.now_ms()
    async with contextlib.AsyncExitStack() as stack:
        opening = open_store(config, now_ms=now_ms, create=create)
        database, token = await stack.enter_async_context(opening)
        desk = await open_desk(config, database, token, now_ms=now_ms)
        shards = await open_shards(
            database,
            config.database,
            stack,
            random=secrets.token_bytes(16),
            now_ms=now_ms,
            later=clock if patient else None,
        )
        reconciler = Reconcilers(
            shards, anchor=desk.anchor, signing=desk, workers=verifying_processes
        )
        stack.push_async_callback(reconciler.close)
        yield Cloud(
            config=config,
            clock=clock,
            database=database,
            desk=desk,
            reconciler=reconciler,
            shards=shards,
        )


async def open_desk(config: Config, database: Database, token: Token, *, now_ms: int) -> Desk:
    """The issuer's keys, with a policy of each currency and every list. Raises: HsmError."""
    async with database.transaction() as connection:
        desk = await Desk.open(
            connection,
            Vault(token.sealer),
            organisation=config.issuer.organisation,
            random=secrets.token_bytes,
            now_ms=now_ms,
        )
    async with database.transaction() as connection:
        for currency in config.issuer.currencies:
            await policies.publish_first(
                connection, desk, currency, window=config.issuer.counter_window, now_ms=now_ms
            )
        for list_id in ListId:
            await lists.publish_first(connection, desk, list_id, {}, now_ms=now_ms)
    return desk
