"""How each station's time grows: measured at two sizes, told as a fixed part and a part a unit, and a thousand times more.

    python -m benchmarks.scale [STATION ...]

One process, one core where the station allows it. The last column is calculated, `fixed + unit * 1000 * largest`, for
this machine; docs/scale.md says where something else takes over before that.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks._workspace import make_workspace
from engine.config import load_settings
from engine.store.workspace import Workspace

_REPEATS = 3
Timed = Callable[[], object]


def main(argv: list[str]) -> None:
    print(
        f"{'station':<34}{'sizes':>22}  {'seconds':>16}  {'fixed':>9}  {'a unit':>10}  {'growth':>6}  {'x1000':>10}"
    )
    for name, (unit, sizes, prepare) in STATIONS.items():
        if argv and not any(word in name for word in argv):
            continue
        found = []
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="understudy-scale-") as folder:
                found.append(_seconds(prepare(Path(folder), size)))
        (small, large), (least, most) = sizes, found
        each = max(0.0, (most - least) / (large - small))
        fixed = max(0.0, least - each * small)
        growth = _exponent(least, most, large / small)
        shown = f"{small:,} to {large:,} {unit}"
        print(
            f"{name:<34}{shown:>22}  {least:7.4f} {most:8.4f}  {fixed:9.4f}  {_short(each):>10}  {growth:6.2f}"
            f"  {_clock(fixed + each * large * 1000):>10}",
            flush=True,
        )


def _seconds(work: Timed) -> float:
    """The median of a few calls after one that warms up; one call where it takes long."""
    work()
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < 3:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _exponent(least: float, most: float, ratio: float) -> float:
    """k where the time grows as size ** k."""
    import math

    return math.log(most / least) / math.log(ratio)


def _images(folder: Path, count: int) -> Timed:
    """The check of a data folder: every file opened, decoded and hashed once."""
    import numpy as np
    from PIL import Image

    from engine.tasks.task import load_task

    stream = np.random.default_rng(0)
    for number in range(count):
        path = folder / "photos" / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stream.integers(0, 255, (128, 128, 3), dtype=np.uint8)).save(path)
    words = ["data=folder", f"data.root={folder / 'photos'}", "data.img_size=64"]
    settings = load_settings(None, folder / "workspace", words).settings
    return lambda: load_task("images", settings)


def _training(folder: Path, samples: int) -> Timed:
    """A run of litecnn at 16 px on one thread, in epochs of 698 with as many to validate."""
    from engine.training.runs import claim_run
    from engine.training.train import train

    words = [
        "data.val_fraction=0.5",
        "data.img_size=16",
        f"training.epochs={samples // 698}",
        "device.prefer=cpu",
    ]
    workspace = Workspace(folder)
    settings = load_settings(None, folder, words).settings
    return lambda: train(workspace, settings, claim_run(workspace))


def _admission(folder: Path, width: int) -> Timed:
    """A checkpoint checked and converted to ONNX, in this process; its parameters grow with the width squared."""
    import torch

    from engine.release.admission_child import check_and_convert
    from engine.release.card import card_terms
    from engine.tasks.images.models import build_model

    settings = {"widths": [width, 2 * width, 4 * width], "depths": [0, 2, 1]}
    net = build_model("litecnn", 10, settings=settings)
    card = {
        "format": 1, "task": "images", "architecture": {"name": "litecnn", "settings": settings},
        "classes": list("0123456789"), "cycle": 1, "run": None,
        "preprocess": {"img_size": 32, "resize": "crop", "mean": [0.5] * 3, "std": [0.25] * 3},
    }  # fmt: skip
    path = folder / "net.pth"
    torch.save({"model_state_dict": net.state_dict(), "epoch": 1, "accuracy": 0.9, "understudy": card}, path)
    terms = card_terms(load_settings(None, folder).settings)
    job = {"checkpoint": str(path), **terms, "expect_classes": None, "expect_task": None, "convert": True}

    def work() -> None:
        out = Path(tempfile.mkdtemp(dir=folder))
        check_and_convert(dict(job), out)

    return work


def _look(folder: Path, checkpoints: int) -> Timed:
    """`sync`'s look at a local source: list, choose."""
    from engine.checkpoints.naming import choose
    from engine.sync.local import LocalSource

    make_workspace(folder, checkpoints=checkpoints, runs=0, events=0)

    def work() -> object:
        with LocalSource(folder / "checkpoints") as source:
            return choose(source.listing(), time.time())

    return work


def _copy(folder: Path, megabytes: int) -> Timed:
    """A backup: a copy, and its hash read back."""
    from engine.store.files import sha256_file

    path = folder / "a.bin"
    path.write_bytes(os.urandom(1 << 20) * megabytes)

    def work() -> None:
        shutil.copyfile(path, folder / "b.bin")
        sha256_file(folder / "b.bin")

    return work


def _append(folder: Path, events: int) -> Timed:
    """One more event at the end of a log of so many."""
    from engine.store.events import append_event

    workspace = make_workspace(folder, checkpoints=0, runs=0, events=events)
    return lambda: append_event(workspace, "synced", "x", {"changed": False})


def _verify(folder: Path, events: int) -> Timed:
    """The whole chain checked, as `doctor` does."""
    from engine.store.events import verify_events

    workspace = make_workspace(folder, checkpoints=0, runs=0, events=events)
    return lambda: verify_events(workspace)


def _runs(folder: Path, runs: int) -> Timed:
    from engine.training.runs import list_runs

    workspace = make_workspace(folder, checkpoints=0, runs=runs, events=0)
    return lambda: list_runs(workspace)


def _serving(folder: Path, requests: int) -> Timed:
    """What a request costs besides HTTP: a 640x480 JPEG decoded and prepared, litecnn at 64 px, one thread."""
    import io

    import numpy as np
    from PIL import Image

    from engine.tasks.medium import Limits
    from engine.tasks.task import load_kind

    card = {
        "task": "images", "architecture": {"name": "litecnn", "settings": {}}, "classes": list("0123456789"),
        "preprocess": {"img_size": 224, "resize": "crop", "mean": [0.5] * 3, "std": [0.25] * 3},
    }  # fmt: skip
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((320, 240)).resize((640, 480)).save(stream, "JPEG")
    medium = load_kind("images").medium(card)
    return lambda: [medium.decode(stream.getvalue(), Limits()) for _ in range(requests)]


def _games(folder: Path, games: int) -> Timed:
    from engine.tasks.go.parse import parse
    from engine.tasks.go.plan import Filters

    source = folder / "games"
    source.mkdir()
    for number in range(games):
        order = random.Random(number).sample(range(361), 180)
        moves = "".join(f";{'BW'[i % 2]}[{chr(97 + at // 19)}{chr(97 + at % 19)}]" for i, at in enumerate(order))
        (source / f"{number}.sgf").write_text(f"(;GM[1]SZ[19]RE[B+R]{moves})")

    def work() -> None:
        out = Path(tempfile.mkdtemp(dir=folder))
        parse([source], out, filters=Filters(), games_per_shard=200, workers=1)

    return work


STATIONS: dict[str, tuple[str, tuple[int, int], Callable[[Path, int], Timed]]] = {
    "data check (JPEG, 128 px)": ("images", (200, 1000), _images),
    "training (16 px, 1 core)": ("samples", (698, 6980), _training),
    "admission (litecnn of width W)": ("W", (16, 128), _admission),
    "sync: the look": ("checkpoints", (100, 2000), _look),
    "backup: copy and hash": ("MB", (16, 256), _copy),
    "event: one more": ("events before", (1000, 100_000), _append),
    "events: the chain checked": ("events", (1000, 50_000), _verify),
    "runs: listed": ("runs", (100, 1000), _runs),
    "request: JPEG to tensor": ("requests", (20, 200), _serving),
    "go parse (1 core)": ("games", (200, 800), _games),
}


def _short(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.2f} {unit}"
    return ""


def _clock(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main(sys.argv[1:])
