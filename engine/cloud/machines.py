"""Machines from the command line's side: the provider that is set, starting a guard, a guard's own process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from engine.cloud.guard import Guard, Launcher
from engine.cloud.ledger import Entry, Ledger, seconds
from engine.cloud.provider import Job, Machine, Provider
from engine.config import Settings
from engine.errors import Busy, Failed, UnderstudyError, UsageError
from engine.notify.flusher import start_apart
from engine.store.files import read_json
from engine.store.locks import hold, holder
from engine.store.workspace import Workspace

Command = Callable[
    ..., list[str]
]  # words of an engine command to its whole command line, `Session.engine_command`
_SYNC_S = 600.0
_KILL_S = 10.0


def open_provider(settings: Settings, workspace: Workspace, name: str | None = None) -> Provider:
    """The provider of this name, or the one that `cloud.provider` names.

    Raises:
        UsageError: none is set.
    """
    name = name or settings.cloud.provider
    if name == "skypilot":
        from engine.cloud.sky import Skypilot

        return Skypilot(settings, workspace)
    if name == "ssh":
        from engine.cloud.ssh import SshProvider

        return SshProvider(settings.cloud.ssh, lambda line: print(line, file=sys.stderr, flush=True))
    raise UsageError(
        "cloud.provider is not set", "set it to skypilot or ssh; see docs/cloud.md", kind="missing_setting"
    )


def order(
    workspace: Workspace, settings: Settings, job: Job, provider: Provider | None = None, now: float | None = None
) -> Entry:
    """Check a job and write its page of the ledger; its guard does the rest.

    Raises:
        UsageError: no provider, no budget where it costs something, a budget that is too small, a bad name, a GPU
            that is too small by `fit`'s forecast.
        Busy: a machine of this name may still run.
    """
    provider = provider or open_provider(settings, workspace)
    provider.ready()
    entry = checked(settings, job, provider, seconds() if now is None else now)
    fits, reason = memory_problem(workspace, settings, entry.job)
    if fits is False:
        raise UsageError(f"it does not fit into a {job.gpu}: {reason}", "choose a bigger GPU, or smaller settings", kind="cannot_fit")  # fmt: skip
    Ledger(workspace).create(entry)
    return entry


def checked(settings: Settings, job: Job, provider: Provider, now: float) -> Entry:
    """The page of the ledger that a job would get, its price and budget being checked; nothing is written.

    Raises:
        UsageError: no such GPU, no budget where it costs something, or one that leaves no time to train.
    """
    job = provider.check(job)
    most = provider.expected(job).hourly_usd
    if most and job.budget_usd is None:
        raise UsageError(
            f"no budget for a machine of up to ${most:.2f} an hour", "give --budget USD, or set cloud.budget_usd"
        )
    if most and job.budget_usd is not None:
        minutes = job.budget_usd / most * 60 - settings.cloud.reserve_minutes - job.idle_minutes
        if minutes < 10:
            hint = f"it needs at least ${(settings.cloud.reserve_minutes + job.idle_minutes + 10) / 60 * most:.2f}"
            raise UsageError(f"a budget of ${job.budget_usd:.2f} leaves {max(0, minutes):.0f} minutes to train", hint, kind="budget_too_small")  # fmt: skip
    return Entry(job.name, provider.name, job, most, job.budget_usd, now)


def memory_problem(
    workspace: Workspace, settings: Settings, job: Job, gpu_bytes: int | None = None
) -> tuple[bool | None, str | None]:
    """Whether the job fits into its GPU by what `fit` has traced so far, and if not, why; None: not known.

    Args:
        gpu_bytes: of the GPU; None: the price table's.
    """
    from engine.cloud.plan import fits_into, memory_forecast
    from engine.cloud.prices import gpu_memory
    from engine.training.fit import facts_of

    there = gpu_bytes or (gpu_memory(settings, workspace.state, job.gpu) if job.gpu else None)
    if there is None or settings.task != "images":
        return None, None
    facts = facts_of(settings)
    return fits_into(settings, workspace, facts, memory_forecast(settings, workspace, facts), there)


class LaunchProcess:
    """Launches in a child with a session of its own, which holds a lock for as long as it lives; see `Launcher`."""

    def __init__(self, workspace: Workspace, name: str, command: Sequence[str]) -> None:
        self._lock, self._command = launch_lock(workspace, name), command
        self._log = Ledger(workspace).files(name) / "launch.log"
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                           start_new_session=True)  # fmt: skip

    def busy(self) -> bool:
        return (self._child is not None and self._child.poll() is None) or holder(self._lock) is not None

    def kill(self) -> None:
        """End it, and what it has started; SkyPilot's own server may go on for a while."""
        who = holder(self._lock)
        pid = self._child.pid if self._child and self._child.poll() is None else who and who.get("pid")
        if not isinstance(pid, int):
            return
        try:
            os.killpg(pid, signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return
        deadline = time.monotonic() + _KILL_S
        while self.busy() and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.busy():
            os.killpg(pid, signal.SIGKILL)


def launch_lock(workspace: Workspace, name: str) -> Path:
    return workspace.lock(f"cloud-{name}-launch")


def guard_lock(workspace: Workspace, name: str) -> Path:
    return workspace.lock(f"cloud-{name}-guard")


def launch_now(workspace: Workspace, settings: Settings, name: str, provider: Provider | None = None) -> None:
    """The launcher's own process: ask the provider for the machine, and write what came of it into the ledger.

    Raises:
        Busy: another one is at it.
        UnderstudyError: what the provider said.
    """
    ledger = Ledger(workspace)
    with hold(launch_lock(workspace, name), "launch a machine"):
        entry = ledger.read(name)
        try:
            provider = provider or open_provider(settings, workspace, entry.provider)
            machine = provider.launch(entry.job)
        except UnderstudyError as error:
            with ledger.change(name) as box:
                box[0] = replace(box[0], failed=str(error))
                if isinstance(error, UsageError) and box[0].wanted == "up":
                    box[0] = replace(box[0], wanted="down", why=str(error))
            raise
        with ledger.change(name) as box:
            box[0] = replace(box[0], machine=machine, failed="")


def guard_now(workspace: Workspace, settings: Settings, name: str, command: Command) -> None:
    """The guard's own process, until the machine is gone; one that is there already stays the only one."""
    entry = Ledger(workspace).read(name)
    with hold(guard_lock(workspace, name), "guard a machine"):
        guard = Guard(
            workspace,
            settings,
            name,
            open_provider(settings, workspace, entry.provider),
            LaunchProcess(workspace, name, command("cloud", "guard", name, "--launch")),
            lambda machine: _sync(workspace, name, command, machine),
        )
        attend(guard, Ledger(workspace), name)


def attend(guard: Guard, ledger: Ledger, name: str, sleep: Callable[[float], None] = time.sleep) -> None:
    """Tick until the machine is gone, and at once when somebody wants it down. No error ends it."""
    while True:
        try:
            pause_s = guard.tick()
        except (UnderstudyError, OSError, ValueError) as error:
            log = ledger.files(name) / "guard.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {type(error).__name__}: {error}\n")
            pause_s = 30.0
        if pause_s is None:
            return
        until, wanted = time.monotonic() + pause_s, _wanted(ledger, name)
        while (left := until - time.monotonic()) > 0 and _wanted(ledger, name) == wanted:
            sleep(min(left, 1.0))


def start_guard(workspace: Workspace, name: str, command: Command) -> bool:
    """Start the guard of a machine unless there is one; returns whether one was started."""
    if holder(guard_lock(workspace, name)) is not None:
        return False
    start_apart(command("cloud", "guard", name))
    return True


def start_missing_guards(workspace: Workspace, command: Command) -> list[str]:
    """Start the guard of every machine that may cost money and has none; the names of these. Cheap where there are
    no machines: whoever comes by (`sync`, `status`, `watch`) calls it."""
    if not (workspace.root / "cloud").is_dir():
        return []
    ledger = Ledger(workspace)
    return [
        name for name in ledger.names() if _is_open(ledger, name) and start_guard(workspace, name, command)
    ]  # fmt: skip


def want(workspace: Workspace, name: str, wanted: str, why: str) -> Entry:
    """Say what is wanted of a machine; its guard sees to it."""
    with Ledger(workspace).change(name) as box:
        if box[0].open and box[0].wanted != "down":
            box[0] = replace(box[0], wanted=wanted, why=why)
        return box[0]


def _is_open(ledger: Ledger, name: str) -> bool:
    value = read_json(ledger.folder / f"{name}.json")
    return isinstance(value, dict) and "job" in value and value.get("closed_at") is None


def _wanted(ledger: Ledger, name: str) -> object:
    try:
        return (read_json(ledger.folder / f"{name}.json") or {}).get("wanted")
    except Failed:
        return None


def _sync(workspace: Workspace, name: str, command: Command, machine: Machine) -> None:
    """The machine's best checkpoint over the road, by the same command that a person types."""
    try:
        done = subprocess.run(command("sync", *machine.source_words()), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=_SYNC_S, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failed(f"sync from '{name}' took longer than {_SYNC_S:.0f} s", "it is tried again") from None
    nothing = done.returncode in (0, Busy.exit_code)
    if not nothing:
        said = done.stderr.strip().splitlines()
        raise Failed(
            f"sync from '{name}': {said[-1] if said else done.returncode}", "see: python -m engine logs sync"
        )


__all__ = ["LaunchProcess", "Launcher", "attend", "guard_now", "launch_now", "open_provider", "order", "want"]
