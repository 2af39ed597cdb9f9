"""The runs of a sweep, each a child process, as many at once as there are places for.

A run that fails stops no other. A stop asks every child to end between two steps; what is not done then is done when
the sweep is resumed. A child's standard input is a pipe that this process holds: when it is killed, the pipe ends, and
the child stops by itself. Each run folder's lock keeps two processes from ever training in it.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.config import Settings
from engine.store.clock import timestamp
from engine.store.files import read_json, write_json
from engine.store.locks import holder
from engine.store.logfile import last_lines
from engine.training.runs import RunFolder, describe_run, process_identity
from engine.training.signals import StopRequest
from engine.training.sweeps import WAITING, SweepFolder, rank, row

_POLL_S = 0.1
_LINE_S = 30.0


class Process(Protocol):
    """What is needed of a child; `subprocess.Popen` has it."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where one run at a time goes: its name for people, and what its environment gets."""

    name: str
    env: Mapping[str, str]


def places(settings: Sequence[Settings], gpus: Callable[[], int], jobs: int | None) -> list[Place]:
    """One place a CUDA device, else one; with `jobs`, so many, dealt over the devices.

    Args:
        settings: of the runs; only where one may take CUDA are the devices counted.
        gpus: how many CUDA devices torch sees.
    """
    wanted = any(one.device.prefer in ("auto", "cuda") for one in settings)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = gpus() if wanted and visible != "" else 0
    names = visible.split(",")[:count] if visible else [str(number) for number in range(count)]
    if names:
        chosen = itertools.islice(itertools.cycle(names), jobs or len(names))
        return [Place(f"cuda {name}", {"CUDA_VISIBLE_DEVICES": name}) for name in chosen]
    jobs = jobs or 1
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs)) if hasattr(os, "sched_getaffinity") else None
    share = {"OMP_NUM_THREADS": threads} if jobs > 1 and threads and "OMP_NUM_THREADS" not in os.environ else {}
    return [Place("", share) for _ in range(jobs)]


def start_child(command: Sequence[str], child: RunFolder, place: Place) -> subprocess.Popen[bytes]:
    """A run's process: its words go to its log, the terminal's signals to the sweep alone."""
    with child.log.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **place.env},
            start_new_session=True,
        )


class Sweep:
    """One call of a sweep; hold the sweep's lock around it.

    Args:
        start: begins or resumes the training in a run folder.
        again: also do the runs that have failed.
    """

    def __init__(
        self,
        folder: SweepFolder,
        spots: Sequence[Place],
        start: Callable[[RunFolder, Place], Process],
        say: Callable[[str], None],
        stop: StopRequest,
        *,
        again: bool = False,
    ) -> None:
        self._folder, self._start, self._say, self._stop = folder, start, say, stop
        self._free = deque(spots)
        self._live: dict[int, tuple[Process, Place]] = {}
        self._record: dict[str, Any] = dict(read_json(folder.record) or {})
        self._rows: dict[int, dict[str, Any]] = {
            entry["n"]: row(entry["n"], entry["overrides"], describe_run(folder.child(entry["n"])))
            for entry in self._record["runs"]
        }
        kept = ("completed",) if again else ("completed", "failed")
        self._todo = deque(n for n, entry in self._rows.items() if entry["status"] not in kept)
        self._asked = False
        self._held: set[int] = set()
        self._said_at = time.monotonic()

    def run(self) -> list[dict[str, Any]]:
        """Train what is to be trained; the ranked rows. A second Ctrl-C does not let the children end their step."""
        self._record |= {"state": "running", "finished_at": None, **process_identity()}
        self._write()
        while self._todo or self._live:
            try:
                self._turn()
                time.sleep(_POLL_S)
            except KeyboardInterrupt:
                self._ask(signal.SIGINT)
        states = {entry["status"] for entry in self._rows.values()}
        failed = states & {"failed", "lost"}
        state = (
            "interrupted"
            if self._stop or states & {WAITING, "interrupted"}
            else "failed"
            if failed
            else "completed"
        )
        self._record |= {"state": state, "finished_at": timestamp()}
        self._write()
        return rank(list(self._rows.values()))

    def _turn(self) -> None:
        if self._stop and not self._asked:
            self._asked = True
            self._todo.clear()
            self._say(f"stopping {len(self._live)} runs between two steps" if self._live else "stopping")
            self._ask(signal.SIGTERM)
        for number in [number for number, (process, _) in self._live.items() if process.poll() is not None]:
            self._end(number)
        for _ in range(len(self._todo)):
            if not self._free or self._stop:
                break
            self._begin(self._todo.popleft())
        if self._live and time.monotonic() - self._said_at >= _LINE_S:
            self._line()

    def _begin(self, number: int) -> None:
        child = self._folder.child(number)
        if (who := holder(child.lock)) is not None:
            # of a sweep that was killed: it stops by itself after its step
            if number not in self._held:
                self._say(f"run {number} still has a process (pid {who.get('pid')}) that ends after its step")
                self._held.add(number)
            self._todo.append(number)
            return
        place = self._free.popleft()
        process = self._start(child, place)
        self._live[number] = (process, place)
        manifest = child.read_manifest()
        if manifest.get("status") != WAITING:
            self._say(f"run {number} goes on{_at(place)}: {_words(self._rows[number])}")
        else:
            self._say(f"run {number} begins{_at(place)}: {_words(self._rows[number])}")
        self._rows[number] = {
            **row(number, self._rows[number]["overrides"], {"status": "running"}),
            "run": child.run,
        }
        self._write()

    def _end(self, number: int) -> None:
        process, place = self._live.pop(number)
        self._free.append(place)
        child, code = self._folder.child(number), process.poll()
        if isinstance(process, subprocess.Popen) and process.stdin:
            process.stdin.close()
        entry = describe_run(child)
        if entry["status"] in ("lost", "running"):  # killed: by the kernel, where memory ran out
            ended = f"by signal {-code}" if code and code < 0 else f"with exit {code}"
            entry |= {"status": "lost", "error": f"its process was ended {ended} without a word"}
        elif entry["status"] == WAITING and not self._stop:
            entry |= {"status": "failed", "error": _last_error(child) or f"it could not begin (exit {code})"}
            child.write_manifest(child.read_manifest() | {"status": "failed", "error": entry["error"]})
        self._rows[number] = row(number, self._rows[number]["overrides"], entry)
        self._write()
        shown = self._rows[number]
        figures = f"accuracy {shown['accuracy']:.2%}" if shown["accuracy"] is not None else ""
        figures += f"  F1-macro {shown['f1_macro']:.4f}" if shown["f1_macro"] is not None else ""
        self._say(
            f"run {number} {shown['status']}: {shown['error'] if shown['status'] != 'completed' else figures}"
        )

    def _ask(self, number: int) -> None:
        for process, _ in self._live.values():
            if process.poll() is None:
                process.send_signal(number)

    def _line(self) -> None:
        self._said_at = time.monotonic()
        shown = []
        for number in self._live:
            live = describe_run(self._folder.child(number)).get("progress") or {}
            shown.append(f"{number} in epoch {live.get('epoch', 1)}/{live.get('epochs', '?')}")
        self._say(f"  runs {', '.join(shown)}; {len(self._todo)} wait")

    def _write(self) -> None:
        write_json(self._folder.record, {**self._record, "runs": list(self._rows.values())})


def _at(place: Place) -> str:
    return f" on {place.name}" if place.name else ""


def _words(entry: dict[str, Any]) -> str:
    return " ".join(entry["overrides"]) or "the settings as they are"


def _last_error(child: RunFolder) -> str | None:
    for line in reversed(last_lines(child.log, 20)):
        _, found, text = line.partition("error: ")
        if found:
            return text
    return None
