"""What a slot's releases answered since they went live: the evidence of the bake after a promotion."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

_BINS = 20
_RECENT = 2048


class ReleaseAnswers:
    """Counts of one release. Latencies are those of the newest 2,048 good answers, in seconds."""

    def __init__(self, since: str) -> None:
        self.since = since
        self.requests = self.errors = 0
        self.confidence = [0] * _BINS
        self.classes: Counter[int] = Counter()
        self._recent = array("d")
        self._next = 0

    def count(self, status: int, seconds: float, top: int, confidence: float) -> None:
        """One answer.

        Args:
            status: HTTP's; 500 and above count as errors.
            top: index of the most probable class, negative where the answer has none.
            confidence: that class's probability, 0 to 1.
        """
        self.requests += 1
        if status >= 400:
            self.errors += status >= 500
            return
        if len(self._recent) < _RECENT:
            self._recent.append(seconds)
        else:
            self._recent[self._next] = seconds
            self._next = (self._next + 1) % _RECENT
        if top >= 0:
            self.confidence[min(_BINS - 1, int(confidence * _BINS))] += 1
            self.classes[top] += 1

    def percentile_ms(self, fraction: float) -> float | None:
        """Of the recent good answers, milliseconds; None without any."""
        if not self._recent:
            return None
        ordered = sorted(self._recent)
        return round(1000 * ordered[min(len(ordered) - 1, int(fraction * len(ordered)))], 3)

    def to_dict(self) -> dict[str, Any]:
        """`{requests, errors, latency_ms: {p50, p99}, confidence: [20 counts], classes: {index: n}, since}`."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "latency_ms": {"p50": self.percentile_ms(0.5), "p99": self.percentile_ms(0.99)},
            "confidence": list(self.confidence),
            "classes": {str(index): count for index, count in sorted(self.classes.items())},
            "since": self.since,
        }


class Answers:
    """The counts of the release that is live and of the one before."""

    def __init__(self) -> None:
        self._live: str | None = None
        self._of: dict[str, ReleaseAnswers] = {}

    def goes_live(self, release: str, since: str) -> None:
        """Begin to count for `release` (a worker that replaces a dead one of the same release goes on)."""
        if release == self._live:
            return
        before = {self._live: self._of[self._live]} if self._live is not None else {}
        self._of = {**before, release: ReleaseAnswers(since)}
        self._live = release

    def count(self, release: str, status: int, seconds: float, top: int = -1, confidence: float = 0.0) -> None:
        """As `ReleaseAnswers.count`; of a release long gone nothing is kept."""
        found = self._of.get(release)
        if found is not None:
            found.count(status, seconds, top, confidence)

    @property
    def live(self) -> ReleaseAnswers | None:
        return self._of[self._live] if self._live is not None else None

    def to_dict(self) -> dict[str, Any]:
        return {release: found.to_dict() for release, found in self._of.items()}
