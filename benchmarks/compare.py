"""The comparison: error rates and power of the rules, and how quickly the gate weighs its evidence.

`python -m benchmarks.compare [--json] [--trials N]`

Rates are simulated with a fixed seed: n images, a share psi of them right for exactly one release. Each rate
stands with its standard error. Times are medians of 20 calls in one process.
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
from engine.compare.gate import gate
from engine.config import load_settings
from engine.release.bundle import Manifest, Origin, Release
from engine.release.slots import write_pointer
from engine.store.clock import timestamp
from engine.store.workspace import Workspace

PSI, ALPHA, EVERY, IMAGES = 0.10, 0.05, 100, 2000


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--trials", type=int, default=4000)
    options = parser.parse_args(argv)
    results = [*rates(options.trials), *gate_times()]
    if options.json:
        print(json.dumps({"results": results}))
        return
    for result in results:
        error = f" ± {result['error']:.3f}" if result.get("error") is not None else ""
        print(f"{result['measure']:<72} {result['value']:>8.3f}{error} {result['unit']}")


def rates(trials: int) -> list[dict[str, Any]]:
    """False promotions and power, from `trials` simulated series of 2,000 images each."""
    random = np.random.default_rng(20261120)

    def series(gap: float) -> tuple[np.ndarray, np.ndarray]:
        cells = [PSI / 2 + gap / 2, PSI / 2 - gap / 2, 1 - PSI]
        steps = random.multinomial(EVERY, cells, size=(trials, IMAGES // EVERY))
        return np.cumsum(steps[..., 0], axis=1), np.cumsum(steps[..., 1], axis=1)

    def share(name: str, passed: Callable[[list[int], list[int]], bool], gap: float) -> dict[str, Any]:
        b, c = series(gap)
        hits = sum(
            passed([int(x) for x in mine], [int(x) for x in theirs]) for mine, theirs in zip(b, c, strict=True)
        )
        rate = hits / trials
        return {"measure": name, "value": rate, "error": math.sqrt(rate * (1 - rate) / trials), "unit": ""}

    def mid_p(b: int, c: int) -> bool:
        return st.mcnemar(b, c)[1] < ALPHA

    def e_value(b: int, c: int) -> bool:
        return st.log_e_value(b, c) >= -math.log(ALPHA)

    def gate_rule(b: list[int], c: list[int]) -> bool:
        first = b[0] > c[0] and mid_p(b[0], c[0])
        return first or any(x > y and e_value(x, y) for x, y in zip(b[1:], c[1:], strict=True))

    results = [
        share("more correct answers win at n 100, equal releases", lambda b, c: b[0] > c[0], 0.0),
        share("the same, TO-BE two points worse", lambda b, c: b[0] > c[0], -0.02),
        share("mid-p looked at 20 times, equal (either wins)", lambda b, c: any(map(mid_p, b, c)), 0.0),
        share("e-value looked at 20 times, equal (either wins)", lambda b, c: any(map(e_value, b, c)), 0.0),
        share("the gate looked at 20 times, equal (opens)", gate_rule, 0.0),
        share("the gate looked at 20 times, TO-BE two points better (opens)", gate_rule, 0.02),
    ]
    for n in (100, 300, 1000, 2000):
        place = n // EVERY - 1
        results.append(
            share(
                f"the gate after one look at {n:,} images, TO-BE two points better (opens)",
                lambda b, c, place=place: b[place] > c[place] and mid_p(b[place], c[place]),  # type: ignore[misc]
                0.02,
            )
        )
    return results


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
