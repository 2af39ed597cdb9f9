"""Cycle folders, `checkpoints_cycleN/`: claiming a number, and putting a best checkpoint there."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

from engine.checkpoints.files import CARD, load_checkpoint_file, save_checkpoint_file
from engine.errors import Failed, UsageError
from engine.store.locks import hold

_FOLDER = re.compile(r"^checkpoints_cycle(\d+)$")


def claim_cycle(root: Path, wanted: int | None) -> tuple[int, bool]:
    """The cycle to write to, and whether its folder was made here.

    Args:
        root: the checkpoints' root.
        wanted: a number, or None for the next free one; `mkdir` decides between two runs that start at once.

    Raises:
        UsageError: the root cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        if wanted is not None:
            made = not cycle_folder(root, wanted).is_dir()
            cycle_folder(root, wanted).mkdir(exist_ok=True)
            return wanted, made
        taken = [int(found[1]) for path in root.iterdir() if (found := _FOLDER.match(path.name))]
        number = max(taken, default=0) + 1
        while True:
            try:
                cycle_folder(root, number).mkdir()
                return number, True
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UsageError(
            f"cannot make a cycle folder in {root} ({error.strerror})", "check checkpoints.root", kind="no_rights"
        ) from None


def give_back(root: Path, cycle: int) -> None:
    """Remove a claimed folder that nothing was saved to."""
    with contextlib.suppress(OSError):
        cycle_folder(root, cycle).rmdir()


def cycle_folder(root: Path, cycle: int) -> Path:
    return root / f"checkpoints_cycle{cycle}"


def best_path(root: Path, cycle: int) -> Path:
    return cycle_folder(root, cycle) / f"best_model_cycle{cycle}.pth"


def save_best(root: Path, cycle: int, state: dict[str, Any], *, overwrite: bool) -> str | None:
    """Put a best checkpoint into its cycle, unless another run's better one is there.

    Returns:
        None when it was saved, else a sentence that says why what is there stays.
    """
    path = best_path(root, cycle)
    with hold(root / f".checkpoints_cycle{cycle}.lock", f"save the best of cycle {cycle}", wait=True):
        for left in path.parent.glob(f".{path.name}.*.part"):  # by a process that was killed in a save
            left.unlink(missing_ok=True)
        if not overwrite and (reason := _stays(path, state)):
            return reason
        save_checkpoint_file(path, state)
    return None


def _stays(path: Path, state: dict[str, Any]) -> str | None:
    names = (path.name, "best_model.pth", "LiteCNNPro_best.pth")
    for there in (path.with_name(name) for name in names):
        if not there.exists():
            continue
        try:
            held = load_checkpoint_file(there)
        except Failed:
            return f"{there} cannot be read, so nobody knows whether it is better"
        card = held.get(CARD)
        if isinstance(card, dict) and card.get("run") == state[CARD]["run"]:
            continue  # this run's own, from an earlier epoch
        accuracy = held.get("accuracy")
        if not isinstance(accuracy, int | float):
            return f"{there} does not say its accuracy, so nobody knows whether it is better"
        accuracy = accuracy / 100 if accuracy > 1 else accuracy
        if accuracy >= state["accuracy"]:
            return f"{there} has {accuracy:.2%}, this run {state['accuracy']:.2%}"
    return None
