"""Runs that mend a net: fine-tuning after pruning, and quantisation-aware training. Imports torch.

They are ordinary runs of the workspace: the console shows them, a kill loses nothing, and `finetune` called again
goes on with the run it began.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.config.schema import Data, Go, Training
from engine.errors import Failed, UsageError
from engine.export.prune import bare, card_of, save_net
from engine.export.subject import Subject, open_subject
from engine.store.workspace import Workspace
from engine.training.runs import RunFolder, claim_run, find_run
from engine.training.train import train


def finetuning_settings(
    workspace: Workspace, settings: Settings, subject: Subject, card: dict[str, Any], *, quantization_aware: bool
) -> Settings:
    """The settings of the run that made the checkpoint, where this workspace has it, else the present ones; with
    fewer epochs, a lower rate, and the architecture of `card`.

    Raises:
        UsageError: that run's folder is damaged.
    """
    found = settings.model_copy(deep=True)
    run = subject.card["checkpoint"]["run"]
    kept: dict[str, Any] = {}
    if run:
        try:
            kept = find_run(workspace, run).read_manifest().get("settings") or {}
        except UsageError:
            kept = {}  # trained elsewhere: the data of the present settings is what there is
    if kept:
        found.data = Data.model_validate(kept["data"])
        found.training = Training.model_validate(kept["training"])
        found.go = Go.model_validate(kept["go"])
    architecture, preprocess = card["architecture"], card["preprocess"]
    found.model = found.model.model_copy(
        update={"name": architecture["name"], "settings": dict(architecture["settings"]), "pretrained": False}
    )
    for name in ("img_size", "resize", "mean", "std"):
        if name in preprocess:
            setattr(found.data, name, preprocess[name])
    training = found.training
    training.epochs = settings.export.finetune_epochs
    training.learning_rate *= settings.export.finetune_rate
    training.cycle, training.quantization_aware = None, quantization_aware
    return found


def as_checkpoint(subject: Subject, path: Path) -> None:
    """The subject's weights as a checkpoint that a run begins with."""
    save_net(bare(subject), subject, card_of(subject), path)


def finetune(
    workspace: Workspace,
    settings: Settings,
    subject: Subject,
    checkpoint: Path,
    begun: str | None,
    note: Callable[[str], None],
    say: Callable[[str], None],
    *,
    quantization_aware: bool = False,
) -> Subject:
    """Train on from `checkpoint`, or go on with the run `begun`; the release of its best epoch.

    Args:
        subject: what the checkpoint was made from: the same task and classes.
        note: told the run's name before its first step.

    Raises:
        UsageError: the data cannot be trained on.
        Interrupted: stopped; called again it goes on.
        Failed: diverged, or the data has other classes.
    """
    from engine.checkpoints.files import CARD, load_checkpoint_file

    folder = _begun(workspace, begun)
    if folder is None:
        folder = claim_run(workspace)
        note(folder.run)
    manifest = folder.read_manifest()
    if manifest.get("status") != "completed":
        card = load_checkpoint_file(checkpoint)[CARD]
        wanted = finetuning_settings(workspace, settings, subject, card, quantization_aware=quantization_aware)
        manifest = train(
            workspace,
            wanted,
            folder,
            task=subject.card["task"],
            start_from=str(checkpoint),
            say=say,
            publish=False,
            keep_folder=True,
        )
    found = open_subject(workspace, settings, str(manifest["checkpoint"]))
    if found.card["classes"] != subject.card["classes"]:
        raise Failed(
            "the data of the fine-tuning has other classes than the model",
            "name its own data: data=folder data.root=DIR",
            kind="other_classes",
        )
    return found


def _begun(workspace: Workspace, run: str | None) -> RunFolder | None:
    if run is None:
        return None
    try:
        folder = find_run(workspace, run)
    except UsageError:
        return None  # somebody removed it: a new one is begun
    return None if folder.read_manifest().get("status") == "failed" else folder
