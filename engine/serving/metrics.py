"""A slot's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts of one slot's server. `depth` gives the number of requests asked and not yet answered."""

    def __init__(self, slot: str, depth: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests_total = self.failures_total = self.refused_total = 0
        labels = {"slot": slot}

        def counter(name: str, text: str, *names: str) -> Counter:
            return Counter(f"understudy_{name}", text, ("slot", *names), registry=self.registry)

        self._requests = counter("requests_total", "Requests answered.", "endpoint", "status")
        self._errors = counter("errors_total", "Requests answered with an error.", "endpoint", "status")
        self._swaps = counter("swaps_total", "Releases that took another's place.").labels(**labels)
        self._restarts = counter("worker_restarts_total", "Workers that died and were replaced.").labels(**labels)
        self._seconds = Histogram(
            "understudy_request_seconds", "Time from the body's arrival to the answer.", ("slot", "endpoint"),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch = Histogram(
            "understudy_batch_size", "Images in one request.", ("slot",),
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=self.registry,
        ).labels(**labels)  # fmt: skip
        queue = Gauge("understudy_queue_depth", "Requests not yet answered.", ("slot",), registry=self.registry)
        queue.labels(**labels).set_function(depth)
        self._release = Gauge(
            "understudy_release_info", "The loaded release.",
            ("slot", "release", "sha256", "cycle", "architecture", "precision"), registry=self.registry,
        )  # fmt: skip
        self._ready = Gauge("understudy_ready", "1 while a release answers.", ("slot",), registry=self.registry)
        self._shadow = counter("shadow_total", "Answered images of the share that is mirrored to TO-BE.", "result")
        self._slot = slot
        self._known: dict[tuple[str, int], tuple[Counter, Counter | None]] = {}
        self._clocks: dict[str, Histogram] = {}
        self._swapped = self._restarted = 0

    def count(self, endpoint: str, status: int) -> None:
        pair = self._known.get((endpoint, status))
        if pair is None:
            labels = (self._slot, endpoint, str(status))
            failed = self._errors.labels(*labels) if status >= 400 else None
            pair = self._known[endpoint, status] = (self._requests.labels(*labels), failed)
        pair[0].inc()
        if pair[1] is not None:
            pair[1].inc()

    def answered(self, endpoint: str, status: int, seconds: float | None) -> None:
        """Count one request for a prediction; `seconds` where the net was asked."""
        self.count(endpoint, status)
        self.requests_total += 1
        self.failures_total += status >= 500
        self.refused_total += 400 <= status < 500
        if seconds is None:
            return
        clock = self._clocks.get(endpoint)
        if clock is None:
            clock = self._clocks[endpoint] = self._seconds.labels(self._slot, endpoint)
        clock.observe(seconds)

    def mirrored(self, result: str) -> None:
        """Count an image of the mirrored share; `result` is agreed, differed, failed or passed_over."""
        self._shadow.labels(self._slot, result).inc()

    def show_changes(self, swaps: int, restarts: int) -> None:
        """The totals since the start."""
        self._swaps.inc(swaps - self._swapped)
        self._restarts.inc(restarts - self._restarted)
        self._swapped, self._restarted = swaps, restarts

    def show_release(self, card: dict[str, object] | None) -> None:
        self._release.clear()
        self._ready.labels(self._slot).set(card is not None)
        if card is not None:
            names = ("release", "sha256", "cycle", "architecture", "precision")
            self._release.labels(
                self._slot, *(str(card[name] if card[name] is not None else "") for name in names)
            ).set(1)

    def text(self) -> bytes:
        return generate_latest(self.registry)
