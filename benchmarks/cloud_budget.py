"""Does a machine ever run past its budget? Failures injected into a simulated cloud behind a recorded command line.

    python -m benchmarks.cloud_budget [--json] [--only NAME] [--beyond]

Everything of ours is the real thing: the ledger, the guard, the launcher (each call of them a process of its own, which
a fault may kill with SIGKILL in the middle), the provider that runs `sky`, `ssh` and `rsync`. These are answered by
`benchmarks/_fake_sky.py`, where machines live, cost and end as SkyPilot's would, in simulated time. A case is lost
when the provider's bill is above the budget or a machine is still there hours later.

Every case has one thing fail: the provider's API, the network from here, one of our processes, or a part of the
machine's own timer. `--beyond` adds what nobody can promise: our side dead for good and the machine's timer broken.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.cloud.guard import Guard
from engine.cloud.ledger import Ledger
from engine.cloud.machines import launch_lock, launch_now, order
from engine.cloud.provider import Job
from engine.cloud.sky import Skypilot
from engine.config import Settings, load_settings
from engine.errors import UnderstudyError
from engine.store.locks import holder
from engine.store.workspace import Workspace

_START = 1_800_000_000.0
_BUDGET, _HOURLY = 1.0, 0.5  # two hours
_END = _START + _BUDGET / _HOURLY * 3600
_FOR_EVER = _START + 1e9
_HORIZON = _END + 2 * 3600
_NAME = "box"
_MACHINE = {"works_s": 1e9, "timer": True, "autodown": True, "stubborn": False, "preempted_at": None,
            "provision_s": 150.0, "setup_s": 240.0, "going_s": 30.0}  # fmt: skip
_BETWEEN_S = 1800.0  # cron's `sync` comes by so often and starts a guard that is missing


@dataclass(frozen=True)
class Case:
    """One failure.

    Args:
        machine: what the cloud's machine does, other than it should.
        dead: when none of our processes runs, seconds from the start (pairs); a guard is started again after it.
    """

    name: str
    faults: tuple[dict[str, Any], ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)
    dead: tuple[tuple[float, float], ...] = ()
    spot: bool = False


def during(kind: str, since_s: float, until_s: float, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "since": _START + since_s, "until": min(_START + until_s, _FOR_EVER), **more}


def at_call(kind: str, verb: str, *calls: int, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "verb": verb, "calls": list(calls), **more}


def cases() -> list[Case]:
    """The fifty."""
    budget_s, ever = _END - _START, 1e9
    late = budget_s - 1200
    api = [
        Case("API: launch fails once", (at_call("api", "launch", 1),)),
        Case("API: launch fails always", (during("api", 0, ever, verb="launch"),)),
        Case("API: status fails from the start", (during("api", 0, ever, verb="status"),)),
        Case("API: status fails for an hour", (during("api", 1800, 5400, verb="status"),)),
        Case("API: the job queue fails for ever", (during("api", 0, ever, verb="queue"),)),
        Case("API: the price report fails for ever", (during("api", 0, ever, verb="cost-report"),)),
        Case("API: down fails for 5 minutes", (during("api", late, late + 300, verb="down"),)),
        Case("API: down fails for ever", (during("api", 0, ever, verb="down"),)),
        Case("API: down and status fail for ever", tuple(during("api", 0, ever, verb=verb) for verb in ("down", "status"))),
        Case("API: everything fails after the launch", (during("api", 60, ever),)),
        Case("API: everything fails at the end", (during("api", late - 600, ever),)),
        Case("API: every third call fails", tuple(at_call("api", verb, *range(1, 900, 3)) for verb in ("status", "down", "queue", "launch"))),
        Case("API: down hangs", (at_call("hang", "down", 1, 2),)),
        Case("API: status hangs", (at_call("hang", "status", 1, 2, 3),)),
        Case("API: launch hangs", (at_call("hang", "launch", 1),)),
        Case("API: status answers nonsense", (during("garbage", 600, 4000, verb="status"),)),
        Case("API: status answers nonsense at the end", (during("garbage", late, ever, verb="status"),)),
        Case("API: down says done and does nothing, 4 times", (at_call("lie", "down", 1, 2, 3, 4),)),
        Case("API: the list is empty once", (at_call("empty", "status", 9),)),
        Case("API: the list is empty at the end, 3 times", (during("empty", late - 60, late + 60, verb="status"),)),
    ]  # fmt: skip
    network = [
        Case("network: gone before the launch", (during("network", 0, 1800),)),
        Case("network: gone before the launch, for ever", (during("network", 0, ever),)),
        Case("network: gone after the launch, for ever", (during("network", 30, ever),)),
        Case("network: gone while it is set up", (during("network", 200, 2400),)),
        Case("network: gone half way, for ever", (during("network", 3600, ever),)),
        Case("network: gone at the end, for ever", (during("network", late - 900, ever),)),
        Case("network: gone around the end", (during("network", late - 300, budget_s + 3600),)),
        Case(
            "network: comes and goes",
            tuple(during("network", begin, begin + 300) for begin in range(0, 9000, 600)),
        ),
        Case("network: SSH alone is gone", (during("network", 0, ever, verb="ssh"),)),
        Case("network: gone for ever, a stubborn training", (during("network", 900, ever),), {"stubborn": True}),
    ]
    killed = [
        Case("killed: launcher before the request", (at_call("kill_before", "launch", 1),)),
        Case("killed: launcher after the request", (at_call("kill_after", "launch", 1, late_s=0.0),)),
        Case("killed: launcher, the machine comes 2 minutes later", (at_call("kill_after", "launch", 1, late_s=120.0),)),
        Case("killed: launcher and guard at once, for ever", (at_call("kill_after", "launch", 1, late_s=60.0),), dead=((1, ever),)),
        Case("killed: guard while it asks", (at_call("kill_before", "status", 3),)),
        Case("killed: guard each time it asks", (at_call("kill_after", "status", *range(2, 60)),)),
        Case("killed: guard while it asks for the job", (at_call("kill_before", "queue", 2, 3),)),
        Case("killed: guard before down", (at_call("kill_before", "down", 1),)),
        Case("killed: guard after down", (at_call("kill_after", "down", 1),)),
        Case("killed: guard at each of ten downs", (at_call("kill_before", "down", *range(1, 11)),)),
        Case("killed: guard half way, for ever", dead=((3600, ever),)),
        Case("killed: guard for an hour", dead=((1800, 5400),)),
        Case("killed: guard around the end", dead=((late - 1800, budget_s + 7200),)),
        Case("killed: host off after the launch, for ever", dead=((30, ever),)),
    ]  # fmt: skip
    machine = [
        Case("machine: does not end when idle", machine={"autodown": False}),
        Case("machine: its timeout does not work", machine={"timer": False}),
        Case("machine: neither works", machine={"timer": False, "autodown": False}),
        Case("machine: the training does not obey", machine={"stubborn": True}),
        Case("machine: preempted twice", machine={"preempted_at": _START + 2400}, spot=True),
        Case("machine: preempted, the network gone then", (during("network", 2300, ever),), {"preempted_at": _START + 2400}, spot=True),
    ]  # fmt: skip
    return [*api, *network, *killed, *machine]


def beyond() -> list[Case]:
    """Two things at once that no program can promise anything about."""
    return [
        Case("beyond: our side dead for ever, no autodown", machine={"autodown": False}, dead=((600, 1e9),)),
        Case("beyond: network gone for ever, no timeout", (during("network", 600, 1e9),), {"timer": False}),
        Case("beyond: our side dead for two hours, no autodown", machine={"autodown": False}, dead=((600, 7800),)),
    ]


def main(argv: list[str] | None = None) -> int:
    """Run the cases, print a line for each, and the figure; 1 when a machine ran past its budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name begins like this")
    parser.add_argument("--beyond", action="store_true")
    arguments = parser.parse_args(argv)
    stream = sys.stderr if arguments.json else sys.stdout
    results = []
    for case in [*cases(), *(beyond() if arguments.beyond else [])]:
        if case.name.startswith(arguments.only):
            results.append(run_case(case))
            print(_line(results[-1]), file=stream, flush=True)
    fifty = [result for result in results if not result["case"].startswith("beyond")]
    over = sum(result["over"] for result in fifty)
    short = sum(result["counted_usd"] + 1e-6 < result["bill_usd"] for result in fifty)
    print(f"{over} of {len(fifty)} machines ran past their budget; the ledger counted less than the bill in {short}", file=stream)  # fmt: skip
    if arguments.json:
        print(json.dumps({"results": results, "over": over, "cases": len(fifty), "undercounted": short}))
    return int(over > 0)


def run_case(case: Case) -> dict[str, Any]:
    """One case from the order to hours after the budget's end, in simulated time."""
    with tempfile.TemporaryDirectory(prefix="budget-") as folder, fake_cloud(Path(folder), case) as place:
        workspace = Workspace(Path(folder) / "workspace")
        settings = load_settings(None, workspace.root, [
            "cloud.provider=skypilot", f"cloud.skypilot={place / 'sky'}", "cloud.timeout_s=2", "cloud.poll_s=900", "notify.events=[]",
        ]).settings  # fmt: skip
        world = _World(place, workspace, settings)
        job = Job(_NAME, ("train",), Path(folder), gpu="RTX 4090", spot=case.spot, max_hourly_usd=_HOURLY,
                  budget_usd=_BUDGET, idle_minutes=settings.cloud.idle_minutes)  # fmt: skip
        order(workspace, settings, job, world.provider(), now=_START)
        _live(world, case)
        return _judge(world, case)


class _World:
    """Our side at the simulated time."""

    def __init__(self, place: Path, workspace: Workspace, settings: Settings) -> None:
        self.place, self.workspace, self.settings = place, workspace, settings
        self.now = _START

    def provider(self) -> Skypilot:
        return Skypilot(self.settings, self.workspace, clock=lambda: self.now, sleep=lambda pause_s: None)

    def set(self, now: float) -> None:
        self.now = now
        (self.place / "now").write_text(repr(now))

    def guard(self) -> Guard:
        return Guard(self.workspace, self.settings, _NAME, self.provider(), _Launcher(self), lambda machine: None,
                     clock=lambda: self.now)  # fmt: skip


class _Launcher:
    """The launcher as a process that has mostly ended before the guard looks again."""

    def __init__(self, world: _World) -> None:
        self._world, self._lock = world, launch_lock(world.workspace, _NAME)

    def start(self) -> None:
        world, child = self._world, os.fork()
        if child == 0:
            os.setsid()
            os.closerange(3, 1024)  # the answer of the tick that starts it is not its to hold open
            try:
                launch_now(world.workspace, world.settings, _NAME, world.provider())
            except UnderstudyError as error:
                _debug(error)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 5
        while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)

    def busy(self) -> bool:
        return holder(self._lock) is not None

    def kill(self) -> None:
        if (who := holder(self._lock)) is not None:
            os.killpg(int(str(who["pid"])), signal.SIGKILL)
            while self.busy():
                time.sleep(0.01)


def _live(world: _World, case: Case) -> None:
    """Ticks as the guard's own loop makes them; a guard that was killed is started when somebody comes by."""
    wake: float | None = _START
    memory: dict[str, Any] = {}
    while wake is not None and wake < _HORIZON:
        down = next((until for since, until in case.dead if _START + since <= wake < _START + until), None)
        if down is not None:
            wake, memory = _START + down + _BETWEEN_S, {}
            continue
        world.set(wake)
        said = in_child(lambda memory=memory: _tick(world, memory))
        memory = said["memory"] if said else {}  # a guard that is started again knows what the ledger knows
        pause = said["pause"] if said else _BETWEEN_S
        wake = None if pause is None else wake + max(1.0, pause)
    world.set(_HORIZON)


def _tick(world: _World, memory: dict[str, Any]) -> dict[str, Any]:
    """One tick of the guard that remembers so much, its pause as its own loop takes it."""
    guard = world.guard()
    vars(guard).update(memory)
    try:
        pause = guard.tick()
    except (UnderstudyError, OSError, ValueError) as error:
        pause = 30.0
        _debug(error)
    kept = {name: value for name, value in vars(guard).items() if isinstance(value, int | float)}
    return {"pause": pause, "memory": kept}


def in_child(work: Callable[[], dict[str, Any] | None]) -> Any:
    """What `work` returns, from a process of its own; None when it was killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            os.write(writing, json.dumps(work()).encode())
        except UnderstudyError as error:
            _debug(error)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def _debug(error: Exception) -> None:
    if "DEBUG" in os.environ:
        print(f"    {type(error).__name__}: {error}", file=sys.stderr)


@contextmanager
def fake_cloud(folder: Path, case: Case) -> Iterator[Path]:
    """`sky`, `ssh` and `rsync` of the fake first on the PATH."""
    place = folder / "bin"
    place.mkdir()
    script = Path(__file__).with_name("_fake_sky.py")
    for name in ("sky", "ssh", "rsync"):
        path = place / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {script} {name} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (place / "now").write_text(repr(_START))
    (place / "cloud.json").write_text(
        json.dumps({"clusters": [], "calls": {}, "machine": {**_MACHINE, **case.machine}})
    )
    (place / "faults.json").write_text(json.dumps(case.faults))
    before = dict(os.environ)
    os.environ.update(FAKE_SKY=str(place), PATH=f"{place}:{before['PATH']}")
    try:
        yield place
    finally:
        os.environ.clear()
        os.environ.update(before)


def _judge(world: _World, case: Case) -> dict[str, Any]:
    """The provider's bill against the budget and the ledger."""
    from benchmarks._fake_sky import advance

    clusters = json.loads((world.place / "cloud.json").read_text())["clusters"]
    bill, left = 0.0, 0
    for cluster in clusters:
        advance(cluster, _HORIZON)
        left += cluster["gone_at"] is None
        bill += (
            (min(cluster["gone_at"] or _HORIZON, _HORIZON) - cluster["created_at"]) / 3600 * cluster["hourly_usd"]
        )
    entry = Ledger(world.workspace).read(_NAME)
    return {
        "case": case.name,
        "machines": len(clusters),
        "bill_usd": round(bill, 4),
        "counted_usd": round(entry.cost_usd(_HORIZON), 4),
        "budget_usd": _BUDGET,
        "left": left,
        "over": bill > _BUDGET or left > 0,
        "closed": not entry.open,
        "ended_by": clusters[-1]["why"] if clusters else "never there",
    }


def _line(result: dict[str, Any]) -> str:
    state = "OVER" if result["over"] else "ok"
    page = "closed" if result["closed"] else "open"
    return (
        f"{state:<4}  {result['case']:<55} bill ${result['bill_usd']:.2f} of ${result['budget_usd']:.2f}"
        f"  counted ${result['counted_usd']:.2f}  {result['ended_by']:<12} page {page}"
    )


if __name__ == "__main__":
    sys.exit(main())
