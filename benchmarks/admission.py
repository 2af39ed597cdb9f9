"""How quickly a bad checkpoint is refused: each file of the tests' corpus through the whole verb.

    python -m benchmarks.admission [WORDS...]     only the files whose name holds one of the words

Each row is one `python -m engine deploy FILE` in a fresh workspace: interpreter, copy, hash, child, event. The
goals are 3 s, and 0.5 s where the zip scan suffices (no torch).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.release.hostile import CASES
from tests.release.hostile_pickles import Case, canary

GOAL_S = {False: 0.5, True: 3.0}


def measure(case: Case, folder: Path) -> tuple[float, str, bool]:
    """Seconds, the reason, and whether the file was refused unexecuted with the right reason."""
    path = folder / "checkpoints_cycle7" / "best_model.pth"
    path.parent.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.make(path)
    workspace = folder / "workspace"
    words = [sys.executable, "-m", "engine", "--workspace", str(workspace), "deploy", str(path), "--json"]
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    error = json.loads(done.stdout).get("error", {})
    said = f"{error.get('message', 'ADMITTED')}: {error.get('hint', '')}"
    # Another class order is only wrong beside an AS-IS, which this workspace does not have.
    right = done.returncode == 1 and (case.words in said or case.check == "crashed")
    return seconds, said, right and not canary(path).exists()


def main() -> int:
    wanted = sys.argv[1:]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, case) in enumerate(CASES.items()):
            if case.check == "classes" or (wanted and not any(word in name for word in wanted)):
                continue
            rows.append((name, case, *measure(case, Path(scratch) / str(number))))
            seconds, said, right = rows[-1][2:]
            sys.stdout.write(f"{seconds:6.2f} s  {'ok ' if right else 'BAD'}  {name:<46} {said[:90]}\n")
            sys.stdout.flush()
    for needs_torch in (False, True):
        times = sorted(seconds for _, case, seconds, _, _ in rows if case.torch is needs_torch)
        if times:
            late = sum(seconds > GOAL_S[needs_torch] for seconds in times)
            what = "after torch has read it" if needs_torch else "by the scan alone"
            sys.stdout.write(
                f"{len(times)} files {what}: median {times[len(times) // 2]:.2f} s, slowest {times[-1]:.2f} s, "
                f"{late} over {GOAL_S[needs_torch]} s\n"
            )
    bad = sum(not right for *_, right in rows)
    sys.stdout.write(f"{len(rows)} files, {bad} not refused as they should be\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
