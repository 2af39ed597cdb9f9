"""Keeps one training going: makes its environment, starts it, resumes it when it dies, ends it when its time is out.

One keeper a job (a kernel lock), in a session of its own, so that no lost connection reaches it. Beside it stands a
warden, which does one thing: when the keeper dies, or lets the time go by, it ends what that keeper has started.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .job import KEEPER, MARK, JobFolder, held, read, write

_TICK_S = 0.2
_BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)
_MOST = {"killed": 5, "failed": 2}  # starts in a row from which no new state came
_USAGE, _BUSY, _INTERRUPTED = 2, 4, 130  # the engine's exit codes
_BEAT_S = 1.0
_SAID_BYTES = 4096
_PR_SET_PDEATHSIG = 1
_WARD_S = 0.5


class _End(Exception):
    """The job's end; `status` is one of `job.FINAL`, or `interrupted` when the keeper itself was told to end."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Keeper:
    """One life of a keeper; what it does is on the disk at every moment, so that the next one can go on."""

    def __init__(self, job: JobFolder) -> None:
        self.job = job
        self.order: dict[str, Any] = read(job.order) or {}
        self.account: dict[str, Any] = read(job.state) or {}
        self.grace_s = float(self.order.get("grace_s", 60.0))
        self.id = f"{os.getpid()}.{time.time_ns()}"
        self._told = False
        self._beat = 0.0

    def keep(self) -> None:
        """Work until the job's end; nothing where another keeper is at it."""
        with held(self.job.lock) as mine:
            if not mine:
                return
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._tell)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._place_warden()
            self._note(status="preparing", keeper=os.getpid(), since=time.time(), ended=None, reason="")
            try:
                self._work()
            except _End as end:
                self._say(f"{end.status}: {end.reason}" if end.reason else end.status)
                self._note(status=end.status, reason=end.reason, ended=time.time(), pid=None)

    def _tell(self, _number: int, _frame: object) -> None:
        self._told = True

    def _place_warden(self) -> None:
        words = [sys.executable, "-I", sys.argv[0], "ward", str(self.job.root), self.job.name]
        words += [str(os.getpid()), self.id, str(self.grace_s)]
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)

    def _work(self) -> None:
        if left := self.job.processes():
            self._say(f"an earlier keeper has left {len(left)} processes: ending them first")
            self._end_processes()
        with self.job.log.open("ab") as log:
            self._prepare(log)
            tries, place = {"killed": 0, "failed": 0}, self._place()
            while True:
                code, said = self._train(log)
                kind = self._judge(code, said)
                tries = {"killed": 0, "failed": 0} if self._place() != place else tries
                tries[kind] += 1
                place = self._place()
                how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
                if tries[kind] >= _MOST[kind]:
                    raise _End("failed", f"{how}, {tries[kind]} times without getting further: {said}")
                pause_s = _BACKOFF_S[min(sum(tries.values()), len(_BACKOFF_S)) - 1]
                self._say(f"the training was {how}: resumed in {pause_s:g} s")
                self._note(status="waiting", pid=None, deaths=int(self.account.get("deaths", 0)) + 1, reason=how)
                self._wait(pause_s)

    # -- one training

    def _train(self, log: BinaryIO) -> tuple[int, str]:
        """Train until the process ends: its code (negative: a signal) and the last line that it said."""
        run, begun = self._claim()
        verb, words = self.order["verb"], self.order["go_on" if begun else "begin"]
        command = [self._python(), "-m", "engine", "--workspace", str(self.job.root / "workspace"), *verb]
        command += ["--resume" if begun else "--claimed", run, *words]
        start = self.job.log.stat().st_size
        child = self._start(command, log, {"PYTHONPATH": str(self._code())})
        self._say(f"{'resumed' if begun else 'started'} run {run} (pid {child.pid})")
        self._note(status="running", pid=child.pid, starts=int(self.account.get("starts", 0)) + 1, reason="")
        try:
            code = self._attend(child)
        except _End:
            if child.returncode == 0:  # it had just come to its own end
                raise _End("completed", "") from None
            raise
        if code == 0:
            self._let_end()
        self._end_processes()  # of a killed training its loaders and sisters may be left
        return code, self._said(start)

    def _judge(self, code: int, said: str) -> str:
        """What an exit code means: an end of the job (raised), or the kind of try that it counts as."""
        if code == 0:
            raise _End("completed", "")
        if code == _USAGE:
            raise _End("failed", said)
        if code == _INTERRUPTED:
            self._wait(1.0)  # a host that goes down tells everybody at once: then this keeper is told too
            raise _End("stopped", "stopped by hand on the machine")
        return "failed" if code > 0 and code != _BUSY else "killed"

    def _claim(self) -> tuple[str, bool]:
        """The job's run, its folder made before its first start, and whether it has begun: has settings to go on."""
        runs = self.job.root / "workspace" / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        run = self.account.get("run") or self.order.get("resume")
        if not run:
            number = max((int(path.name) for path in runs.iterdir() if path.name.isdigit()), default=0) + 1
            while True:
                with contextlib.suppress(FileExistsError):
                    (runs / f"{number:04d}").mkdir()
                    break
                number += 1
            run = f"{number:04d}"
        elif not self.account.get("run") and not (runs / run / "manifest.json").exists():
            raise _End("failed", f"there is no run {run} to go on with")
        (runs / run).mkdir(exist_ok=True)
        self._note(run=run)
        return run, bool((read(runs / run / "manifest.json") or {}).get("settings"))

    def _place(self) -> int:
        """Another number whenever the run has saved a new state."""
        folder = self.job.run_folder()
        try:
            return (folder / "last.json").stat().st_mtime_ns if folder else 0
        except FileNotFoundError:
            return 0

    # -- the environment

    def _python(self) -> str:
        return str(Path(self.order["python"] or self._environment() / "bin" / "python").expanduser())

    def _code(self) -> Path:
        return self.job.root / "code" / str(self.order["code"])

    def _environment(self) -> Path:
        return self.job.root / "environments" / str(self.order["environment"])

    def _prepare(self, log: BinaryIO) -> None:
        """Make the environment by the order's command, once for all jobs with the same; half of one never counts."""
        if not self.order["setup"]:
            return
        place, lock = self._environment(), self.job.root / "environments" / f"{self.order['environment']}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with held(lock) as mine:
                if (place / "ready").exists():
                    return
                if mine:
                    self._make(place, log)
                    return
            self._wait(1.0)  # another job makes it

    def _make(self, place: Path, log: BinaryIO) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self._say(f"making the environment {place}: {self.order['setup']}")
        start = self.job.log.stat().st_size
        more = {"ENVIRONMENT": str(place), "CODE": str(self._code()), "ROOT": str(self.job.root)}
        code = self._attend(self._start(["sh", "-ec", self.order["setup"]], log, more))
        self._end_processes()
        if code:
            raise _End("failed", f"the environment could not be made (code {code}): {self._said(start)}")
        write(place / "ready", "")

    # -- processes

    def _start(self, command: Sequence[str], log: BinaryIO, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        keeper = os.getpid()

        def tie() -> None:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != keeper:
                os._exit(1)

        try:
            return subprocess.Popen(
                command,
                cwd=self.job.root,  # the person's own .env of this host lies there
                env={**os.environ, **more, MARK: self.job.mark, KEEPER: self.id},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=tie,
            )
        except OSError as error:
            raise _End("failed", f"cannot start {command[0]} ({error.strerror})") from None

    def _attend(self, child: subprocess.Popen[bytes]) -> int:
        """Wait for the child's end; when the job ends before, end the child first: gently, then by force."""
        try:
            while True:
                self._check()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return child.wait(_TICK_S)
        except BaseException:
            if child.poll() is None:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(self.grace_s)
            if child.poll() is None:
                self._say(f"it has not ended within {self.grace_s:g} s: killed")
                child.kill()
            child.wait()
            self._end_processes()
            raise

    def _let_end(self) -> None:
        """Give what a completed training has left (a tracker's last upload, a message) its time."""
        deadline = time.monotonic() + self.grace_s
        while self.job.processes() and time.monotonic() < deadline:
            time.sleep(_TICK_S)

    def _end_processes(self) -> None:
        if left := self.job.end_processes(self.grace_s):
            self._say(f"these processes cannot be killed: {left}")

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._check()
            time.sleep(_TICK_S)
        self._check()

    def _check(self) -> None:
        """Beat; raise the job's end where somebody or the timer wants it."""
        if time.monotonic() - self._beat >= _BEAT_S:
            self._beat = time.monotonic()
            (self.job.folder / "beat").touch()
        if self.job.wanted != "run":
            raise _End("stopped", "")
        left_s = self.job.time_left_s()
        if left_s is not None and left_s <= 0:
            raise _End("expired", "its time is out (the budget's dead man's timer)")
        if self._told:
            raise _End("interrupted", "the keeper was told to end: the host goes down")

    # -- words

    def _note(self, **facts: Any) -> None:
        self.account |= facts
        write(self.job.state, json.dumps(self.account))

    def _say(self, line: str) -> None:
        with self.job.log.open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} keeper: {line}\n")

    def _said(self, start: int) -> str:
        """The last line that was written to the log after `start`."""
        with self.job.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(start, size - _SAID_BYTES))
            lines = log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def ward(job: JobFolder, keeper: int, keeper_id: str, grace_s: float) -> None:
    """Wait for the death of the keeper, which is this process's parent, and end what it has left.

    A keeper that lets the time go by, by more than it needs to end a training (stopped, hung), is killed first.
    """
    while os.getppid() == keeper:
        left_s = job.time_left_s()
        if left_s is not None and left_s < -2 * grace_s:
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGKILL)
            break
        time.sleep(_WARD_S)
    job.end_processes(grace_s, keeper_id)
