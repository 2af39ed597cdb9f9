"""The guard of one machine: it launches it, looks after it, and sees it gone. One process, whoever else dies.

All that it knows is in the ledger, so that another guard can go on where one was killed. It is never the only thing
between a machine and its budget: the machine carries a timer of its own (`Job.stop_at`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from engine.cloud.ledger import Entry, Ledger, seconds
from engine.cloud.money import budget_alert, share_spent, stop_at
from engine.cloud.provider import Machine, MachineState, Provider, StillRunning
from engine.config import Settings
from engine.errors import UnderstudyError
from engine.notify import notify
from engine.notify.alerts import clear_alert, raise_alert
from engine.notify.messages import alert_message
from engine.store.clock import timestamp
from engine.store.events import append_event
from engine.store.locks import hold
from engine.store.workspace import Workspace

SETTLE_S = 180.0  # a machine that was asked for may come up so long after whoever asked was killed
RETRY_S = 30.0  # after a failure; twice as long after each further one, up to:
LONGEST_S = 300.0
CONFIRM_S = 30.0  # at most, between two looks that both find a machine gone: a provider's list may be late
LAUNCH_LOOK_S = 10.0
FIRST_TRIES = 3  # for a machine that was never there
HOME_S = 300.0  # how often the runs come home
BLIND_S = 600.0  # nobody could ask for so long: people are told
_WORTH_S = 600.0  # less time than that is left: a preempted machine is not asked for again


class Launcher(Protocol):
    """Calls the provider's `launch` in a process of its own, which writes the machine into the ledger."""

    def start(self) -> None: ...

    def busy(self) -> bool:
        """Whether one is at it, this guard's or one before it."""
        ...

    def kill(self) -> None: ...


class Guard:
    """Looks after one machine.

    Args:
        sync: pulls the machine's checkpoints over the road, as a person's `sync` would.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        name: str,
        provider: Provider,
        launcher: Launcher,
        sync: Callable[[Machine], None],
        clock: Callable[[], float] = seconds,
    ) -> None:
        self._workspace, self._settings, self._cloud = workspace, settings, settings.cloud
        self._ledger, self._name, self._provider = Ledger(workspace), name, provider
        self._launcher, self._sync, self._clock = launcher, sync, clock
        self._home_at = self._seen_at = clock()
        self._trouble, self._failures = "", 0

    def tick(self) -> float | None:
        """One look, and what follows from it: seconds until the next one, or None when the machine is gone."""
        entry = self._ledger.read(self._name)
        if not entry.open:
            return None
        now = self._clock()
        ends_at = ends_by_guard(entry)
        over = ends_at is not None and now >= ends_at
        self._tell_of_budget(entry, 1.0 if over else share_spent(entry, now))
        if entry.wanted != "down" and over:
            entry = self._want_down("the budget's time is out")
        if entry.wanted == "down":
            return self._end(entry)
        if self._launcher.busy():
            return self._until(entry, LAUNCH_LOOK_S)
        if not entry.launches:
            return self._launch(entry)
        state = self._provider.status(self._machine(entry))
        before = (entry.last or {}).get("state")
        entry = self._note(state)
        if state.state == "gone" and entry.machine is not None and before != "gone":
            return self._until(entry, min(RETRY_S, self._cloud.poll_s))  # a list may be late: it is asked again
        return self._until(entry, self._follow(entry, state))

    # -- what a look leads to

    def _follow(self, entry: Entry, state: MachineState) -> float:
        now = self._clock()
        if state.state == "unknown":
            if now - self._seen_at > BLIND_S:
                until = (
                    f", the machine's own timer ends it by {timestamp(entry.job.stop_at)}"
                    if entry.job.stop_at
                    else ""
                )
                self._alert("unreachable", "cannot be asked", f"{state.reason}; it is counted as running{until}")
            return self._later()
        self._seen_at, self._failures = now, 0
        if state.job in ("done", "failed"):
            ended = f"the training has ended{state.reason and f': {state.reason}'}"
            self._want_down("the training is done" if state.job == "done" else ended)
            return 0.0
        if entry.wanted == "stopped" and state.state == "gone":
            self._want_down("its training was stopped, and it had nothing to do")
            return 0.0
        if entry.wanted == "stopped" or (state.state == "running" and entry.machine and state.job != "none"):
            self._look_for_idleness(entry, state)
            if now - self._home_at >= HOME_S:
                self._bring_home(entry)
            return self._cloud.poll_s
        if state.state == "starting":
            return min(RETRY_S, self._cloud.poll_s)
        if state.state == "running":  # a launch that was killed, or failed, half way
            return self._launch(entry)
        return self._lost(entry, state)

    def _lost(self, entry: Entry, state: MachineState) -> float:
        """There is no machine although there should be one: preempted, never made, or ended by its own timer."""
        now = self._clock()
        if entry.machine is None and entry.asked_at is not None and now - entry.asked_at < SETTLE_S:
            return RETRY_S
        if entry.launches > (self._cloud.relaunches if "up" in entry.told else FIRST_TRIES - 1):
            self._want_down(f"asked for {entry.launches} times: {entry.failed or state.reason or 'preempted'}")
            return 0.0
        if entry.machine is not None and not entry.machine.spot and state.state == "gone":
            self._want_down("it has ended by itself")
            return 0.0
        limit = stop_at(entry, self._cloud, now)
        if limit is not None and limit - entry.job.idle_minutes * 60 - now < _WORTH_S:
            self._want_down("what is left of the budget is not worth another machine")
            return 0.0
        if entry.machine is not None and state.state != "stopped":  # else a person has it go on
            text = f"{state.reason or 'the provider took it back'}; another one is asked for, and the run goes on there"
            notify(self._workspace, self._settings, "alert", alert_message(f"'{self._name}' was preempted", text))
            append_event(self._workspace, "alert", self._name, {"kind": "preempted", "reason": text})
        return self._launch(entry)

    def _launch(self, entry: Entry) -> float:
        """Ask for a machine. The ledger knows before the provider does."""
        now = self._clock()
        most = self._provider.expected(entry.job).hourly_usd
        with self._ledger.change(self._name) as box:
            entry = replace(box[0], hourly_usd=most).begun(now)
            job = replace(entry.job, stop_at=stop_at(entry, self._cloud, now))
            box[0] = replace(entry, job=job, machine=None, launches=entry.launches + 1, asked_at=now, failed="")
        self._launcher.start()
        return LAUNCH_LOOK_S

    def _end(self, entry: Entry) -> float | None:
        """Take the machine down, and close its page only when the provider has said that it is gone."""
        self._launcher.kill()
        machine = self._machine(entry)
        if entry.machine is not None and "home" not in entry.told:
            with self._ledger.change(self._name) as box:
                box[0] = replace(box[0], told=(*box[0].told, "home"))
            if (entry.last or {}).get("state") in ("running", "stopped"):
                self._bring_home(entry, logs=True)
        try:
            self._provider.down(machine)
        except StillRunning as error:
            self._not_gone()
            self._alert("still_running", "still runs and costs money", error.message, error.hint)
            return self._later()
        except UnderstudyError as error:
            self._not_gone()
            self._alert("still_running", "may still run and cost money", str(error))
            return self._later()
        now = self._clock()
        if entry.machine is None and entry.asked_at is not None and now - entry.asked_at < SETTLE_S:
            return RETRY_S  # nothing yet of what was asked for; it may come
        confirm_s = min(CONFIRM_S, self._cloud.poll_s)
        if entry.gone_at is None or now - entry.gone_at < confirm_s:
            with self._ledger.change(self._name) as box:
                box[0] = replace(box[0], gone_at=box[0].gone_at or now)
            return confirm_s
        self._close(now)
        return None

    def _not_gone(self) -> None:
        with self._ledger.change(self._name) as box:
            box[0] = replace(box[0], gone_at=None)

    def _close(self, now: float) -> None:
        with self._ledger.change(self._name) as box:
            box[0] = box[0].closed(now)
            entry = box[0]
        cost = entry.cost_usd(now)
        self._clear(f"'{self._name}' is gone")
        append_event(
            self._workspace, "stopped", f"cloud {self._name}", {"why": entry.why, "cost_usd": round(cost, 4)}
        )
        text = f"Cloud: '{self._name}' is gone, {entry.why or 'asked for'}; it has cost ${cost:.2f}"
        notify(self._workspace, self._settings, "trained", text)

    # -- parts

    def _machine(self, entry: Entry) -> Machine:
        return entry.machine or self._provider.expected(entry.job)

    def _note(self, state: MachineState) -> Entry:
        """Keep what was seen; a machine that came up although nobody was left to hear of it is taken over."""
        with self._ledger.change(self._name) as box:
            entry = box[0].seen(state, self._clock())
            if state.state == "running" and "up" not in entry.told:
                entry = replace(entry, told=(*entry.told, "up"))
            if entry.machine is None and state.state == "running" and state.job not in ("none", "unknown"):
                entry = replace(entry, machine=self._provider.expected(entry.job))
            if (
                state.hourly_usd is not None
                and entry.machine is not None
                and not entry.machine.facts.get("priced")
            ):
                facts = entry.machine.facts | {"priced": True}
                machine = replace(entry.machine, hourly_usd=state.hourly_usd, facts=facts)
                entry = replace(entry, machine=machine).priced(state.hourly_usd)
            box[0] = entry
        return entry

    def _want_down(self, why: str) -> Entry:
        with self._ledger.change(self._name) as box:
            if box[0].wanted != "down":
                box[0] = replace(box[0], wanted="down", why=why)
            return box[0]

    def _bring_home(self, entry: Entry, logs: bool = False) -> None:
        """The runs come home, and the best checkpoint over the road; one that fails is tried again, and not an end."""
        assert entry.machine is not None
        self._home_at = self._clock()
        try:
            self._provider.bring_home(entry.machine, self._ledger.files(self._name) / "runs")
            self._sync(entry.machine)
            if logs:
                words = "\n".join(self._provider.logs(entry.machine))
                (self._ledger.files(self._name) / "job.log").write_text(words + "\n", encoding="utf-8")
            self._trouble = ""
        except (UnderstudyError, OSError) as error:
            trouble = str(error)[:300]
            if trouble != self._trouble:
                append_event(self._workspace, "alert", self._name, {"kind": "not_home", "reason": trouble})
            self._trouble = trouble

    def _look_for_idleness(self, entry: Entry, state: MachineState) -> None:
        now, limit = self._clock(), self._cloud.idle_minutes * 60
        since = max(state.active_at or 0.0, entry.asked_at or 0.0)
        if state.active_at is not None and now - since > limit:
            use = f", GPU at {state.gpu_use:.0%}" if state.gpu_use is not None else ""
            text = f"nothing has worked there for {(now - since) / 60:.0f} minutes{use}; it costs ${entry.hourly_usd:.2f} an hour"
            self._alert("idle", "is idle and still costs money", text)
        elif state.active_at is not None:
            self._clear(f"'{self._name}' works")

    def _tell_of_budget(self, entry: Entry, share: float) -> None:
        mark, now = budget_alert(share, entry.told), self._clock()
        if mark is None:
            return
        with self._ledger.change(self._name) as box:
            box[0] = replace(box[0], told=(*box[0].told, mark))
        text = f"${entry.cost_usd(now):.2f} of ${entry.budget_usd:.2f}"
        ending = "it is taken down now" if mark == "100" else f"it ends by {timestamp(entry.job.stop_at)}"
        text += f"; {ending}" if entry.job.stop_at else ""
        append_event(self._workspace, "alert", self._name, {"kind": "budget", "reason": f"{mark}% spent: {text}"})
        message = alert_message(f"'{self._name}' has spent {mark}% of its budget", text,
                                fix=f"python -m engine cloud down {self._name}")  # fmt: skip
        notify(self._workspace, self._settings, "alert", message)

    def _alert(self, state: str, subject: str, text: str, fix: str = "") -> None:
        fix = fix or f"python -m engine cloud down {self._name}"
        with hold(self._workspace.lock("alerts-cloud"), "tell of a machine", wait=True, timeout_s=5.0):
            raise_alert(self._workspace, self._settings, f"cloud {self._name}", state,
                        f"'{self._name}' {subject}", text, fix)  # fmt: skip

    def _clear(self, subject: str) -> None:
        with hold(self._workspace.lock("alerts-cloud"), "tell of a machine", wait=True, timeout_s=5.0):
            clear_alert(self._workspace, self._settings, f"cloud {self._name}", subject)

    def _later(self) -> float:
        """The pause after a failure."""
        self._failures += 1
        return float(min(RETRY_S * 2 ** (self._failures - 1), LONGEST_S))

    def _until(self, entry: Entry, pause_s: float) -> float:
        """A pause, no longer than to the moment at which the machine is to end."""
        ends_at = ends_by_guard(entry)
        return pause_s if ends_at is None else max(0.0, min(pause_s, ends_at - self._clock()))


def ends_by_guard(entry: Entry) -> float | None:
    """When the guard takes the machine down: as soon as its training must be over, so that it may fail for a while."""
    return None if entry.job.stop_at is None else entry.job.stop_at - entry.job.idle_minutes * 60
