"""How many files the process may have open: one for each connection, and some beside."""

from __future__ import annotations

import resource

from edge.config import Config
from edge.log import Log

# What is open beside connections: the store, libraries, pipes of helpers.
FILES_BESIDE = 256
# Ports beside the terminals': for pairing, for metrics, for the technician's page.
SMALL_PORTS = 3
_log = Log("daemon")


def allow_files(config: Config) -> None:
    """Let the process open as many files as it lets connections in, if the system allows it."""
    limits = config.limits
    wanted = limits.connections_max + SMALL_PORTS * limits.other_connections_max + FILES_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("files.few", allowed=allowed, wanted=wanted)
