"""`last.pth`: everything that the rest of a run depends on."""

from __future__ import annotations

from typing import Any

import torch

from engine.checkpoints.files import load_checkpoint_file, save_checkpoint_file
from engine.errors import Failed
from engine.store.clock import timestamp
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
        "model_state_dict": trainer.model.state_dict(),
        "ema_state_dict": trainer.averaged.state_dict() if trainer.averaged else None,
        "optimizer_state_dict": trainer.optimizer.state_dict(),
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
        "fingerprint": trainer.task.fingerprint,
        "saved_at": timestamp(),
    }
    save_checkpoint_file(folder.last, state)


def load_state(folder: RunFolder) -> dict[str, Any] | None:
    """The run's resume state, or None when it was stopped before its first."""
    try:
        state = load_checkpoint_file(folder.last)
    except FileNotFoundError:
        return None
    if state.get("format") != FORMAT:
        raise Failed(f"{folder.last} is of another version of Understudy", "start a new run", kind="bad_state")
    return state


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
