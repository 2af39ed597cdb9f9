"""What a kind of work brings to training: its data, nets, loss and metrics. Torch-free at import.

`engine.training` drives any object that fits `Task`. A `Kind` makes one, the net of a card, and the `Medium` that
admission, serving and comparison use: `engine.tasks.images.kind`, `engine.tasks.go.kind`, `engine.tasks.motion.kind`, or anybody's own by
`module:factory` (docs/tasks.md).
Whatever a task does by chance is a function of (seed, epoch, index), so that a run resumes bit for bit.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import UsageError
from engine.tasks.medium import Medium

if TYPE_CHECKING:
    from torch import Tensor, nn

    from engine.config import Settings

    Batch = tuple[Tensor, ...]


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Whole batches only: a last one of a single sample would spoil the batch norms."""
    return max(1, samples // batch_size)


def share(rows: int, number: int, parts: int) -> slice:
    """Part `number` of so many rows: equal parts, the first ones a row larger where it does not divide."""
    each, more = divmod(rows, parts)
    start = number * each + min(number, more)
    return slice(start, start + each + (number < more))


class Tally(Protocol):
    """Gathers the answers to a validation part."""

    def add(self, outputs: Tensor, targets: Batch) -> None: ...

    def result(self) -> dict[str, Any]:
        """At least `accuracy`, `f1_macro` (fractions; F1 None where it means nothing) and `loss`."""
        ...


class Task(Protocol):
    """One task with its data read and checked.

    `name` is what a checkpoint's card says (`load_task` sets it), `unit` what people count ("images"), `report` the data report,
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


class Kind(Protocol):
    """A kind of work. A card holds `architecture`, `classes` and `preprocess`, as `Task.card` wrote them.

    `medium` and `net` see cards that strangers may have written: both raise ValueError, KeyError or TypeError for
    one that makes no sense. Only `load` and `net` may need torch: a slot on ONNX Runtime calls `medium` alone.
    """

    def load(self, settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> Task:
        """Read and check the data; UsageError where it cannot be trained on."""
        ...

    def medium(self, card: dict[str, Any]) -> Medium: ...

    def net(self, card: dict[str, Any]) -> nn.Module:
        """The net with weights that do not matter: float32 [N, *shape] to logits or values, one row an input."""
        ...


BUILT_IN = ("images", "go", "motion")


def load_kind(name: str, trusted: str | None = None) -> Kind:
    """The kind of work called `name`: a built-in one, or `module:factory`, called without arguments.

    Args:
        trusted: the one name of code of one's own that may be imported, as this host's setting `task` has it;
            None trusts `name`, for what this host's settings name themselves.

    Raises:
        UsageError: unknown, not trusted, or it cannot be imported.
    """
    if name in BUILT_IN:
        kind: Kind = importlib.import_module(f"engine.tasks.{name}.kind")
        return kind
    if ":" not in name:
        raise UsageError(
            f"unknown task '{name}'", f"name {' or '.join(BUILT_IN)}, or module:factory", kind="unknown_task"
        )
    if trusted is not None and name != trusted:
        raise UsageError(
            f"the task '{name}' is code that this host does not trust",
            f'set task = "{name}" if that code is yours',
            kind="untrusted_task",
        )
    factory = import_named(name, "task")
    try:
        made: Kind = factory()
    except Exception as error:
        raise UsageError(
            f"the task {name} cannot be made ({type(error).__name__}: {error})",
            "its factory is called without arguments: see docs/tasks.md",
            kind="bad_task",
        ) from error
    lacking = [part for part in ("load", "medium", "net") if not callable(getattr(made, part, None))]
    if lacking:
        raise UsageError(f"the task {name} has no '{lacking[0]}'", "see docs/tasks.md", kind="bad_task")
    return made


def import_named(name: str, what: str) -> Any:
    """The object that `module:attribute` names.

    Args:
        what: the setting that it was given as, for errors.

    Raises:
        UsageError: no such module or attribute, or the module fails.
    """
    module_name, _, attribute = name.partition(":")
    hint = f"write {what}=module:factory with a module that Python can import (see PYTHONPATH)"
    if not module_name or not attribute:
        raise UsageError(f"'{name}' is not module:factory", hint, kind=f"unknown_{what}")
    if not sys.flags.safe_path and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))  # as `python -m` has it; an installed command has not
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"cannot import '{module_name}' of {what} {name} ({type(error).__name__}: {error})",
            hint,
            kind=f"unknown_{what}",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"module '{module_name}' has no '{attribute}'", hint, kind=f"unknown_{what}")
        found = getattr(found, part)
    return found


def load_task(name: str, settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> Task:
    """Read and check the data of the task called `name` ("images", "go", or `module:factory`).

    Args:
        on_progress: told (done, all) while files are looked at; may raise to stop.

    Raises:
        UsageError: the data cannot be trained on.
    """
    task = load_kind(name).load(settings, on_progress)
    task.name = name
    return task


def load_medium(card: dict[str, Any], trusted: str) -> Medium:
    """The medium of a release's manifest or of a card: `task` (else images), `classes`, `preprocess`.

    Raises:
        UsageError: as `load_kind`.
        ValueError, KeyError, TypeError: a card that makes no sense.
    """
    return load_kind(card.get("task") or "images", trusted).medium(card)
