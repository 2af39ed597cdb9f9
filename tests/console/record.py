"""Writes the recordings of this folder, by the protocol: `python -m tests.console.record`.

`evening`: a GPU host that trains, a laptop that serves, a comparison that is not decided yet. `busy`: one moment
of a full house: eight GPUs, two trainings, a comparison under way, a promotion that is watched, long lists.
Nothing here is measured; it is a script for drawing and testing the console, made of `scenes`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.protocol import (
    Ab,
    Bake,
    Best,
    Checkpoints,
    Data,
    Devices,
    Events,
    Gate,
    Health,
    LastSync,
    Message,
    Next,
    Progress,
    Run,
    Runs,
    Slot,
    Slots,
    encode,
)  # fmt: skip
from tests.console.scenes import (
    GATE,
    GPU,
    HOME,
    OLD,
    asking,
    checkpoints,
    comparison,
    crowded,
    events,
    farm,
    gpu_host,
    health,
    iso,
    laptop,
    many_checkpoints,
    points,
    progress,
    runs,
    slots,
)

FOLDER = Path(__file__).parent / "recordings"


class Script:
    """The lines of one recording, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, at: float, host: str, kind: str, data: Data) -> None:
        message = Message(v=1, seq=len(self.lines) + 1, at=iso(at), host=host, kind=kind, data=data)
        self.lines.append(encode(message))

    def write(self, name: str) -> None:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / name).write_text("\n".join(self.lines) + "\n", encoding="utf-8")


def evening(seconds: int = 120) -> Script:
    script = Script()
    for at in range(seconds):
        script.say(at, GPU, "devices", gpu_host(at))
        script.say(at, HOME, "devices", laptop(at))
        script.say(at, HOME, "progress", progress(at))
        if at % 30 == 0:
            script.say(at, HOME, "slots", slots(at))
            script.say(at, HOME, "runs", runs())
            script.say(at, HOME, "checkpoints", checkpoints())
            script.say(at, HOME, "ab", Ab(comparison=comparison(), gate=GATE, total=14))
            script.say(at, HOME, "events", events(at))
            script.say(at, HOME, "health", health(at))
        elif at % 2 == 0:
            script.say(at, HOME, "slots", slots(at))
    return script


def trouble() -> Script:
    """A slot that is down, a GPU host that does not answer, a run that failed, an AS-IS that wins."""
    script = Script()
    alarm = Bake(release=OLD, replaced="7d10a9be" + "2" * 56, since=iso(-1500), until=iso(300), state="alarm", requests=61_480,
                 errors=212, reason="0.34% of its answers are errors, 0.01% of those before it")  # fmt: skip
    script.say(0, HOME, "slots", slots(0, "down", alarm))
    host = gpu_host(0)
    old = Devices(name=host.name, devices=host.devices, state="offline", since=iso(-90), problem="ssh: connection timed out",
                  memory_total_bytes=host.memory_total_bytes, memory_available_bytes=host.memory_available_bytes)  # fmt: skip
    script.say(0, GPU, "devices", old)
    script.say(0, HOME, "devices", laptop(0))
    script.say(0, HOME, "runs", Runs(runs=[Run(run="0043", status="failed", problem="out of memory")], total=43))
    script.say(0, HOME, "checkpoints", checkpoints())
    gate = Gate(open=False, reason="AS-IS or TO-BE has changed since they were compared")
    script.say(0, HOME, "ab", Ab(comparison=comparison(current=False), gate=gate, total=14))
    script.say(0, HOME, "events", events(0))
    story = health(0, "offline")
    script.say(0, HOME, "health", Health(
        sources=story.sources, gate=gate, next=Next(action="look", text="look at TO-BE: it is down"),
        last_sync=LastSync(at=iso(-5000), error="the source does not answer"), missed_looks=2, poll_s=1800.0,
        alerts=["AS-IS answers with errors: roll back", "the source has not answered for an hour"],
    ))  # fmt: skip
    return script


def busy() -> Script:
    script = Script()
    bake = Bake(
        release=OLD, replaced="7d10a9be" + "2" * 56, since=iso(-1080), until=iso(720), requests=44_870, errors=3
    )
    second = replace(progress(0).runs[0], run="0043", status="running", device="cuda", epoch=4, epochs=20, step=80, steps=312,
                     points=points(3), points_total=3, loss=1.41, accuracy=0.41, best=Best(epoch=3, accuracy=0.41), eta_s=740.0)  # fmt: skip
    script.say(0, HOME, "slots", slots(0, "live", bake))
    for at in range(0, 61, 3):
        script.say(at, HOME, "devices", laptop(at))
        script.say(at, "farm", "devices", farm(at))
    script.say(60, HOME, "slots", slots(60, "live", bake))
    script.say(
        60,
        HOME,
        "runs",
        replace(
            runs(),
            runs=[Run(run="0043", status="running", model="vit_tiny", device="cuda", epochs=20), *runs().runs],
            total=43,
        ),
    )
    script.say(60, HOME, "progress", Progress(runs=[second, progress(60).runs[0]], total=2))
    script.say(60, HOME, "checkpoints", replace(many_checkpoints(200), analysis=crowded()))
    script.say(60, HOME, "ab", Ab(comparison=asking(60), gate=GATE, total=15))
    script.say(60, HOME, "events", events(60))
    script.say(60, HOME, "health", health(60))
    return script


def empty() -> Script:
    """A fresh workspace: nothing trained, nothing served."""
    script = Script()
    nothing = Slots(asis=Slot(port=8891, state="empty"), tobe=Slot(port=8892, state="empty"))
    script.say(0, HOME, "devices", laptop(0))
    script.say(0, HOME, "slots", nothing)
    script.say(0, HOME, "runs", Runs())
    script.say(0, HOME, "progress", Progress())
    script.say(0, HOME, "checkpoints", Checkpoints())
    gate = Gate(open=False, reason="nothing has been compared yet")
    script.say(0, HOME, "ab", Ab(gate=gate))
    script.say(0, HOME, "events", Events())
    script.say(0, HOME, "health", Health(gate=gate, next=Next(action="train", text="train a first model")))
    return script


if __name__ == "__main__":
    evening().write("evening.jsonl")
    trouble().write("trouble.jsonl")
    empty().write("empty.jsonl")
    busy().write("busy.jsonl")
