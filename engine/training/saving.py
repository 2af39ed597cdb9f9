"""What a run saves besides its resume state: the light best checkpoint, and interval checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.checkpoints.files import CARD
from engine.config import Settings
from engine.store.clock import timestamp
from engine.training.loop import Trainer
from engine.training.runs import RunFolder


def light_checkpoint(
    trainer: Trainer, settings: Settings, row: dict[str, Any], *, run: str, cycle: int | None
) -> dict[str, Any]:
    """Weights, epoch, accuracy, loss and the card that a release is made from; no optimiser.

    Args:
        row: the finished epoch's metrics.
    """
    task = trainer.task
    weights = {name: value.detach().to("cpu").contiguous() for name, value in trainer.judged.state_dict().items()}
    card = {
        "format": 1,
        "task": task.name,
        **task.card(),
        "cycle": cycle,
        "step": row["step"],
        "f1_macro": row["f1_macro"],
        "run": run,
        "seed": settings.training.seed,
        "data": {"fingerprint": task.fingerprint, "train": task.train_samples, "val": task.val_samples},
        "saved_at": timestamp(),
    }
    figures = {name: row[name] for name in ("epoch", "accuracy", "loss")}
    return {"model_state_dict": weights, **figures, CARD: card}


def save_interval(trainer: Trainer, settings: Settings, folder: RunFolder, cycle: int | None) -> Path:
    """An interval checkpoint `checkpoint_epoch10_step5000.pt` with its `.json`, in the run's folder and its mirror."""
    from engine.checkpoints import CheckpointManager

    training, place, best = settings.training, trainer.position, trainer.best or {}
    manager = CheckpointManager(
        folder.intervals,
        max_checkpoints=training.max_checkpoints,
        mirror=training.mirror / folder.run if training.mirror else None,
    )
    return manager.save_checkpoint(
        trainer.judged,
        trainer.optimizer,
        # an epoch that is just over has moved the position to the next one's start
        place.epoch + 1 if place.step else place.epoch,
        trainer.global_step,
        place.loss_sum / place.samples if place.samples else best.get("loss", 0.0),
        metrics={name: best[name] for name in ("accuracy", "f1_macro") if name in best},
        metadata={"run": folder.run, "cycle": cycle},
    )
