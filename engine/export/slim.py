"""A net made smaller before it is exported: pruned, then fine-tuned. Each step is kept, and not done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.export.steps import Steps
from engine.export.subject import Subject, open_subject
from engine.store.workspace import Workspace

PRUNED = "pruned.pth"


@dataclass(frozen=True)
class Slimmer:
    """Makes the small net of a subject, in the folder that is exported to."""

    workspace: Workspace
    settings: Settings
    folder: Path
    steps: Steps
    say: Callable[[str], None]

    def pruned(self, subject: Subject) -> tuple[Subject, dict[str, Any]]:
        """The pruned and fine-tuned net, and what to say of it.

        Raises:
            UsageError: torch-pruning is missing, or there is no data to fine-tune on.
            Failed: this net cannot be pruned.
            Interrupted: stopped in the fine-tuning; called again it goes on.
        """
        export = self.settings.export
        key = {"release": subject.release.id, "sparsity": export.sparsity, "method": export.pruning_method}
        path = self.folder / PRUNED
        facts = self.steps.kept("prune", key, path)
        if facts is None:
            from engine.export.prune import prune

            facts = prune(subject, export.sparsity, path, structured=export.pruning_method == "structured")
            self.steps.done("prune", key, path, facts)
        before, after = facts["parameters"]
        gone = f"{export.sparsity:.0%} of the channels" if key["method"] == "structured" else "weights"
        self.say(f"pruned {gone}: {before:,} parameters, now {after:,}; {facts['zeros']:.0%} of them 0")
        facts = {**facts, "method": key["method"], "sparsity": export.sparsity}
        if key["method"] == "unstructured" and export.finetune_epochs:
            self.say("not fine-tuned: training would fill the zeros of single weights again")
        if key["method"] == "unstructured" or not export.finetune_epochs:
            return open_subject(self.workspace, self.settings, str(path)), facts
        found = self.finetuned("finetune", key, subject, path, quantization_aware=False)
        return found, {**facts, "finetuned_by": found.card["checkpoint"]["run"]}

    def aware(self, subject: Subject) -> Subject:
        """The net after quantisation-aware training.

        Raises:
            Failed, UsageError, Interrupted: as `pruned`.
        """
        from engine.export.retrain import as_checkpoint

        key = {"release": subject.release.id}
        path = self.folder / "before_qat.pth"
        if self.steps.kept("before_qat", key, path) is None:
            as_checkpoint(subject, path)
            self.steps.done("before_qat", key, path, {})
        return self.finetuned("qat", key, subject, path, quantization_aware=True)

    def finetuned(
        self, step: str, key: dict[str, Any], subject: Subject, checkpoint: Path, *, quantization_aware: bool
    ) -> Subject:
        """The release of a run that goes on from `checkpoint`; the run's name is kept before its first step."""
        from engine.export.retrain import finetune

        export = self.settings.export
        key = {**key, "epochs": export.finetune_epochs, "rate": export.finetune_rate}
        return finetune(
            self.workspace,
            self.settings,
            subject,
            checkpoint,
            self.steps.noted(step, key),
            lambda run: self.steps.note(step, key, run),
            self.say,
            quantization_aware=quantization_aware,
        )
