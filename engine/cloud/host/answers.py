"""The host's side of each question: one JSON object on standard output for one command over SSH.

python3 -I HASH.pyz VERB ROOT [NAME] [...]
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .boot import settle_line, wants_to_go_on
from .job import FINAL, JobFolder, held, read, write
from .keeper import Keeper, ward
from .receive import Refused, jobs, receive, send

_START_S = 15.0
_ORDER_S = 120.0
_GPU_S = 5.0
_ASKED = "name,memory.used,memory.total,utilization.gpu"
_FOLLOW_S = 0.2


def main(words: list[str]) -> int:
    """Answer one question; a refusal is an answer too: `{"error": {kind, message}}`."""
    verb, root = words[0], Path(words[1]).expanduser().absolute()
    try:
        if verb == "keep":
            Keeper(JobFolder(root, words[2])).keep()
            return 0
        if verb == "boot":
            for job in jobs(root):
                if wants_to_go_on(job) and not job.kept():
                    _spawn(job)
            return 0
        if verb == "ward":
            ward(JobFolder(root, words[2]), int(words[3]), words[4], float(words[5]))
            return 0
        if verb == "log":
            _log(JobFolder(root, words[2]), int(words[3]), follow=words[4] == "follow")
            return 0
        if verb in ("receive", "send"):
            order = json.loads(sys.stdin.buffer.readline())
            if verb == "send":
                send(root, order, sys.stdout.buffer)
                return 0
            answer = receive(root, order, sys.stdin.buffer, sys.stdout.buffer)
        elif verb == "start":
            answer = start(JobFolder(root, words[2]), json.loads(sys.stdin.read()))
        else:
            answer = {"state": state, "stop": stop, "forget": forget}[verb](JobFolder(root, words[2]))
    except Refused as refused:
        answer = {"error": {"kind": refused.kind, "message": str(refused)}}
    except OSError as error:
        answer = {"error": {"kind": "host_failed", "message": f"{error.strerror or error} ({error.filename})"}}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def start(job: JobFolder, asked: dict[str, Any]) -> dict[str, Any]:
    """See to it that the job is kept: the one way to begin it, to go on with it, and to change its timer.

    Args:
        asked: `order` (None: go on with the one that is here), `id` of the order, `left_s` for the timer.

    Returns:
        The state; with `needed: true` and nothing done where this host has no order of that id.
    """
    if not Path("/proc/self/environ").exists():
        raise Refused("the host is no Linux: its processes cannot be told apart", "usage")
    known, order = read(job.order) or {}, asked["order"]
    with _alone(job):
        alive = job.kept()
        if known.get("id") != asked["id"]:
            if order is None:
                return {"needed": True, "root": str(job.root)}
            if alive and job.wanted == "run":
                raise Refused(f"another job '{job.name}' is going on there", "busy")
            if alive:
                _wait_for_end(job, float(known.get("grace_s", 60.0)))
            write(job.order, json.dumps(order))
            job.state.unlink(missing_ok=True)
        if (read(job.state) or {}).get("status") == "completed":
            return state(job)
        job.set_timer(asked["left_s"])
        if alive and job.wanted != "run":
            _wait_for_end(job, float(known.get("grace_s", 60.0)))
        job.want("run")
        if not job.kept():
            _spawn(job)
    return {**state(job), "boot_problem": settle_line(job.root)}


def state(job: JobFolder) -> dict[str, Any]:
    """Everything that is known of the job now; `here: false` where nothing is."""
    if not job.order.exists():
        return {"here": False, "root": str(job.root), "gpus": _gpus()}
    folder = job.run_folder()
    answer = {
        "here": True,
        "root": str(job.root),
        "kept": job.kept(),
        "wanted": job.wanted,
        "left_s": job.time_left_s(),
        "now": time.time(),
    }
    answer |= {"id": (read(job.order) or {}).get("id"), "state": read(job.state) or {}, "gpus": _gpus()}
    answer |= {"beat": _time(job.folder / "beat"), "log_bytes": job.log.stat().st_size if job.log.exists() else 0}
    if folder is not None:
        answer |= {"manifest": read(folder / "manifest.json"), "progress": read(folder / "progress.json")}
        answer |= {"active": _time(folder / "progress.json") or _time(folder)}
    return answer


def stop(job: JobFolder) -> dict[str, Any]:
    """Stop the job so that it can go on, and see that nothing of it lives."""
    if not job.order.exists():
        return {"here": False, "left": []}
    with _alone(job):
        job.want("stop")
        grace_s = float((read(job.order) or {}).get("grace_s", 60.0))
        account = read(job.state) or {}
        try:
            _wait_for_end(job, grace_s)
        except Refused:
            if not account.get("keeper"):
                raise
            os.kill(int(account["keeper"]), signal.SIGKILL)  # it holds the lock, so the number is still its own
        left = job.end_processes(grace_s)
        account = read(job.state) or {}
        if not left and account.get("status") not in FINAL:
            write(job.state, json.dumps({**account, "status": "stopped", "pid": None, "ended": time.time()}))
    settle_line(job.root)
    return {**state(job), "left": left}


def forget(job: JobFolder) -> dict[str, Any]:
    """Stop the job and drop what is remembered of it; its run, checkpoints, data and environment stay."""
    answer = stop(job)
    if not answer["left"] and job.folder.is_dir():
        shutil.rmtree(job.folder)
        answer["here"] = False
    return answer


@contextlib.contextmanager
def _alone(job: JobFolder) -> Iterator[None]:
    """One order at a time for a job: two launches at once become one training."""
    with held(job.folder / "order.lock", _ORDER_S) as mine:
        if not mine:
            raise Refused(f"job '{job.name}' is busy with another order", "busy")
        yield


def _spawn(job: JobFolder) -> None:
    """Start a keeper that outlives this connection, and wait until it has the job."""
    with job.log.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-I", sys.argv[0], "keep", str(job.root), job.name],
            cwd=job.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        account = read(job.state) or {}
        if account.get("keeper") == child.pid:
            return
        if child.poll() is not None:
            break
        time.sleep(0.02)
    raise Refused(f"the keeper does not start; see {job.log}")


def _wait_for_end(job: JobFolder, grace_s: float) -> None:
    deadline = time.monotonic() + grace_s + 30
    while job.kept():
        if time.monotonic() > deadline:
            raise Refused(f"the keeper of '{job.name}' does not end", "still_running")
        time.sleep(0.05)


def _log(job: JobFolder, offset: int, *, follow: bool) -> None:
    """The log from a byte on; `follow`: until the job is over and all of it was sent."""
    going = sys.stdout.buffer
    while True:
        over = not job.kept()
        if job.log.exists():
            with job.log.open("rb") as log:
                log.seek(offset)
                while chunk := log.read(1 << 16):
                    going.write(chunk)
                    offset += len(chunk)
            going.flush()
        if not follow or over:
            return
        time.sleep(_FOLLOW_S)


def _gpus() -> list[dict[str, Any]] | None:
    """What nvidia-smi says of each device; None where there is none, or it hangs."""
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GPU_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = []
    for line in done.stdout.splitlines():
        name, used, total, use = (word.strip() for word in line.split(","))
        with contextlib.suppress(ValueError):  # a device that says [N/A]
            found.append(
                {
                    "name": name,
                    "used_bytes": int(used) << 20,
                    "total_bytes": int(total) << 20,
                    "use": int(use) / 100,
                }
            )
    return found


def _time(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
