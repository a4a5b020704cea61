"""Builds the synchronisation of an open gateway: the engine, over its journal and its identity."""

from __future__ import annotations

from edge.config import Config
from edge.gateway import Opened
from edge.journal_port import JournalPort
from edge.log import Log
from edge.uplink import uplink
from sync.engine import Engine, Surroundings
from sync.ports import Listener
from sync.transport import Credentials, HttpsTransport
from wallet.clock import Clock

# A failed session, and an issuer that was restored from a backup older than what it had said.
_WARNINGS = frozenset({"sync.failed", "sync.rewound"})
_log = Log("sync")


def synchronising(opened: Opened, port: JournalPort, config: Config, *, clock: Clock) -> Engine:
    """The engine of one open gateway; whoever asks for it runs its task."""
    return Engine(
        port,
        _transport(opened, config),
        surroundings=Surroundings(clock=clock, link=uplink(config.sync)),
        tell=_listener(opened),
    )


def _transport(opened: Opened, config: Config) -> HttpsTransport:
    identity = opened.identity
    credentials = Credentials(
        authority=identity.cloud_ca,
        certificate=identity.transport_certificate,
        key=identity.transport_key,
    )
    url = config.sync.url or identity.cloud_url
    return HttpsTransport(credentials, url=url, timeout_s=config.sync.timeout_s)


def _listener(opened: Opened) -> Listener:
    """What happens goes to the gateway's events; what somebody must see into the log as well."""

    def tell(name: str, **data: object) -> None:
        opened.events.tell(name, **data)
        if name in _WARNINGS:
            _log.warning(name, **{key: str(value) for key, value in data.items() if value})

    return tell
