"""Which link packets to the cloud take: the interface of the default route, by the kernel's tables.

What a link is like and may cost stands in the configuration; nothing is asked of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.config import LinkConfig, SyncConfig
from sync.line import PROBE_BYTES
from sync.meter import DEFAULT_NAME, Link, LinkKind

IPV4_ROUTES, IPV6_ROUTES = Path("/proc/net/route"), Path("/proc/net/ipv6_route")
PROBES_DAY, PROBES_DAY_METERED = 2_500, 100
_UP, _REJECT = 0x1, 0x200
_ANYWHERE_4, _ANYWHERE_6 = "00000000", "0" * 32


def uplink(config: SyncConfig) -> Callable[[], Link]:
    """Asks for the link of the moment."""

    def link() -> Link:
        return link_of(config, default_interface(_read(IPV4_ROUTES), _read(IPV6_ROUTES)))

    return link


def link_of(config: SyncConfig, interface: str | None) -> Link:
    """What the configuration says of an interface."""
    known = [one for one in config.links if interface is not None and _names(one, interface)]
    kind = LinkKind(known[0].kind) if known else LinkKind.FREE
    probes = PROBES_DAY if kind is LinkKind.FREE else PROBES_DAY_METERED
    probe_day_bytes_max = known[0].probe_day_bytes_max if known else None
    return Link(
        name=interface or DEFAULT_NAME,
        kind=kind,
        day_bytes_max=known[0].day_bytes_max if known else None,
        probe_day_bytes_max=probe_day_bytes_max or probes * PROBE_BYTES,
    )


def _names(one: LinkConfig, interface: str) -> bool:
    if one.interface.endswith("*"):
        return interface.startswith(one.interface[:-1])
    return interface == one.interface


def default_interface(ipv4: str, ipv6: str) -> str | None:
    """The interface of the best default route in the kernel's two tables; None without one."""
    found = [*_ipv4_defaults(ipv4), *_ipv6_defaults(ipv6)]
    return min(found)[1] if found else None


def _ipv4_defaults(table: str) -> list[tuple[int, str]]:
    """(metric, interface): a line has interface, destination, gateway, flags, ..., metric, mask."""
    rows = [line.split() for line in table.splitlines()[1:]]
    return [
        (int(row[6]), row[0])
        for row in rows
        if len(row) > 7 and (row[1], row[7]) == (_ANYWHERE_4, _ANYWHERE_4) and _usable(row[3])
    ]


def _ipv6_defaults(table: str) -> list[tuple[int, str]]:
    """Likewise: destination, its prefix, source, prefix, next, metric, ..., flags, interface."""
    rows = [line.split() for line in table.splitlines()]
    return [
        (int(row[5], 16), row[9])
        for row in rows
        if len(row) > 9
        and (row[0], row[1]) == (_ANYWHERE_6, "00")
        and row[9] != "lo"
        and _usable(row[8])
    ]


def _usable(flags: str) -> bool:
    return int(flags, 16) & (_UP | _REJECT) == _UP


def _read(table: Path) -> str:
    try:
        return table.read_text()
    except OSError:
        return ""
