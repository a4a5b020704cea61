"""Which link is used, by the kernel's own tables, and what the configuration says of it."""

from __future__ import annotations

import pytest

from edge.commands.gateway import line_texts
from edge.config import LinkConfig, SyncConfig, load_config
from edge.errors import ConfigInvalid
from edge.http.links import BytesLine, LineAnswer
from edge.uplink import PROBES_DAY, PROBES_DAY_METERED, default_interface, link_of, uplink
from sync.line import PROBE_BYTES
from sync.meter import DEFAULT_NAME, Link, LinkKind

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
ETH = "eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
LOCAL = "eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
MODEM = "wwan0\t00000000\t00000000\t0001\t0\t0\t700\t00000000\t0\t0\t0\n"
DOWN = "sat0\t00000000\t00000000\t0000\t0\t0\t1\t00000000\t0\t0\t0\n"
ZEROS = "0" * 32


def ipv6(interface: str, *, metric: str = "00000400", flags: str = "00450003") -> str:
    """A default route."""
    fields = (ZEROS, "00", ZEROS, "00", "fe80" + "0" * 28, metric, "00000001", "00000000", flags)
    return " ".join(fields) + f"     {interface}\n"


@pytest.mark.parametrize(
    ("ipv4", "other", "found"),
    [
        (HEAD + LOCAL + ETH + MODEM, "", "eth0"),
        (HEAD + LOCAL + MODEM, "", "wwan0"),
        (HEAD + LOCAL, "", None),
        (HEAD + DOWN, "", None),
        ("", ipv6("wlan0"), "wlan0"),
        ("", ipv6("lo", metric="ffffffff", flags="00200200"), None),
        (HEAD + MODEM, ipv6("wlan0", metric="00000064"), "wlan0"),
        ("", "", None),
        ("nonsense", "more of it", None),
    ],
)
def test_the_best_default_route_names_the_interface(
    ipv4: str, other: str, found: str | None
) -> None:
    assert default_interface(ipv4, other) == found


def test_the_configuration_says_what_an_interface_is_like() -> None:
    config = SyncConfig(
        links=(
            LinkConfig(interface="wwan0", kind="satellite", day_bytes_max=5_000_000),
            LinkConfig(interface="wwan*", kind="metered", probe_day_bytes_max=50_000),
        )
    )
    satellite = link_of(config, "wwan0")
    assert (satellite.kind, satellite.day_bytes_max) == (LinkKind.SATELLITE, 5_000_000)
    assert satellite.probe_day_bytes_max == PROBES_DAY_METERED * PROBE_BYTES
    modem = link_of(config, "wwan1")
    assert (modem.name, modem.kind, modem.metered) == ("wwan1", LinkKind.METERED, True)
    assert (modem.day_bytes_max, modem.probe_day_bytes_max) == (None, 50_000)
    free = Link(name="eth0", probe_day_bytes_max=PROBES_DAY * PROBE_BYTES)
    assert link_of(config, "eth0") == free
    assert link_of(config, None).name == DEFAULT_NAME
    assert uplink(config)().kind in LinkKind


def test_links_are_read_from_the_file_and_checked() -> None:
    flags: dict[str, str] = {}
    read = load_config(None, environment={}, flags=flags).sync
    assert read.links == ()
    for wrong in ("", "a b", "much-too-long-interface"):
        with pytest.raises(ConfigInvalid):
            load_config(None, environment={"CBDC_EDGE_SYNC__LINKS": wrong}, flags=flags)


def test_the_line_is_told_in_words() -> None:
    line = LineAnswer(
        state="captive",
        since_ms=1,
        failures=3,
        link="wlan0",
        kind="metered",
        segment_bytes=4096,
        day_bytes=9_000,
        day_bytes_left=1_000,
        probe_day_bytes=600,
        probe_day_bytes_left=200,
        held_s=7200,
        counted=[BytesLine(link="wlan0", purpose="probe", sent=5, received=7)],
    )
    text = "\n".join(text for _, text in line_texts(line))
    assert "captive on wlan0 (metered), 3 failures" in text
    assert "somebody else answers" in text
    assert "9000 bytes, 1000 left" in text
    assert "of it for probes: 600 bytes, 200 left" in text
    assert "holds it back" in text
    assert "wlan0 probe: 5 sent, 7 received" in text
