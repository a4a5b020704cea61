"""Prometheus metrics: plain counters, read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sync.meter import Counted

if TYPE_CHECKING:
    from edge.gateway import Gateway


class Metrics(Collector):
    """Counts what handlers tell; gauges come from the gateway at the moment of asking."""

    def __init__(self, gateway: Gateway, line: Callable[[], list[Counted]]) -> None:
        self._gateway = gateway
        self._line = line
        self._refusals: dict[str, int] = {}
        self._turned_away: dict[str, int] = {}
        self.payments = 0
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def refused(self, code: str) -> None:
        """One refusal more."""
        self._refusals[code] = self._refusals.get(code, 0) + 1

    def turned_away(self, cause: str) -> None:
        """One connection that was not let in, or did not begin in time."""
        self._turned_away[cause] = self._turned_away.get(cause, 0) + 1

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for."""
        yield _counter("cbdc_payments", "Payments answered with a receipt", self.payments)
        yield _counters("cbdc_refusals", "Refusals by code", "code", self._refusals)
        yield _counters(
            "cbdc_connections_refused", "Connections closed at once", "cause", self._turned_away
        )
        yield _line_bytes(self._line())
        mode = self._gateway.mode
        yield _gauge("cbdc_open", "1 when payments are taken", int(mode == "open"))
        opened = self._gateway.opened
        if opened is None:
            return
        status = opened.journal.status()
        for name, text, value in (
            ("cbdc_journal_size", "Entries of the journal", status.size),
            ("cbdc_journal_acknowledged", "Entries that the issuer holds", status.acknowledged),
            ("cbdc_journal_settled", "Entries that are settled", status.settled_size),
            ("cbdc_exposure_minor", "Unsettled value that came in", status.exposure),
            ("cbdc_wallets", "Wallets known here", status.wallets),
            ("cbdc_counter", "The token's counter", status.counter),
        ):
            yield _gauge(name, text, value)


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _counters(name: str, text: str, label: str, counts: dict[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family


def _line_bytes(counted: list[Counted]) -> Metric:
    labels = ["link", "purpose", "direction"]
    family = CounterMetricFamily("cbdc_sync_bytes", "Bytes on the line to the cloud", labels=labels)
    for one in counted:
        family.add_metric([one.link, one.purpose, "sent"], one.sent)
        family.add_metric([one.link, one.purpose, "received"], one.received)
    return family


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


TextSource = Callable[[], bytes]
