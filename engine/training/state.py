"""The resume state: everything that the rest of a run depends on, in `last.pth`, and the one before in `previous.pth`.

`last.json` beside them holds their SHA-256. It is written before a new state takes its name, with the hash that is
to come, so that each file is at every moment one that it names: one that is not was damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch

from engine.checkpoints.files import load_checkpoint_file, save_checkpoint_file
from engine.errors import Failed
from engine.store.clock import timestamp
from engine.store.files import fsync_folder, read_json, sha256_file, write_json
from engine.training.loop import Position, Trainer
from engine.training.runs import RunFolder

FORMAT = 1


def save_state(folder: RunFolder, trainer: Trainer, elapsed_s: float) -> None:
    """Write the resume state, whole or not at all.

    Randomness needs no state: it is a function of the seed and the position.
    """
    place = trainer.position
    state: dict[str, Any] = {
        "format": FORMAT,
        "run": folder.run,
        **weighed(trainer),
        "scaler_state_dict": trainer.scaler.state_dict(),
        "epoch": place.epoch,
        "step": place.step,
        "loss_sum": place.loss_sum,
        "samples": place.samples,
        "best": trainer.best,
        "micro_batch": trainer.micro_batch,
        "val_batch": trainer.val_batch,
        "elapsed_s": elapsed_s,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "device": trainer.device,
        "processes": trainer.group.size,
        "fingerprint": trainer.task.fingerprint,
        "saved_at": timestamp(),
    }
    scratch = folder.last.with_name(".last.new.part")
    digest = save_checkpoint_file(scratch, state)
    entry = {"sha256": digest.sha256, "bytes": digest.bytes, "epoch": state["epoch"], "step": state["step"]}
    write_json(folder.sidecar, [entry | {"saved_at": state["saved_at"]}, *_known(folder)[:3]])
    if folder.last.exists():
        folder.last.replace(folder.previous)
    scratch.replace(folder.last)
    fsync_folder(folder.root)


def weighed(trainer: Trainer) -> dict[str, Any]:
    """What two equal runs have in common at their end."""
    return {
        "model_state_dict": trainer.model.state_dict(),
        "ema_state_dict": trainer.averaged.state_dict() if trainer.averaged else None,
        "optimizer_state_dict": trainer.optimizer.state_dict(),
    }


def load_state(folder: RunFolder, say: Callable[[str], None] = lambda line: None) -> dict[str, Any] | None:
    """The run's newest whole resume state, or None when it was stopped before its first.

    Args:
        say: told of a damaged file that was passed over.

    Raises:
        Failed: there are states, and none is whole; or it is of another version.
    """
    known = {entry["sha256"] for entry in _known(folder)}
    damaged: list[Failed] = []
    for path in (folder.last, folder.previous):
        try:
            if known and sha256_file(path) not in known:
                raise Failed(f"{path} is not what was saved", "restore it, or train again", kind="damaged")
            state = load_checkpoint_file(path)
        except FileNotFoundError:
            continue
        except Failed as error:
            damaged.append(error)
            continue
        if state.get("format") != FORMAT:
            raise Failed(f"{path} is of another version of Understudy", "start a new run", kind="bad_state")
        for one in damaged:
            say(f"warning: {one.message}: going on from the state before it, epoch {state['epoch'] + 1},"
                f" step {state['step']}")  # fmt: skip
        return state
    if damaged:
        raise damaged[0]
    return None


def state_digest(state: dict[str, Any]) -> str:
    """SHA-256 (hex) of a state's weights, their average and the optimiser: equal for equal ends of two runs."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            tensor = value.detach().to("cpu").contiguous()
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, dict):
            for name, one in value.items():
                digest.update(str(name).encode())
                add(one)
        elif isinstance(value, list | tuple):
            for one in value:
                add(one)
        else:
            digest.update(repr(value).encode())

    for name in ("model_state_dict", "ema_state_dict", "optimizer_state_dict"):
        add(state[name])
    return digest.hexdigest()


def _known(folder: RunFolder) -> list[dict[str, Any]]:
    """What the sidecar says of the files, newest first; nothing where it is missing or damaged itself."""
    try:
        return list(read_json(folder.sidecar) or [])
    except Failed:
        return []


def restore(trainer: Trainer, state: dict[str, Any]) -> None:
    """Put a trainer where `state` was saved."""
    trainer.model.load_state_dict(state["model_state_dict"])
    if trainer.averaged and state["ema_state_dict"]:
        trainer.averaged.load_state_dict(state["ema_state_dict"])
    trainer.optimizer.load_state_dict(state["optimizer_state_dict"])
    trainer.scaler.load_state_dict(state["scaler_state_dict"])
    trainer.position = Position(state["epoch"], state["step"], state["loss_sum"], state["samples"])
    trainer.best = state["best"]
    trainer.micro_batch = trainer.progress.micro_batch = state.get("micro_batch", trainer.micro_batch)
    trainer.val_batch = state.get("val_batch")
    trainer.progress.accuracy = state["best"]["accuracy"] if state["best"] else None
