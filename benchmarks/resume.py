"""Exact resume: so many runs, each ended by SIGKILL at random moments and gone on with; do all end in the same bytes?

    python -m benchmarks.resume [--json] [--kills 100] [--seed 0]

Each run is a small net (batch norm, dropout, AdamW) on the digits with augmentations, an average of the weights, a save every one to four steps
and none to two loader threads, drawn anew at each start. It is started as a fork of a process that has torch
loaded, killed once at a random moment of its life (the loading, a step, a save, the end), and resumed until it ends.
Its hash is over weights, their average and the optimiser; the target is one hash for all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks._commands import Commands
from engine.store.workspace import Workspace
from engine.training.runs import RunFolder, claim_run, read_metrics

# what a training imports by and by
MODULES = ("engine.cli.main", "engine.cli.train", "engine.training.train", "engine.training.fit_trace",
           "engine.tasks.images.kind", "engine.checkpoints.manager", "sklearn.datasets", "sympy",
           "torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")  # fmt: skip
WORDS = ("data.img_size=16", "data.val_fraction=0.85", "data.augment=document", "training.epochs=3",
         "training.ema_decay=0.9", "device.prefer=cpu", "training.seed=7", "model=benchmarks.resume:factory")  # fmt: skip


def factory(num_classes: int) -> Any:
    """A net of a few thousand weights with all that has a state: batch norm, dropout."""
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(16, 16, 3),
                         nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, num_classes))  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Kill and resume, print the count of hashes, and with --json one object `{"results": [...]}`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args(argv)
    stream = sys.stderr if arguments.json else sys.stdout
    draw = random.Random(arguments.seed)
    # a net this small gains nothing by threads, and loses much where they spin beside other work
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        commands = Commands("--workspace", folder, modules=MODULES)
        try:
            life, wanted = _undisturbed(commands, workspace)
            print(f"undisturbed: {life:.2f} s, {wanted}", file=stream, flush=True)
            hashes: Counter[str] = Counter()
            caught: Counter[str] = Counter()
            for number in range(1, arguments.kills + 1):
                hashes[_killed(commands, workspace, draw, life, caught)] += 1
                print(f"{number} kills, {len(hashes)} hashes; killed {_shown(caught)}", file=stream, flush=True)
        finally:
            commands.close()
    same = hashes[wanted]
    result: dict[str, Any] = {"name": "resume after SIGKILL", "kills": arguments.kills, "identical": same}
    result |= {"hashes": len(hashes | Counter([wanted])), "sha256": wanted, "target": arguments.kills}
    result |= {f"killed {where}": count for where, count in sorted(caught.items())}
    print(f"{same} of {arguments.kills} runs ended in the bytes of the undisturbed one", file=stream)
    if arguments.json:
        print(json.dumps({"results": [result]}))
    if same != arguments.kills:
        sys.exit(1)


def _undisturbed(commands: Commands, workspace: Workspace) -> tuple[float, str]:
    """How long a run takes, seconds, and the hash that it ends with."""
    for _ in range(2):  # the first is slower: pages and caches
        folder = claim_run(workspace)
        done = commands.run("train", "--claimed", folder.run, *WORDS, *_harmless(random.Random(1)))
        if done.code:
            sys.exit(f"the undisturbed run failed: {done.err}")
    return done.seconds, folder.read_manifest()["state_sha256"]


def _killed(
    commands: Commands, workspace: Workspace, draw: random.Random, life: float, caught: Counter[str]
) -> str:
    """The hash of one run that was killed once while it lived."""
    while True:
        folder = claim_run(workspace)
        words = ("train", "--claimed", folder.run, *WORDS, *_harmless(draw))
        done = commands.run(*words, kill_after_s=draw.uniform(0, life))
        if done.killed and folder.read_manifest().get("settings"):
            break  # else it was too early, before there was a run, or too late
    caught[_moment(folder)] += 1
    done = commands.run("train", "--resume", folder.run, *_harmless(draw))
    if done.code:
        sys.exit(f"run {folder.run} could not be resumed: {done.err}")
    return str(folder.read_manifest()["state_sha256"])


def _harmless(draw: random.Random) -> tuple[str, ...]:
    """Settings that must not change the end."""
    return f"training.save_every_steps={draw.randint(1, 4)}", f"training.num_workers={draw.randint(0, 2)}"


def _moment(folder: RunFolder) -> str:
    """Where the kill has caught the run, by what it left."""
    if list(folder.root.glob(".last*")) or (folder.previous.exists() and not folder.last.exists()):
        return "in a save"
    if not folder.last.exists():
        return "before the first state"
    done = len(read_metrics(folder))
    return f"in epoch {done + 1}" if f"training.epochs={done}" not in WORDS else "at the end"


def _shown(caught: Counter[str]) -> str:
    return ", ".join(f"{where}: {count}" for where, count in sorted(caught.items()))


if __name__ == "__main__":
    main()
