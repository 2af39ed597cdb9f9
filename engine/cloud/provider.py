"""What every provider of machines can do: SkyPilot's clouds and one's own server over SSH are two of a kind.

A job is a training; a machine is where it runs. The ledger (`engine.cloud.ledger`) remembers both, the guard
(`engine.cloud.guard`) sees to it that the machine ends with its budget, whatever else happens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from engine.errors import Failed

State = Literal["starting", "running", "preempted", "stopped", "gone", "unknown"]
PAID: frozenset[State] = frozenset(("starting", "running", "unknown"))  # states in which a machine costs money
"""A machine that nobody can ask about (`unknown`) is counted as running: the bill does not wait for the network."""

JobState = Literal["waiting", "running", "done", "failed", "none", "unknown"]


class StillRunning(Failed):
    """A machine was to be taken down and its provider does not say that it is gone."""

    default_kind = "still_running"

    def __init__(self, machine: str, why: str, how: str) -> None:
        super().__init__(f"'{machine}' is still running and costing money ({why})", how)


@dataclass(frozen=True)
class Job:
    """A training to be run on a machine that is not this one.

    Args:
        name: of the machine, the ledger entry and the cluster: a letter, then letters, digits and dashes.
        words: the engine's command line there, `("train", "training.epochs=5", ...)`, without workspace and config;
            a relative path in it is relative to the machine's root.
        code: the folder that is uploaded and installed (the project's root); what git ignores stays here.
        data: local files or folders that the run needs, each with its place under the machine's root.
        stop_at: seconds since the epoch at which the machine must have ended by itself (the dead man's timer),
            before the budget is spent; None: no budget, no timer.
        idle_minutes: how long it may have nothing to do before it ends by itself.
        resume: the run there that goes on, or None for a new one.
    """

    name: str
    words: tuple[str, ...]
    code: Path
    data: tuple[tuple[Path, str], ...] = ()
    stop_at: float | None = None
    idle_minutes: int = 10
    gpu: str | None = None  # as people write it: "RTX 4090"; None: whatever the machine has
    spot: bool = False
    max_hourly_usd: float | None = None
    budget_usd: float | None = None
    resume: str | None = None

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {
            "code": str(self.code),
            "words": list(self.words),
            "data": [[str(here), there] for here, there in self.data],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(
            **value
            | {
                "code": Path(value["code"]),
                "words": tuple(value["words"]),
                "data": tuple((Path(here), there) for here, there in value["data"]),
            }
        )


@dataclass(frozen=True)
class Machine:
    """A machine that a provider has made or taken.

    Args:
        address: what `ssh` and `sync` reach it by: an alias of `~/.ssh/config`, or a host name.
        root: its folder of ours; the workspace there is `ROOT/workspace`, the code `ROOT/code`.
        hourly_usd: what it costs while it is there, by its provider or the price table.
        facts: whatever the provider wants to remember (job id, region, pid), JSON.
    """

    name: str
    provider: str
    address: str
    root: str
    hourly_usd: float
    gpu: str | None = None
    spot: bool = False
    user: str | None = None
    port: int = 22
    key: str | None = None
    known_hosts: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(**value)

    def source_words(self) -> list[str]:
        """The settings that make `sync` look at this machine's checkpoints."""
        words = [
            "source.kind=ssh",
            f"source.host={self.address}",
            f"source.root={self.root}/workspace/checkpoints",
        ]
        places = (("user", self.user), ("key", self.key), ("known_hosts", self.known_hosts))
        words += [f"source.{name}={value}" for name, value in places if value]
        return words + ([f"source.port={self.port}"] if self.port != 22 else [])


@dataclass(frozen=True)
class MachineState:
    """A machine at one look.

    Args:
        state: `unknown` when it could not be asked; the reason says why.
        job: the training's state there.
        gpu_use: 0..1, of the busiest device; None where nobody could say.
        active_at: seconds since the epoch when something was last seen to work there; None: unknown.
        ended_at: seconds since the epoch at which it stopped costing money, where the machine itself knows.
        progress: the run's live progress (`engine.training.progress`), as far as it is known.
        hourly_usd: the provider's own price, where it says one and `machine.facts["priced"]` is not set yet.
    """

    state: State
    job: JobState = "unknown"
    reason: str = ""
    gpu_use: float | None = None
    gpu_memory_used_bytes: int | None = None
    gpu_memory_total_bytes: int | None = None
    active_at: float | None = None
    run: str | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    hourly_usd: float | None = None
    ended_at: float | None = None

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Outcome:
    """What a command on a machine said."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Check:
    """One thing that was looked at before anything is rented.

    Args:
        ok: None: nobody can say, or it may go wrong and is no reason to stay at home.
        fix: what to do where it is not.
        usage: it is a matter of the command line or the settings (exit code 2), not of the world.
        said: what the provider said, line by line.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""
    usage: bool = False
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Upload:
    """What would go there from `source`, to `place` below the machine's root; what lies there already stays home."""

    place: str
    source: Path
    files: int
    bytes: int


@dataclass(frozen=True)
class Rehearsed:
    """What a provider has to say of a job before it is launched: `gpu_bytes` of the GPU's memory, where known."""

    checks: tuple[Check, ...]
    uploads: tuple[Upload, ...]
    task: str | None = None
    gpu_bytes: int | None = None


class Provider(Protocol):
    """Machines of one kind. A method that cannot reach the provider raises `Failed`, but `status` says `unknown`."""

    name: str

    def ready(self) -> None:
        """Quick.

        Raises:
            UsageError: a tool that every launch needs is missing.
        """
        ...

    def check(self, job: Job) -> Job:
        """The job with what the provider adds to it (its highest hourly price), before anything is rented. Quick.

        Raises:
            UsageError: a setting is missing, no such GPU.
        """
        ...

    def rehearse(self, job: Job) -> Rehearsed:
        """Go through the launch of a checked job with its timer: nothing is rented, uploaded or written anywhere.

        What is in the way is a check that failed, not an error.
        """
        ...

    def expected(self, job: Job) -> Machine:
        """The machine of a checked job as far as it is known before it is there: enough to ask for it by `status`
        and to take it `down`, should `launch` never return. `hourly_usd` is the most that it may cost."""
        ...

    def launch(self, job: Job) -> Machine:
        """Get the machine (or take the one of this name that is there), upload, set up, start the job detached.

        It may be called again after any failure or a preemption: it finds what is there and goes on. The dead
        man's timer of `job.stop_at` is set on the machine before the job starts.

        Raises:
            UsageError: no such GPU, a price above `max_hourly_usd`, a setting that is missing.
            Failed: the provider or the machine refused or was not reached; whatever was made may still be there.
        """
        ...

    def status(self, machine: Machine) -> MachineState:
        """Ask once, with a deadline; never raises for a network, a machine or an API."""
        ...

    def run(self, machine: Machine, command: Sequence[str], timeout_s: float = 60.0) -> Outcome:
        """Run one command there and wait for it.

        Raises:
            Failed: not reached, or not done in time.
        """
        ...

    def logs(self, machine: Machine, follow: bool = False) -> Iterator[str]:
        """The training's log, line by line; `follow`: until it ends."""
        ...

    def bring_home(self, machine: Machine, into: Path) -> None:
        """Copy the runs' folders (manifest, metrics, resume states) of the machine's workspace into `into`, so
        that they outlive it: only what changed, each file whole or not at all.

        Raises:
            Failed: not reached.
        """
        ...

    def stop(self, machine: Machine) -> None:
        """Stop the job as a person's Ctrl-C would, so that it can be resumed; wait for its end.

        Raises:
            Failed: not reached, or it does not end.
        """
        ...

    def down(self, machine: Machine) -> None:
        """Give the machine back, checked: ask again until its provider says that it is gone. Gone already is done.

        Raises:
            StillRunning: it is not, or nobody could be asked.
        """
        ...
