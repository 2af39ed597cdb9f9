"""What a kind of work brings to training: its data, nets, loss and metrics. Torch-free at import.

`engine.training` drives any object that fits `Task`; `engine.tasks.images` and `engine.tasks.go` make two.
Whatever a task does by chance is a function of (seed, epoch, index), so that a run resumes bit for bit.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engine.config import Settings

    Batch = tuple[Tensor, ...]


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Whole batches only: a last one of a single sample would spoil the batch norms."""
    return max(1, samples // batch_size)


class Tally(Protocol):
    """Gathers the answers to a validation part."""

    def add(self, outputs: Tensor, targets: Batch) -> None: ...

    def result(self) -> dict[str, Any]:
        """At least `accuracy`, `f1_macro` (fractions; F1 None where it means nothing) and `loss`."""
        ...


class Task(Protocol):
    """One task with its data read and checked.

    `name` is what a checkpoint's card says, `unit` what people count ("images"), `report` the data report,
    `fingerprint` names the data's exact content.
    """

    name: str
    unit: str
    classes: Sequence[str]
    report: dict[str, Any]
    fingerprint: str
    train_samples: int
    val_samples: int

    def default_epochs(self) -> int:
        """Passes over the training part where the settings name none."""
        ...

    def describe(self) -> str:
        """The data in a few words for people, e.g. "128 px, 10 classes"."""
        ...

    def build_model(self, *, pretrained: bool) -> nn.Module: ...

    def train_batches(self, epoch: int, batch_size: int, *, start: int, workers: int) -> Iterator[Batch]:
        """The epoch's batches from number `start` on, on the CPU; the first tensor's length is the batch's."""
        ...

    def val_batches(self, batch_size: int, *, workers: int) -> Iterator[Batch]: ...

    def prepare(self, batch: Batch, *, training: bool) -> tuple[Tensor, Batch]:
        """A batch on its device as the net's input, augmented when `training`, and the targets of each row."""
        ...

    def loss(self, outputs: Tensor, targets: Batch) -> Tensor:
        """Mean over the rows."""
        ...

    def tally(self) -> Tally: ...

    def card(self) -> dict[str, Any]:
        """What a release needs: `architecture`, `classes`, `preprocess`."""
        ...


def load_task(name: str, settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> Task:
    """Read and check the data of the task called `name` ("images", "go").

    Args:
        on_progress: told (done, all) while files are looked at; may raise to stop.

    Raises:
        UsageError: the data cannot be trained on.
    """
    module = importlib.import_module(f"engine.tasks.{name}.task")
    task: Task = module.load_task(settings, on_progress)
    return task
