"""Tells systemd how the daemon is: the protocol of sd_notify(3), in the few lines that it takes."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"
SEND_TIMEOUT_S = 1.0


def notify(state: str, *, environment: Mapping[str, str] = os.environ) -> bool:
    """Send one state; false when nobody listens. systemd may be gone: that stops nothing."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        # An abstract socket (unix(7)).
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(SEND_TIMEOUT_S)
            channel.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def watchdog_s(*, environment: Mapping[str, str] = os.environ) -> float | None:
    """How often to say that we live: half of what systemd allows; None when it does not ask."""
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 2_000_000 if text.isdigit() and int(text) > 0 else None
