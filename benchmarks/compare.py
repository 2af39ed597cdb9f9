"""The comparison: error rates and power of the rules, and how quickly the gate weighs its evidence.

`python -m benchmarks.compare [--json] [--trials N]`

Rates are simulated with fixed seeds: n images, a share psi of them right for exactly one release, and live requests
on which the two differ, a fifth of them right for neither. Each rate stands with its standard error. Times are medians of 20 calls in one process.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.compare import records
from engine.compare import statistics as st
from engine.compare.deciding import Rule
from engine.compare.gate import gate
from engine.config import load_settings
from engine.release.bundle import Manifest, Origin, Release
from engine.release.slots import write_pointer
from engine.store.clock import timestamp
from engine.store.workspace import Workspace

PSI, ALPHA, EVERY, IMAGES, LABELS = 0.10, 0.05, 100, 2000, 300


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trials", type=int, default=10_000)
    options = parser.parse_args(argv)
    results = [*rates(options.trials), *gate_times()]
    if options.json:
        print(json.dumps({"results": results}))
        return
    for result in results:
        error = f" ± {result['error']:.3f}" if result.get("error") is not None else ""
        print(f"{result['measure']:<92} {result['value']:>9.3f}{error} {result['unit']}")


def rates(trials: int) -> list[dict[str, Any]]:
    """Wrong winners, power and what it costs to decide, from `trials` simulated comparisons of each kind."""
    return [
        *_fixed_looks(trials),
        *_every_image(trials),
        *_power(trials),
        *_coverage(trials),
    ]


def _rate(name: str, hits: int, trials: int) -> dict[str, Any]:
    rate = hits / trials
    return {"measure": name, "value": rate, "error": math.sqrt(rate * (1 - rate) / trials), "unit": ""}


def _fixed_looks(trials: int) -> list[dict[str, Any]]:
    """The old rule, and a p-value looked at again, on series of 2,000 images in hundreds."""
    random = np.random.default_rng(20261120)

    def share(name: str, passed: Callable[[list[int], list[int]], bool], gap: float) -> dict[str, Any]:
        cells = [PSI / 2 + gap / 2, PSI / 2 - gap / 2, 1 - PSI]
        b, c, _ = np.cumsum(random.multinomial(EVERY, cells, size=(trials, IMAGES // EVERY)), axis=1).T
        hits = sum(passed(mine.tolist(), theirs.tolist()) for mine, theirs in zip(b.T, c.T, strict=True))
        return _rate(name, hits, trials)

    def mid_p(b: int, c: int) -> bool:
        return st.mcnemar(b, c)[1] < ALPHA

    def opens(b: int, c: int) -> bool:
        return b > c and st.mcnemar(b, c)[1] < st.FIRST_SHARE * ALPHA

    return [
        share("more correct answers win at n 100, equal", lambda b, c: b[0] > c[0], 0.0),
        share("the same, TO-BE two points worse", lambda b, c: b[0] > c[0], -0.02),
        share("mid-p at 20 looks, equal (either wins)", lambda b, c: any(map(mid_p, b, c)), 0.0),
        *(
            share(
                f"one look at {n:,} images, two points better (opens)",
                lambda b, c, at=n // EVERY - 1: opens(b[at], c[at]),  # type: ignore[misc]
                0.02,
            )
            for n in (100, 300, 1000, 2000)
        ),
    ]


def _every_image(trials: int) -> list[dict[str, Any]]:
    """Equal releases looked at after every image: how often a winner is named, by each way to a winner."""
    random = np.random.default_rng(20261121)
    rule = Rule(ALPHA, None, 100)
    images = [0.5 * PSI, 0.5 * PSI, 1 - PSI]
    labels = [0.4, 0.4, 0.2]  # of live requests that differ: TO-BE right, AS-IS right, neither
    named = dict.fromkeys(("e", "opens", "gate", "thousand", "until", "live", "pooled"), 0)
    for count in _chunks(trials):
        b, c = _paths(random, images, count, IMAGES)
        log_e = _log_e(b, c)
        named["e"] += int((log_e.max(axis=1) >= rule.threshold).sum())
        first, needed = _first_look(b[:, 99], c[:, 99])
        later = log_e[:, 100:] >= needed[:, None]
        named["gate"] += int((first | later.any(axis=1)).sum())
        ahead = b > c
        named["opens"] += int(((first & ahead[:, 99]) | (later & ahead[:, 100:]).any(axis=1)).sum())
        first, needed = _first_look(b[:, 999], c[:, 999])
        named["thousand"] += int((first | (log_e[:, 1000:] >= needed[:, None]).any(axis=1)).sum())
        named["until"] += int((log_e[:, 99:] >= rule.threshold).any(axis=1).sum())

        live_b, live_c = _paths(random, labels, count, LABELS)
        live_e = _log_e(live_b, live_c)
        named["live"] += int((live_e >= rule.threshold).any(axis=1).sum())
        # Both kinds at once: before each image a coin says whether a label comes next.
        turn = np.minimum(np.cumsum(random.random((count, IMAGES)) < LABELS / IMAGES, axis=1), LABELS) - 1
        mixed = np.where(turn >= 0, np.take_along_axis(live_e, np.maximum(turn, 0), axis=1), 0.0)
        named["pooled"] += int(((log_e + mixed) >= rule.threshold).any(axis=1).sum())
    words = {
        "e": "e-value after every one of 2,000 images, equal (either wins)",
        "opens": "gate: mid-p at 100, then e-value at every image, equal (opens)",
        "gate": "gate: mid-p at 100, then e-value at every image, equal (either wins)",
        "thousand": "gate: mid-p at 1,000, then e-value at every image to 2,000, equal (either wins)",
        "until": "ab --until-decided --max-images 2000, equal (either wins)",
        "live": f"labels of {LABELS} differing live requests, looked at after each, equal (either wins)",
        "pooled": f"2,000 images and {LABELS} live labels mixed, looked at after each, equal (either wins)",
    }
    return [_rate(words[kind], hits, trials) for kind, hits in named.items()]


def _power(trials: int) -> list[dict[str, Any]]:
    """What it takes to decide when TO-BE is two points better."""
    random = np.random.default_rng(20261122)
    gap, rule = 0.02, Rule(ALPHA, None, 100)
    most, images = 5000, [0.5 * PSI + gap / 2, 0.5 * PSI - gap / 2, 1 - PSI]
    labels = [0.4 + 0.4 * gap / PSI, 0.4 - 0.4 * gap / PSI, 0.2]
    asked, again, labelled, both = [], [], [], []
    for count in _chunks(trials):
        b, c = _paths(random, images, count, most)
        set_e, ahead = _log_e(b, c), b > c
        asked.append(_first((set_e >= rule.threshold) & ahead & (np.arange(most) >= 99)))
        first, needed = _first_look(b[:, 999], c[:, 999])
        later = (set_e >= needed[:, None]) & ahead & (np.arange(most) >= 1000)
        again.append(np.where(first & ahead[:, 999], 999, _first(later)))
        live_b, live_c = _paths(random, labels, count, 1000)
        live_e = _log_e(live_b, live_c)
        labelled.append(_first((live_e >= rule.threshold) & (live_b > live_c)))
        start, lead = set_e[:, 999], (b - c)[:, 999]  # a look at 1,000 images of a set first, then labels
        passed = (live_e + start[:, None] >= needed[:, None]) & (live_b - live_c + lead[:, None] > 0)
        both.append(np.where(first & (lead > 0), 0, _first(passed) + 1))
    found = {
        kind: np.concatenate(parts)
        for kind, parts in (("asked", asked), ("again", again), ("labelled", labelled), ("both", both))
    }
    return [
        _rate("ab --until-decided --max-images 5000, two points better (decides for TO-BE)",
              int((found["asked"] < most).sum()), trials),
        {"measure": "images that it asks, median", "value": float(np.median(found["asked"] + 1)), "unit": "images"},
        _rate("one look at 1,000, then e-value at every image to 5,000, two points better (opens)",
              int((found["again"] < most).sum()), trials),
        {"measure": "images that it takes, median", "value": float(np.median(found["again"] + 1)), "unit": "images"},
        {"measure": "labels of live requests that decide, median, two points better",
         "value": float(np.median(found["labelled"] + 1)), "unit": "labels"},
        _rate("within 150 labels, two points better (decides for TO-BE)",
              int((found["labelled"] < 150).sum()), trials),
        {"measure": "labels after 1,000 images of a set that decide, median, two points better",
         "value": float(np.median(found["both"])), "unit": "labels"},
    ]  # fmt: skip


def _coverage(trials: int) -> list[dict[str, Any]]:
    """How often the interval of the difference on live traffic holds the true one: 10,000 mirrored, 10% differ."""
    random, mirrored, tau = np.random.default_rng(20261123), 10_000, 0.16
    results = []
    for labelled in (30, 100, 400):
        held = 0
        for _ in range(trials):
            differing = int(random.binomial(mirrored, PSI))
            b, c, _ = (int(x) for x in random.multinomial(labelled, [0.4 + tau / 2, 0.4 - tau / 2, 0.2]))
            _, low, high = st.two_phase_difference(b, c, labelled, differing, mirrored)
            held += low <= PSI * tau <= high
        results.append(
            _rate(f"95% interval of the live difference, {labelled} labels (holds the true one)", held, trials)
        )
    return results


def _first_look(b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which first looks at a fixed number name a winner, and the logarithm of the e-value that the others need."""
    named, needed = [], []
    for won, lost in zip(b.tolist(), c.tolist(), strict=True):
        rule = Rule(ALPHA, None, 100, won + lost)
        named.append(st.mcnemar(won, lost)[1] < rule.first_level)
        needed.append(rule.threshold)
    return np.array(named), np.array(needed)


def _chunks(trials: int) -> list[int]:
    return [min(500, trials - start) for start in range(0, trials, 500)]


def _paths(
    random: np.random.Generator, cells: list[float], count: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    drawn = random.random((count, length))
    won, lost = drawn < cells[0], (drawn >= cells[0]) & (drawn < cells[0] + cells[1])
    return np.cumsum(won, axis=1, dtype=np.int32), np.cumsum(lost, axis=1, dtype=np.int32)


def _log_e(b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """`statistics.log_e_value` of whole arrays, by a table of log-gammas."""
    top = int((b + c).max())
    table = np.array([math.lgamma(st.A + n) for n in range(top + 1)])
    both = np.array([n * math.log(2) - math.lgamma(2 * st.A + n) for n in range(top + 1)])
    return table[b] + table[c] + both[b + c] - (2 * math.lgamma(st.A) - math.lgamma(2 * st.A))


def _first(passed: np.ndarray) -> np.ndarray:
    """The first place that passes, the length where none does."""
    return np.where(passed.any(axis=1), passed.argmax(axis=1), passed.shape[1])


def gate_times(comparisons: int = 50, images: int = 2000) -> list[dict[str, Any]]:
    """`gate` over 50 comparisons of 2,000 images: with nothing remembered, and as `status` meets it."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        settings = load_settings(None, workspace.root).settings
        _fill(workspace, comparisons, images)

        def once(cold: bool) -> float:
            if cold:
                (workspace.state / "comparisons.json").unlink(missing_ok=True)
            begun = time.perf_counter()
            gate(workspace, settings)
            return (time.perf_counter() - begun) * 1000

        name = f"gate over {comparisons} comparisons of {images:,} images"
        return [
            {
                "measure": f"{name}, {how}",
                "value": statistics.median(once(cold) for _ in range(times)),
                "unit": "ms",
            }
            for how, cold, times in (("nothing remembered", True, 3), ("as status meets it", False, 20))
        ]


def _fill(workspace: Workspace, comparisons: int, images: int) -> None:
    random = np.random.default_rng(1)
    ids = {}
    for slot, digit in (("asis", "a"), ("tobe", "b")):
        origin = Origin(name="x.pth", sha256=digit * 64, md5=digit * 32, bytes=1)
        manifest = Manifest(
            architecture={"name": "litecnn"},
            classes=["x", "y"],
            input={},
            preprocess={},
            parameters=1,
            checkpoint=origin,
        )
        release = Release(digit * 64, workspace.releases / "none", manifest)
        write_pointer(workspace, slot, release, "benchmark")
        ids[slot] = release.id
    for number in range(1, comparisons + 1):
        drawn = random.choice(["xx", "xy", "yx"], p=[0.9, 0.05, 0.05], size=images)
        rows: list[list[str | None]] = [
            [f"{number * images + place:064x}", "x", str(pair)[0], str(pair)[1], f"x/{place}.png"]
            for place, pair in enumerate(drawn)
        ]
        summary = {
            "id": number,
            "at": timestamp(),
            "n": images,
            "status": "completed",
            "reason": "",
            "data_key": "benchmark",
            "available": images,
            **{slot: {"release": identity, "errors": 0} for slot, identity in ids.items()},
        }
        records.store(workspace, summary, rows)


if __name__ == "__main__":
    main(sys.argv[1:])
