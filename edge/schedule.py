"""What happens by the clock: waking the synchronisation, and pruning. No logic lives here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from edge.config import Config
from edge.log import Log
from wallet.store.errors import StoreError

PRUNE_S = 3600
_log = Log("schedule")


class Schedule:
    """Wakes things while the gateway is open."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._scheduler: AsyncIOScheduler | None = None

    def start(self, *, wake: Callable[[], None], prune: Callable[[], Awaitable[None]]) -> None:
        """Begin."""

        async def wake_sync() -> None:
            wake()

        async def prune_store() -> None:
            try:
                await prune()
            except StoreError as error:
                _log.warning("prune.failed", code=error.code)

        scheduler = AsyncIOScheduler(timezone="UTC")
        options = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        scheduler.add_job(wake_sync, "interval", seconds=self._config.sync.interval_s, **options)
        scheduler.add_job(prune_store, "interval", seconds=PRUNE_S, **options)
        scheduler.start()
        self._scheduler = scheduler

    def jobs(self) -> list[Callable[[], Awaitable[None]]]:
        """What it calls, for whoever wants it now."""
        return [] if self._scheduler is None else [job.func for job in self._scheduler.get_jobs()]

    def stop(self) -> None:
        """End; what runs goes on to its end."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
            self._scheduler = None
