"""Running the admission child: what it is told, what it may take, and what became of it. Torch-free."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.errors import Failed
from engine.release.card import card_terms
from engine.release.sandbox import Layers
from engine.store.clock import timestamp
from engine.store.files import read_json
from engine.store.workspace import Workspace

_POLL_S = 0.05
_KEPT = frozenset(("PATH", "LANG", "LANGUAGE", "TZ", "VIRTUAL_ENV", "SYSTEMROOT"))
_KEPT_PREFIXES = ("LC_", "LD_", "DYLD_", "OMP_", "MKL_", "KMP_", "OPENBLAS_")


@dataclass(frozen=True)
class Limits:
    """What one admission may take: seconds of wall clock and of CPU, resident bytes of the child."""

    wall_s: float = 900.0
    cpu_s: int = 1800
    memory_bytes: int = 3 * 1024**3
    memory_per_byte: int = 20  # and so much for each byte of the checkpoint


LIMITS = Limits()


class Unchecked(Failed):
    """The child passed a limit (kind `limits`) or died (`crashed`): nothing is known about the checkpoint.

    Attributes:
        news: it happened to this checkpoint for the first time, so people should hear of it.
    """

    news = True


def run_child(
    workspace: Workspace,
    settings: Settings,
    folder: Path,
    checkpoint: Path,
    size: int,
    name: str,
    expect_classes: list[str] | None,
    expect_task: str | None,
    *,
    convert: bool = True,
) -> dict[str, Any]:
    """Have the child check and convert `checkpoint`, a copy in the scratch `folder` that it writes into.

    Args:
        size: the checkpoint's bytes; the limits grow with it.
        name: what to call it in a sentence.
        convert: False leaves ONNX out, and `model.onnx` empty.

    Returns:
        What it wrote as `result.json`: `ok` and the release's facts, or the refusal's fields.

    Raises:
        Unchecked: it passed a limit, or died; nothing is known about the checkpoint then.
    """
    job = {
        "checkpoint": str(checkpoint),
        **card_terms(settings),
        "expect_classes": expect_classes,
        "expect_task": expect_task,
        "convert": convert,
        "cpu_s": LIMITS.cpu_s,
        "file_bytes": 8 * size + 256 * 1024 * 1024,
    }
    (folder / "job.json").write_text(json.dumps(job))
    log = folder / "log"
    command = [sys.executable, "-P", "-m", "engine.release.admission_child", str(folder / "job.json")]
    with log.open("wb") as stream:
        child = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=_environment(folder),
            start_new_session=True,
        )
        stopped = _watch(child, LIMITS.memory_bytes + LIMITS.memory_per_byte * size)
    if stopped:
        raise Unchecked(
            f"{name} could not be checked: {stopped}", "check it where there is more room", kind="limits"
        )
    result = read_json(folder / "result.json") if child.returncode == 0 else None
    if isinstance(result, dict):
        return result
    _keep_log(workspace, log, name)
    if child.returncode < 0:
        number = -child.returncode
        said = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        raise Unchecked(
            f"{name} could not be checked: the process that opened it died of {said}",
            f"see {workspace.logs / 'admission.log'}",
            kind="crashed",
        )
    raise Unchecked(
        f"{name} could not be checked: {_last_line(log)}",
        f"see {workspace.logs / 'admission.log'}",
        kind="crashed",
    )


def layers(scratch: Path) -> Layers:
    """Which layers of the sandbox hold on this host, found by entering it in a process of its own."""
    command = [sys.executable, "-P", "-m", "engine.release.sandbox", str(os.getpid()), str(scratch)]
    try:
        done = subprocess.run(command, capture_output=True, env=_environment(scratch), timeout=20, check=True)
        return Layers(**json.loads(done.stdout))
    except (subprocess.SubprocessError, ValueError, TypeError) as error:
        raise Failed(
            f"the sandbox for checkpoints cannot be entered ({type(error).__name__})",
            "run: python -m engine deploy PATH --debug",
        ) from None


def _watch(child: subprocess.Popen[bytes], memory_bytes: int) -> str | None:
    """Wait for the child; end it when it passes a limit, and say which."""
    import psutil

    deadline = time.monotonic() + LIMITS.wall_s
    stopped = None
    try:
        process = psutil.Process(child.pid)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_POLL_S)
                return stopped
            if time.monotonic() > deadline:
                stopped = f"it took longer than {LIMITS.wall_s:.0f} s"
            with contextlib.suppress(psutil.Error):
                if process.memory_info().rss > memory_bytes:
                    stopped = f"it took more than {memory_bytes / 1e9:.1f} GB of memory"
            if stopped:
                child.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _environment(folder: Path) -> dict[str, str]:
    """The child's environment: where Python and its libraries lie, scratch space of its own, nothing else."""
    kept = {key: value for key, value in os.environ.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}
    paths = [str(Path(entry or ".").absolute()) for entry in sys.path if not entry.endswith(".zip")]
    return kept | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }


def _keep_log(workspace: Workspace, log: Path, name: str) -> None:
    workspace.logs.mkdir(parents=True, exist_ok=True)
    text = f"{timestamp()} {name}\n{log.read_text(errors='replace')[-20_000:]}\n"
    (workspace.logs / "admission.log").write_text(text)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "the process that opened it stopped without a word"
