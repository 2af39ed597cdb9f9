"""One's own GPU server over SSH as a provider of machines: `cloud.provider = "ssh"`.

Nothing is rented: launching a machine means having its keeper (`engine.cloud.host`) train there, and giving it back
means that nothing of the job lives there any more. The keeper resumes a training that dies; after a reboot, or when the
keeper itself was killed, the guard's look finds the machine `preempted` and launches again, which goes on exactly.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from engine.cloud.ssh_line import Line
from engine.cloud.ssh_look import judge, look
from engine.cloud.upload import counted, fetch_run, list_code, list_data, send_files
from engine.config.schema import CloudSsh
from engine.config.schema import Source as Place
from engine.errors import Failed, UnderstudyError, UsageError
from engine.training.plan import SECTIONS

_SETUP = """
python3 -m venv "$ENVIRONMENT"
cp -r "$CODE" "$ENVIRONMENT/source"
"$ENVIRONMENT/bin/python" -m pip install --disable-pip-version-check --no-input "$ENVIRONMENT/source[zoo,go]"
rm -rf "$ENVIRONMENT/source"
"""
_STOP_S = 60.0  # beyond the grace of the training, for its keeper to see to it
_BEGIN_S = 20.0
_POLL_S = 0.2
_BEAT_S = 1.0  # engine.cloud.host.keeper's
_JOBS: dict[str, JobState] = {
    "preparing": "waiting",
    "running": "running",
    "waiting": "running",
    "completed": "done",
    "failed": "failed",
    "expired": "failed",
    "stopped": "none",
    "interrupted": "running",
}


class SshProvider:
    """The server that `cloud.ssh` names."""

    name = "ssh"

    def __init__(self, settings: CloudSsh, say: Callable[[str], None] = lambda line: None) -> None:
        self._settings, self._say = settings, say

    def ready(self) -> None:
        """What it needs is a library of the base installation."""

    def check(self, job: Job) -> Job:
        """The job as this server takes it: with `cloud.ssh.data`, the data that lies there instead of an upload."""
        settings = self._settings
        if not settings.address:
            raise UsageError(
                "cloud.ssh.address is not set",
                "set it to your server: a host name, or an alias of ~/.ssh/config",
                kind="missing_setting",
            )
        if job.max_hourly_usd is not None and settings.hourly_usd > job.max_hourly_usd:
            raise UsageError(
                f"{settings.address} costs ${settings.hourly_usd:g} an hour, more than ${job.max_hourly_usd:g}",
                "raise --max-hourly, or mend cloud.ssh.hourly_usd",
            )
        split_words(job.words)
        if settings.data is None:
            return job
        key = "go.shards" if job.words[0] == "go" else "data.root"
        words = [word for word in job.words if not word.startswith(f"{key}=")]
        return replace(job, data=(), words=(*words, f"{key}={settings.data}"))

    def expected(self, job: Job) -> Machine:
        """The server as the settings have it; its root's full path is known once it was asked."""
        settings = self._settings
        return Machine(
            name=job.name,
            provider=self.name,
            address=str(settings.address),
            root=settings.root,
            hourly_usd=settings.hourly_usd,
            gpu=job.gpu,
            user=settings.user,
            port=settings.port,
            key=str(settings.key.expanduser()) if settings.key else None,
            known_hosts=str(settings.known_hosts.expanduser()) if settings.known_hosts else None,
        )

    def rehearse(self, job: Job) -> Rehearsed:
        """As `Provider.rehearse`; the host is asked what it has, over a connection that leaves it as it is."""
        settings = self._settings
        split_words(job.words)
        code = list_code(job.code, settings.files)
        uploads = [counted("code", code.root, code.items)]
        uploads += [counted(place, source, list_data(source.expanduser())) for source, place in job.data]
        try:
            with self._line(install=False) as line:
                seen = look(line, settings)
        except UnderstudyError as error:
            return Rehearsed((Check("host", False, error.message, error.hint, isinstance(error, UsageError)),), tuple(uploads))  # fmt: skip
        return Rehearsed(judge(seen, settings, uploads), tuple(uploads), gpu_bytes=seen.gpu_bytes)

    def launch(self, job: Job) -> Machine:
        """Upload what changed and have the server train; what goes on there already goes on as it is.

        The environment is made there, in the background: its words are in `logs`.

        Raises:
            UsageError: no address, a sweep, or nothing to upload.
            Busy: another job of this name is going on there.
            Failed: not reached, or refused by the host; launching again goes on.
        """
        job, settings = self.check(job), self._settings
        verb, begin, go_on = split_words(job.words)
        asked = {"id": _identity(job), "order": None}
        with self._line() as line:
            answer = line.ask("start", job.name, said=asked | self._left(job))
            if answer.get("needed"):
                order = self._deliver(line, job) | {"id": asked["id"], "name": job.name, "resume": job.resume}
                order |= {"verb": verb, "begin": begin, "go_on": go_on, "grace_s": settings.grace_s}
                order["boot"] = settings.boot
                answer = line.ask("start", job.name, said=asked | {"order": order} | self._left(job))
            if answer.get("boot_problem"):
                self._say(f"note: after a reboot the guard has to begin it again: {answer['boot_problem']}")
            answer = self._wait_begun(line, job, answer)
        found = replace(self.expected(job), root=answer["root"], facts={"run": answer["state"].get("run")})
        return replace(found, gpu=_gpu_name(answer) or job.gpu)

    def status(self, machine: Machine) -> MachineState:
        """The job there at one look. `preempted`: it should go on and nobody keeps it; launching again resumes it."""
        try:
            with self._line(machine) as line:
                return read_state(line.ask("state", machine.name))
        except UnderstudyError as error:
            return MachineState("unknown", reason=str(error))

    def run(self, machine: Machine, command: Sequence[str], timeout_s: float = 60.0) -> Outcome:
        with self._line(machine) as line:
            return line.run(command, timeout_s)

    def logs(self, machine: Machine, follow: bool = False) -> Iterator[str]:
        """What the keeper, the making of the environment and the training have said; a broken line is no end."""
        left = b""
        with self._line(machine) as line:
            for chunk in line.follow("log", machine.name, "0", "follow" if follow else "once"):
                *lines, left = (left + chunk).split(b"\n")
                yield from (one.decode(errors="replace") for one in lines)
        if left:
            yield left.decode(errors="replace")

    def bring_home(self, machine: Machine, into: Path) -> None:
        """Copy the job's run (its folder is `into/RUN`); nothing where it has none yet."""
        with self._line(machine) as line:
            run = line.ask("state", machine.name).get("state", {}).get("run")
            if run:
                fetch_run(line, str(run), into)

    def stop(self, machine: Machine) -> None:
        with self._line(machine) as line:
            self._end(line, "stop", machine.name)

    def down(self, machine: Machine) -> None:
        """See to it that nothing of the job lives there; its run, checkpoints and environment stay on the disk."""
        try:
            with self._line(machine) as line:
                self._end(line, "forget", machine.name)
        except StillRunning:
            raise
        except UnderstudyError as error:
            how = f"reach it, then: python -m engine cloud down {machine.name}"
            raise StillRunning(machine.name, f"{error.message}; its timer ends it there", how) from None

    # -- parts

    def _line(self, machine: Machine | None = None, install: bool = True) -> Line:
        """The line to the machine as it was launched, or to the one that the settings name; see `Line`."""
        settings = self._settings
        found = machine or settings
        place = Place(
            kind="ssh",
            host=found.address,
            port=found.port,
            user=found.user,
            key=Path(found.key).expanduser() if found.key else None,
            known_hosts=Path(found.known_hosts).expanduser() if found.known_hosts else None,
            timeout_s=settings.timeout_s,
        )
        return Line(place, found.root, settings.python or "python3", install)

    def _left(self, job: Job) -> dict[str, Any]:
        """The timer, as seconds from now: the host's clock may be another."""
        return {"left_s": None if job.stop_at is None else job.stop_at - time.time()}

    def _deliver(self, line: Line, job: Job) -> dict[str, Any]:
        """Send what the job needs; its part of the order."""
        settings = self._settings
        code = list_code(job.code, settings.files)
        for path in code.left_out:
            self._say(f"{path} looks like a secret: it stays here")
        done = send_files(line, "code", code.root, f"code/{code.id}", code.items, self._say)
        self._say(f"code: {done['sent']} of {len(code.items)} files sent, {done['bytes'] / 1e6:.1f} MB")
        for source, place in job.data:
            items = list_data(source.expanduser())
            done = send_files(line, "data", source.expanduser(), place, items, self._say)
            self._say(f"data {place}: {done['sent']:,} of {len(items):,} files sent, {done['bytes'] / 1e6:.1f} MB")
        order = {"code": code.id, "data": [place for _, place in job.data], "python": settings.python}
        setup = settings.setup or ("" if settings.python else _SETUP.strip())
        wanted = [item.tag for item in code.items if item.path == "pyproject.toml"]
        recipe = hashlib.sha256(json.dumps([setup, wanted]).encode()).hexdigest()[:16]
        return order | {"setup": setup, "environment": recipe}

    def _wait_begun(self, line: Line, job: Job, answer: dict[str, Any]) -> dict[str, Any]:
        """Wait a little for what fails at once; the run has its name by then, unless its environment is being made."""
        deadline = time.monotonic() + _BEGIN_S
        while time.monotonic() < deadline:
            status = answer["state"].get("status")
            if status == "failed":
                raise Failed(
                    f"the training on {line.name} does not begin: {answer['state'].get('reason')}",
                    f"see: python -m engine cloud logs {job.name}",
                    kind="job_failed",
                )
            if answer.get("manifest") or status in ("completed", "stopped", "expired"):
                break
            time.sleep(_POLL_S)
            answer = line.ask("state", job.name)
        return answer

    def _end(self, line: Line, verb: str, name: str) -> None:
        answer = line.ask(verb, name, timeout_s=2 * self._settings.grace_s + _STOP_S)
        if answer["left"]:
            pids = ", ".join(map(str, answer["left"]))
            raise StillRunning(name, f"processes {pids} on {line.name} cannot be killed", "look at them there")


def split_words(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The verb, what its first start takes after it, and what a resume takes: nothing that settles the result.

    Raises:
        UsageError: what a keeper cannot go on with.
    """
    count = 2 if words[:1] == ("go",) or list(words[:1]) == ["go"] else 1
    verb, rest = list(words[:count]), list(words[count:])
    if verb not in (["train"], ["go", "train"]):
        raise UsageError(f"'{' '.join(verb)}' is not a training", "a server takes train and go train")
    for word in ("--multirun", "--detach", "--resume", "--from", "--stop"):
        if word in rest:
            raise UsageError(
                f"'{word}' cannot be given for a server", "one run a launch; it is detached and resumed there"
            )
    settled = (*SECTIONS, "defaults", "task")
    go_on = [
        word for word in rest if word.startswith("-") or word.partition("=")[0].partition(".")[0] not in settled
    ]
    if "--device" in go_on:  # it takes the word after it, and is one of the settled
        place = go_on.index("--device")
        del go_on[place : place + 2]
    return verb, rest, go_on


def read_state(answer: dict[str, Any]) -> MachineState:
    """The host's answer as a look at the machine."""
    gpus = answer.get("gpus") or []
    figures: dict[str, Any] = {}
    if gpus:
        busiest = max(gpus, key=lambda gpu: gpu["use"])
        figures = {"gpu_use": busiest["use"], "gpu_memory_used_bytes": busiest["used_bytes"]}
        figures |= {"gpu_memory_total_bytes": busiest["total_bytes"]}
    if not answer["here"]:
        return MachineState("gone", "none", **figures)
    account = answer["state"]
    status = account.get("status", "preparing")
    state: State = "starting" if status == "preparing" else "running"
    if status in ("completed", "stopped", "failed", "expired"):
        state = "stopped"
    elif not answer["kept"]:
        state = "preempted" if answer["wanted"] == "run" else "stopped"
    job = _JOBS.get(status, "unknown")
    if status == "stopped" and answer["wanted"] == "run":
        job = "failed"  # by somebody on the machine: not to be begun again by itself
    reason = account.get("reason") or ""
    if state == "preempted":
        reason = "nothing keeps the training there: the host was started again, or its processes were killed"
    # a server with nothing to do costs nothing by that: nobody needs to hear of it
    active = None if state == "stopped" else answer.get("active") or answer.get("beat")
    # what died did so before its next beat; counted to that, never less than the bill
    died = answer["beat"] + _BEAT_S if answer.get("beat") else None
    ended = {"stopped": account.get("ended"), "preempted": died}.get(state)
    # the host's clock may be another than ours
    shift = time.time() - float(answer["now"])
    return MachineState(
        state,
        job,
        reason,
        active_at=active + shift if active else None,
        ended_at=ended + shift if ended else None,
        run=account.get("run"),
        progress=answer.get("progress") or {},
        **figures,
    )


def _identity(job: Job) -> str:
    """The same for every launch of one job, however often; its timer may change."""
    value = job.as_json()
    kept = {name: value[name] for name in ("name", "words", "resume", "data")}
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:20]


def _gpu_name(answer: dict[str, Any]) -> str | None:
    gpus = answer.get("gpus") or []
    return gpus[0]["name"] if gpus else None
