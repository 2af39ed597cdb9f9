"""SkyPilot's clouds, through its own command in an environment of its own (`cloud.skypilot`).

Understudy imports nothing of SkyPilot: `sky` is asked with `--output json`, and `ssh` and `rsync` reach a machine by
the alias that SkyPilot writes into `~/.ssh/config`. Written for SkyPilot 0.14.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.cloud.prices import find_gpu, keep_catalogue, price_table
from engine.cloud.provider import (
    Check,
    Job,
    JobState,
    Machine,
    MachineState,
    Outcome,
    Rehearsed,
    State,
    StillRunning,
)
from engine.cloud.sky_look import LOOK, read_look
from engine.cloud.sky_task import ROOT, task_yaml
from engine.cloud.upload import counted, list_data, list_work
from engine.config import Settings
from engine.errors import Failed, UnderstudyError, UsageError
from engine.store.clock import now
from engine.store.files import atomic_write
from engine.store.workspace import Workspace

_LAUNCH_S = 3600.0  # finding a machine, installing there: longer than that and the guard asks anew
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
_STATES: dict[str, State] = {"UP": "running", "INIT": "starting", "STOPPED": "stopped"}
_JOBS: dict[str, JobState] = {"RUNNING": "running", "SUCCEEDED": "done", "CANCELLED": "failed"}
_DOWN_TRIES = 2
_DRY_S = 300.0  # SkyPilot's own server may have to start first, and to fetch its catalogues
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Skypilot:
    """Machines of whichever cloud SkyPilot is let into; see `engine.cloud.provider.Provider`."""

    name = "skypilot"

    def __init__(
        self,
        settings: Settings,
        workspace: Workspace,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._cloud, self._workspace, self._settings = settings.cloud, workspace, settings
        self._folder, self._clock, self._sleep = workspace.root / "cloud", clock, sleep

    def expected(self, job: Job) -> Machine:
        """The machine as far as it is known before it is there."""
        return Machine(job.name, self.name, job.name, ROOT, self.price(job), job.gpu, job.spot)

    def price(self, job: Job) -> float:
        """The most that an hour may cost: SkyPilot takes no machine above it."""
        if job.max_hourly_usd is None:
            raise UsageError("no highest hourly price", "give --max-hourly, or --gpu with a price in: cloud plan")
        return job.max_hourly_usd

    def ready(self) -> None:
        self._command()

    def check(self, job: Job) -> Job:
        """The job with its highest hourly price: without one, that of the table.

        Raises:
            UsageError: no GPU, or none with a price.
        """
        if not job.gpu:
            raise UsageError("which GPU?", 'give --gpu "RTX 4090"; the choice: python -m engine cloud plan')
        if not re.fullmatch(r"[^:]+(:[1-9]\d*)?", job.gpu):
            raise UsageError(f"how many are '{job.gpu}'?", "write NAME, or NAME:COUNT as in A100-40GB:8")
        if job.max_hourly_usd is not None:
            return job
        rows = find_gpu(price_table(self._settings, self._workspace.state), job.gpu, self._cloud.infra)
        return Job.from_json(job.as_json() | {"max_hourly_usd": rows[-1].hourly_usd})

    def rehearse(self, job: Job) -> Rehearsed:
        """As `Provider.rehearse`; SkyPilot goes through the task itself (`sky launch --dryrun`)."""
        runs, there = self._from_home(job)
        uploads = [counted("code", job.code, list_work(job.code))]
        uploads += [counted(place, source, list_data(source)) for source, place in job.data]
        uploads += [counted("workspace/runs", runs, list_data(runs))] if runs else []
        task = task_yaml(there, runs, self._cloud.infra, self._clock())
        return Rehearsed((self._dry_run(job.name, task),), tuple(uploads), task)

    def launch(self, job: Job) -> Machine:
        """As `Provider.launch`; runs that came home from a machine before go up again, and the newest goes on."""
        runs, there = self._from_home(job)
        path = self._folder / job.name / "task.yaml"
        task = task_yaml(there, runs, self._cloud.infra, self._clock())
        atomic_write(path, task)
        words = ["launch", "--yes", "--detach-run", "--cluster", job.name, str(path)]
        done = _run([self._command(), *words], _LAUNCH_S, apart=False)  # it dies with the launcher's process group
        if done.code:
            raise Failed(f"SkyPilot could not launch '{job.name}': {_last_words(done)}", f"see the task: {path}")
        machine = self.expected(job)
        return replace(machine, known_hosts=self._known_hosts(machine))

    def status(self, machine: Machine) -> MachineState:
        try:
            record = self._record(machine.name)
            if record is None:
                return MachineState("gone", "none")
            state = _STATES.get(str(record["status"]), "unknown")
            if state != "running":
                return MachineState(state, reason=str(record.get("init_status_reason") or ""))
            return self._look(machine)
        except UnderstudyError as error:
            return MachineState("unknown", reason=str(error))

    def run(self, machine: Machine, command: Sequence[str], timeout_s: float = 60.0) -> Outcome:
        return _run([*_SSH, machine.address, shlex.join(command)], timeout_s)

    def logs(self, machine: Machine, follow: bool = False) -> Iterator[str]:
        words = [self._command(), "logs", machine.name, "--follow" if follow else "--no-follow"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=_environment()) as child:  # fmt: skip
            assert child.stdout is not None
            yield from (line.rstrip("\n") for line in child.stdout)

    def bring_home(self, machine: Machine, into: Path) -> None:
        into.mkdir(parents=True, exist_ok=True)
        there = f"{machine.address}:{machine.root}/workspace/runs/"
        done = _run(["rsync", "--archive", "--compress", "--rsh", shlex.join(_SSH), there, f"{into}/"], 600)
        if done.code:
            raise Failed(
                f"the runs of '{machine.name}' did not come home: {_last_words(done)}", "it is tried again"
            )

    def stop(self, machine: Machine) -> None:
        engine = f"{machine.root}/venv/bin/python -m engine --workspace {machine.root}/workspace"
        done = _run([*_SSH, machine.address, f"{engine} train --stop latest"], 180)
        if done.code:
            raise Failed(
                f"the training on '{machine.name}' did not stop: {_last_words(done)}", "try again, or: cloud down"
            )

    def down(self, machine: Machine) -> None:
        """As `Provider.down`. SkyPilot's command is given even where it lists nothing: a list may be old."""
        why = ""
        for attempt in range(_DOWN_TRIES):
            try:
                done = self._sky("down", "--yes", machine.name, timeout_s=self._cloud.timeout_s)
                if self._record(machine.name) is None:
                    return
                why = _last_words(done) if done.code else "the provider still lists it"
            except UnderstudyError as error:
                why = str(error)
            if attempt < _DOWN_TRIES - 1:
                self._sleep(min(2.0**attempt, 10.0))
        how = f"try: {self._cloud.skypilot} down {machine.name}, and look into the provider's own console"
        raise StillRunning(machine.name, why, how)

    def _look(self, machine: Machine) -> MachineState:
        """What a running machine says of itself, and SkyPilot of its job."""
        job = self._job(machine.name)
        seen = _run([*_SSH, machine.address, LOOK.replace("ROOT", machine.root)], 30)
        return read_look(job, seen, None if machine.facts.get("priced") else self._hourly(machine.name))

    def _from_home(self, job: Job) -> tuple[Path | None, Job]:
        """The runs that came home from a machine of this name, if one of them can be gone on with, and the job that
        does so."""
        home = self._folder / job.name / "runs"
        there = job if job.resume or not _any_state(home) else replace(job, resume="latest")
        return (home if there.resume else None), there

    def _dry_run(self, name: str, task: str) -> Check:
        try:
            command = self._command()
        except UsageError as error:
            return Check("skypilot", False, error.message, error.hint, usage=True)
        with tempfile.TemporaryDirectory(prefix="understudy-") as folder:
            path = Path(folder) / "task.yaml"
            path.write_text(task, encoding="utf-8")
            words = ["launch", "--dryrun", "--yes", "--cluster", name, str(path)]
            try:
                done = _run([command, *words], max(_DRY_S, self._cloud.timeout_s))
            except Failed as error:
                return Check("skypilot", False, error.message, "see: sky api status")
        said = tuple(_lines(f"{done.out}\n{done.err}"))
        if done.code:
            return Check("skypilot", False, _last_words(done), "see: sky check", said=said)
        return Check("skypilot", True, "'sky launch --dryrun' takes the task", said=said)

    def _known_hosts(self, machine: Machine) -> str | None:
        """A file with the machine's own host keys, for `sync`, which takes no key that is not known; they are read
        over the connection that SkyPilot has made. None: they could not be; `sync --pin` is the way then."""
        asked = _run(["ssh", "-G", machine.address], 30)
        place = dict(line.partition(" ")[::2] for line in asked.out.splitlines())
        keys = _run([*_SSH, machine.address, "cat /etc/ssh/ssh_host_*_key.pub"], 60)
        host, port = place.get("hostname"), place.get("port", "22")
        if keys.code or not host:
            return None
        name = host if port == "22" else f"[{host}]:{port}"
        lines = [
            f"{name} {' '.join(line.split()[:2])}" for line in keys.out.splitlines() if len(line.split()) >= 2
        ]
        path = self._folder / machine.name / "known_hosts"
        atomic_write(path, "\n".join(lines) + "\n")
        return str(path)

    def _job(self, name: str) -> tuple[JobState, float | None]:
        """The newest job's state, and when it ended."""
        queues = self._json("queue", name)
        jobs = queues.get(name, []) if isinstance(queues, dict) else []
        if not jobs:
            return "none", None
        newest = max(jobs, key=lambda job: int(job["job_id"]))
        status = str(newest["status"]).rpartition(".")[2]
        state = _JOBS.get(status, "failed" if status.startswith("FAILED") else "waiting")
        return state, newest.get("end_at")

    def _hourly(self, name: str) -> float | None:
        """What SkyPilot itself takes an hour of this machine to cost; its report is an experiment of theirs."""
        try:
            report = self._json("cost-report", "--days", "1")
        except UnderstudyError:
            return None
        mine = [item for item in report if isinstance(item, dict) and item.get("name") == name]
        newest = max(mine, key=lambda item: item.get("launched_at") or 0, default=None)
        if not newest or not newest.get("duration") or not newest.get("total_cost"):
            return None
        return round(newest["total_cost"] / newest["duration"] * 3600, 6)

    def _record(self, name: str) -> dict[str, Any] | None:
        """SkyPilot's record of a machine, fresh from the cloud; None: it has none of this name.

        Raises:
            Failed: SkyPilot was not reached, or it says something else.
        """
        records = self._json("status", "--refresh", name)
        if not isinstance(records, list) or not all(isinstance(item, dict) for item in records):
            raise Failed(f"'sky status' says something else than a list of '{name}'", "see: sky status")
        return next((item for item in records if item.get("name") == name), None)

    def _json(self, verb: str, *words: str) -> Any:
        done = self._sky(*verb.split(), "--output", "json", *words, timeout_s=self._cloud.timeout_s)
        if done.code:
            raise Failed(f"'sky {verb}' failed: {_last_words(done)}", "see: sky api status")
        value = _first_json(done.out)
        if value is None:
            raise Failed(
                f"'sky {verb}' did not answer in JSON", "is it SkyPilot 0.14 or newer? see: sky --version"
            )
        return value

    def _sky(self, *words: str, timeout_s: float) -> Outcome:
        return _run([self._command(), *words], timeout_s)

    def _command(self) -> str:
        path = shutil.which(Path(self._cloud.skypilot).expanduser())
        if path is None:
            hint = (
                'pip install "skypilot[runpod]" into an environment of its own, and set cloud.skypilot to its sky'
            )
            raise UsageError(f"no SkyPilot command '{self._cloud.skypilot}'", hint, kind="no_skypilot")
        return path


def refresh_prices(settings: Settings, workspace: Workspace) -> int:
    """Fetch what SkyPilot's catalogue says today and keep it; returns how many rows.

    Raises:
        UsageError: no `sky` command.
        Failed: it was not reached; the old prices stay.
    """
    provider = Skypilot(settings, workspace)
    offers = provider._json("gpus list", "--all")
    if not isinstance(offers, dict):
        raise Failed("'sky gpus list' says something else than a table", "see: sky gpus list")
    return keep_catalogue(workspace.state, offers, now().date().isoformat())


def _any_state(runs: Path) -> bool:
    """Whether a run that came home can be gone on with."""
    return any(runs.glob("*/last.pth"))


def _first_json(text: str) -> Any:
    """The list or object that begins a line, after whatever else SkyPilot says; None: there is none."""
    for found in re.finditer(r"^[\[{]", text, re.MULTILINE):
        try:
            return json.JSONDecoder().raw_decode(text, found.start())[0]
        except ValueError:
            continue
    return None


def _environment() -> dict[str, str]:
    return {**os.environ, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1", "NO_COLOR": "1"}


def _run(command: Sequence[str], timeout_s: float, apart: bool = True) -> Outcome:
    """Run a command to its end, without a terminal.

    Args:
        apart: in a session of its own, so that all its children die with it when its time is out.
    """
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                 text=True, errors="replace", env=_environment(), start_new_session=apart)  # fmt: skip
    except OSError as error:
        raise Failed(f"cannot run {command[0]} ({error.strerror})", "install it, or mend its rights") from None
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _kill(child, apart)
        name = " ".join(Path(command[0]).name if number == 0 else word for number, word in enumerate(command[:2]))
        raise Failed(f"'{name}' did not answer within {timeout_s:.0f} s", "it is tried again") from None
    except BaseException:  # a stopped guard leaves no question behind
        _kill(child, apart)
        raise
    return Outcome(child.returncode, out, err)


def _kill(child: subprocess.Popen[str], apart: bool) -> None:
    if apart:
        os.killpg(child.pid, signal.SIGKILL)
    else:
        child.kill()
    child.communicate()


def _last_words(done: Outcome) -> str:
    lines = _lines(done.err) or _lines(done.out)
    return (lines[-1].strip() if lines else f"exit code {done.code}")[:300]


def _lines(text: str) -> list[str]:
    """What was said, without colours (SkyPilot has them in a pipe too) and empty lines."""
    return [line.rstrip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
