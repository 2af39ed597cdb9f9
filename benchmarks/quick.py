"""What the quick verbs cost: wall time and peak memory of a whole process, medians of seven.

A workspace with both slots filled, a backup, runs and events; `sync` finds a local source unchanged.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engine.store.events import append_event
from engine.store.files import write_json
from engine.store.workspace import Workspace

REPEATS = 7
LIMITS = {"status": (0.35, 60e6), "sync": (0.45, 70e6), "cloud plan": (0.6, 80e6)}
# Linux counts, in a child's ru_maxrss, what the process was before its exec; VmHWM starts anew with the program.
RUNNER = """
import json, runpy, sys, time
sys.argv = ["engine", *sys.argv[1:]]
try:
    runpy.run_module("engine", run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
import resource
try:
    peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
heavy = sorted({"torch", "numpy", "sklearn", "onnxruntime", "sky", "ray"} & set(sys.modules))
print(json.dumps({"code": code, "peak_bytes": peak, "heavy": heavy}), file=sys.stderr)
"""


def main(argv: list[str]) -> None:
    """Measure and print; with `--json` one object."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = _furnish(Path(folder) / "workspace")
        results = [_measure(workspace, verb) for verb in LIMITS]
    if "--json" in argv:
        print(json.dumps({"results": results}))
        return
    for result in results:
        print(
            f"{result['verb']:<10} {result['wall_s']:.3f} s (of {result['wall_limit_s']:.2f})"
            f"  {result['peak_bytes'] / 1e6:.1f} MB (of {result['peak_limit_bytes'] / 1e6:.0f})"
            f"  heavy imports: {', '.join(result['heavy']) or 'none'}"
        )


def _furnish(root: Path) -> Workspace:
    from engine.release.bundle import Manifest, Origin, write_release
    from engine.release.journal import slots_lock, switch
    from engine.release.slots import open_slot

    workspace = Workspace(root)
    for cycle, slot in ((1, "asis"), (2, "asis"), (3, "tobe")):
        content = os.urandom(200_000)
        manifest = Manifest(
            architecture={"name": "litecnn", "settings": {}},
            classes=[str(digit) for digit in range(10)],
            input={"name": "image", "dtype": "FP32", "shape": [-1, 3, 32, 32]},
            preprocess={},
            parameters=1,
            checkpoint=Origin(
                name=f"best_model_cycle{cycle}.pth", sha256="0" * 64, md5="0" * 32, bytes=1, cycle=cycle
            ),
        )
        release = write_release(workspace.releases, manifest, content, content)
        with slots_lock(workspace, "bench"):
            switch(
                workspace,
                slot,
                release,
                verb="deploy",
                backup_of=open_slot(workspace, slot),
                detail={},
                event_kind="deployed",
                subject=release.id,
                port=8891,
            )
    for run in range(1, 21):
        manifest_path = workspace.runs / f"{run:04d}" / "manifest.json"
        write_json(
            manifest_path, {"run": f"{run:04d}", "status": "completed", "best": {"epoch": 3, "accuracy": 0.9}}
        )
    for _ in range(200):
        append_event(workspace, "started", "asis")
    return workspace


def _measure(workspace: Workspace, verb: str) -> dict[str, Any]:
    walls, peaks, heavy = [], [], set()
    environment = {**os.environ, "UNDERSTUDY_WORKSPACE": str(workspace.root)}
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, *verb.split(), "--json"],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        walls.append(time.perf_counter() - began)
        said = json.loads(done.stderr.splitlines()[-1])
        if said["code"] != 0:
            raise SystemExit(f"{verb} ended with {said['code']}: {done.stderr}")
        peaks.append(said["peak_bytes"])
        heavy |= set(said["heavy"])
    wall_limit, peak_limit = LIMITS[verb]
    return {
        "verb": verb,
        "wall_s": round(statistics.median(walls[1:]), 4),  # the first fills the file cache
        "wall_limit_s": wall_limit,
        "peak_bytes": int(statistics.median(peaks)),
        "peak_limit_bytes": int(peak_limit),
        "heavy": sorted(heavy),
        "repeats": REPEATS,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
