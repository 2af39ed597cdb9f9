"""A task of one's own in one file: a small object detector. Train it with `task=examples.detector:Detector`.

Its data are rendered shapes, or a folder of one's own (`data.root`): each image with a JSON beside it,
`[{"label": "circle", "box": [x0, y0, x1, y1]}, ...]`, box sides as fractions of the image. The net gives an 8×8 grid;
a cell holds one object at most (Redmon et al. 2016, arXiv:1506.02640, without anchors). docs/tasks.md explains each part.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from engine.config import Settings
from engine.errors import UsageError
from engine.tasks.images.medium import ImageInput
from engine.tasks.images.preprocess import Preprocess
from engine.tasks.labelled import Labelled, LabelledSet
from engine.tasks.medium import Answer, Output, as_answer
from engine.tasks.report import KINDS

if TYPE_CHECKING:
    from torch import Tensor, nn

SHAPES = ("circle", "square", "triangle")
SIDE, GRID = 64, 8
TRAIN, VAL, COMPARE = 2000, 400, 400  # rendered images of each part
SURE, SAME = 0.5, 0.5  # least confidence of an object; overlap (IoU) from which two boxes are the same
NORMAL = {"img_size": SIDE, "resize": "squash", "mean": [0.5] * 3, "std": [0.25] * 3}


class Object(NamedTuple):
    """What is where: the number of its class, and its box as fractions of the image."""

    kind: int
    x0: float
    y0: float
    x1: float
    y1: float


class Detector:
    """The kind of work; see `engine.tasks.task.Kind`."""

    def load(self, settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> DetectorTask:
        return DetectorTask(settings)

    def medium(self, card: dict[str, Any]) -> DetectorMedium:
        return DetectorMedium(Preprocess.from_dict(card["preprocess"]), list(card["classes"]))

    def net(self, card: dict[str, Any]) -> nn.Module:
        """float32 [N, 3, 64, 64] to values [N, 5 + classes, 8, 8]."""
        from torch import nn

        width, layers = int(card["architecture"]["settings"].get("width", 32)), []
        for source, target, stride in ((3, width, 2), (width, width, 1), (width, 2 * width, 2),
                                       (2 * width, 2 * width, 1), (2 * width, 4 * width, 2), (4 * width, 4 * width, 1)):  # fmt: skip
            layers += [nn.Conv2d(source, target, 3, stride, 1, bias=False), nn.BatchNorm2d(target), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(4 * width, 5 + len(card["classes"]), 1))


class DetectorMedium(ImageInput):
    """An image in, boxes out; `decode` and the golden images are those of any task on images."""

    output: Output = "values"

    def __init__(self, preprocess: Preprocess, classes: Sequence[str]) -> None:
        super().__init__(preprocess)
        self.classes = classes
        self.output_shape = (5 + len(classes), GRID, GRID)
        side = {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
        one = {"label": {"type": "string"}, "confidence": {"type": "number"}, "box": side}
        self.answer_schema: dict[str, Any] = {
            "boxes": {"type": "array", "items": {"type": "object", "properties": one}}
        }

    def answer(self, row: np.ndarray, given: np.ndarray, top_k: int) -> Answer:
        """All boxes, the surest first; `label` counts them, `index` and `confidence` are the surest's."""
        found = objects_of(row)
        boxes = [
            {
                "label": self.classes[one.kind],
                "confidence": round(sure, 4),
                "box": [round(side, 4) for side in one[1:]],
            }
            for sure, one in found
        ]
        counts = Counter(self.classes[one.kind] for _, one in found)
        label = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing"
        best, sure = (found[0][1][0], found[0][0]) if found else (-1, 1 - float(_sigmoid(row[0]).max()))
        return as_answer(label, best, sure, boxes=boxes)

    def labelled(self, settings: Settings, data: Path | None, seed: int) -> LabelledSet:
        root = data or settings.ab.data
        if root is None:
            made = (render(3, index) for index in range(COMPARE))
            items = [
                _item(f"shape {index}", _png(image), None, truth) for index, (image, truth) in enumerate(made)
            ]
            return LabelledSet("rendered shapes", "rendered shapes that no training saw", items, classes=False)
        found = read_folder(root, self.classes)
        items = [_item(str(path.relative_to(root)), None, path, truth) for path, truth in found]
        return LabelledSet(str(root.resolve()), str(root), items, classes=False)

    def is_right(self, answer: dict[str, Any], item: Labelled) -> bool:
        """Whether every object was found, as what it is and where, and nothing else was."""
        found = [Object(self.classes.index(one["label"]), *one["box"]) for one in answer["boxes"]]
        return matched(found, item.truth) == len(found) == len(item.truth)


class DetectorTask:
    """What training drives; see `engine.tasks.task.Task`."""

    name = "examples.detector:Detector"
    unit = "images"

    def __init__(self, settings: Settings) -> None:
        self._settings, self._seed = settings, settings.training.seed & 0xFFFFFFFF
        self._preprocess = Preprocess.from_dict(NORMAL)
        self.classes: Sequence[str] = SHAPES
        if settings.data.root is None:
            train, val = (
                [render(part, index) for index in range(count)] for part, count in ((1, TRAIN), (2, VAL))
            )
        else:
            found = read_folder(settings.data.root)
            self.classes = sorted({one[0] for _, truth in found for one in truth})
            pairs = [
                (
                    self._preprocess.pixels(path.read_bytes()),
                    [Object(self.classes.index(name), *box) for name, *box in truth],
                )
                for path, truth in found
            ]
            count = max(1, round(len(pairs) * settings.data.val_fraction))
            order = np.random.default_rng(self._seed).permutation(len(pairs)).tolist()
            val, train = ([pairs[index] for index in part] for part in (order[:count], order[count:]))
        self._train, self._val = _arrays(train, len(self.classes)), _arrays(val, len(self.classes))
        self.train_samples, self.val_samples = len(train), len(val)
        self.fingerprint = hashlib.sha256(
            b"".join(part.tobytes() for part in (*self._train, *self._val))
        ).hexdigest()
        checked = len(train) + len(val)
        self.report: dict[str, Any] = {
            "checked": checked,
            "ok": checked,
            "warnings": [],
            "fingerprint": self.fingerprint,
        }
        self.report |= {kind: [] for kind in KINDS}

    def default_epochs(self) -> int:
        return 12

    def describe(self) -> str:
        return f"{len(self.classes)} classes of objects, {SIDE} px"

    def build_model(self, *, pretrained: bool) -> nn.Module:
        return Detector().net(self.card())

    def train_batches(
        self, epoch: int, batch_size: int, *, start: int, workers: int
    ) -> Iterator[tuple[Tensor, ...]]:
        """Whole batches of pixels uint8 [B, S, S, 3] and targets float32 [B, G, G, 6], in the epoch's order."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self.train_samples)
        for step in range(start, self.train_samples // batch_size or 1):
            yield _tensors(self._train, order[step * batch_size : (step + 1) * batch_size])

    def val_batches(self, batch_size: int, *, workers: int) -> Iterator[tuple[Tensor, ...]]:
        for first in range(0, self.val_samples, batch_size):
            yield _tensors(self._val, np.arange(first, min(first + batch_size, self.val_samples)))

    def prepare(self, batch: tuple[Tensor, ...], *, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        pixels, targets = batch
        return (pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25, (targets,)

    def loss(self, outputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Objectness everywhere; place, size and class where an object is."""
        from torch.nn import functional as F

        wanted = targets[0]
        here = wanted[..., 0] > 0
        cells = outputs.permute(0, 2, 3, 1)
        objectness = F.binary_cross_entropy_with_logits(cells[..., 0], wanted[..., 0])
        inside, truth = cells[here], wanted[here]
        if not len(inside):
            return objectness
        boxes = F.l1_loss(inside[:, 1:5].sigmoid(), truth[:, 1:5])
        return 5 * objectness + 5 * boxes + F.cross_entropy(inside[:, 5:], truth[:, 5].long())

    def tally(self) -> DetectorTally:
        return DetectorTally(self)

    def card(self) -> dict[str, Any]:
        architecture = {"name": "grid", "settings": dict(self._settings.model.settings)}
        return {"architecture": architecture, "classes": list(self.classes), "preprocess": NORMAL}


class DetectorTally:
    """Objects found, wanted and matched (F1 at IoU 0.5, by class), and images that are wholly right."""

    def __init__(self, task: DetectorTask) -> None:
        self._task, self._loss, self._right, self._images = task, 0.0, 0, 0
        self._counts = np.zeros((len(task.classes), 3))

    def add(self, outputs: Tensor, targets: tuple[Tensor, ...]) -> None:
        self._loss += float(self._task.loss(outputs.float(), targets)) * len(outputs)
        rows, grids = outputs.float().cpu().numpy(), targets[0].cpu().numpy()
        for row, grid in zip(rows, grids, strict=True):
            found, wanted = [one for _, one in objects_of(row)], objects_in(grid)
            for kind, counts in enumerate(self._counts):
                ours, theirs = ([one for one in part if one.kind == kind] for part in (found, wanted))
                counts += len(ours), len(theirs), matched(ours, theirs)
            self._right += matched(found, wanted) == len(found) == len(wanted)
            self._images += 1

    def result(self) -> dict[str, Any]:
        found, wanted, both = self._counts.T
        scores = 2 * both / np.maximum(found + wanted, 1)
        return {
            "accuracy": self._right / self._images,
            "f1_macro": float(scores.mean()),
            "loss": self._loss / self._images,
        }


def objects_of(row: np.ndarray) -> list[tuple[float, Object]]:
    """What a net's values [5 + classes, G, G] say: (confidence, object), the surest first, no two the same."""
    sure = _sigmoid(row[0])
    found: list[tuple[float, Object]] = []
    for y, x in sorted(np.argwhere(sure >= SURE).tolist(), key=lambda cell: -sure[cell[0], cell[1]]):
        place = _sigmoid(row[1:5, y, x]).tolist()
        one = Object(int(row[5:, y, x].argmax()), *_corners(x, y, *place))
        if all(overlap(one, other) < SAME for _, other in found):
            found.append((float(sure[y, x]), one))
    return found


def objects_in(grid: np.ndarray) -> list[Object]:
    """The objects of a target [G, G, 6]."""
    return [
        Object(int(grid[y, x, 5]), *_corners(x, y, *grid[y, x, 1:5].tolist()))
        for y, x in np.argwhere(grid[..., 0] > 0)
    ]


def overlap(one: Object, other: Object) -> float:
    """Intersection over union of two boxes."""
    wide = min(one.x1, other.x1) - max(one.x0, other.x0)
    high = min(one.y1, other.y1) - max(one.y0, other.y0)
    both = max(0.0, wide) * max(0.0, high)
    areas = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (one, other))
    return both / max(areas - both, 1e-9)


def matched(found: Sequence[Object], wanted: Sequence[Object]) -> int:
    """How many wanted objects have a found one of their own: the same class, IoU 0.5 or more."""
    left, count = list(found), 0
    for one in wanted:
        best = max(
            (other for other in left if other.kind == one.kind),
            key=lambda other: overlap(one, other),
            default=None,
        )
        if best is not None and overlap(one, best) >= SAME:
            left.remove(best)
            count += 1
    return count


def render(part: int, index: int) -> tuple[np.ndarray, list[Object]]:
    """One to three shapes on a noisy ground: pixels uint8 [S, S, 3] and what is where, the same on every host."""
    draw = np.random.default_rng([part, index])
    image = Image.fromarray(draw.integers(0, 90, (SIDE, SIDE, 3), np.uint8))
    brush = ImageDraw.Draw(image)
    objects: list[Object] = []
    for _ in range(int(draw.integers(1, 4))):
        size = int(draw.integers(14, 25))
        x, y = (int(place) for place in draw.integers(0, SIDE - size, 2))
        kind, colour = int(draw.integers(len(SHAPES))), tuple(draw.integers(130, 256, 3).tolist())
        one = Object(kind, *(side / SIDE for side in (x, y, x + size, y + size)))
        if any(overlap(one, other) > 0 for other in objects):
            continue
        objects.append(one)
        box = (x, y, x + size - 1, y + size - 1)
        if SHAPES[kind] == "circle":
            brush.ellipse(box, colour)
        elif SHAPES[kind] == "square":
            brush.rectangle(box, colour)
        else:
            brush.polygon([(x + size // 2, y), (box[2], box[3]), (x, box[3])], colour)
    return np.asarray(image), objects


def read_folder(root: Path, classes: Sequence[str] | None = None) -> list[tuple[Path, list[Any]]]:
    """Images with what their JSON says is in them; with `classes` by number, else by name.

    Raises:
        UsageError: there is no such pair, or a JSON is not as it should be.
    """
    found = []
    for path in sorted(root.rglob("*.json")):
        image = next((one for one in path.parent.glob(f"{path.stem}.*") if one.suffix != ".json"), None)
        if image is None:
            continue
        try:
            named: list[tuple[Any, ...]] = [
                (str(one["label"]), *(float(side) for side in one["box"])) for one in json.loads(path.read_text())
            ]
            found.append((image, [Object(classes.index(one[0]), *one[1:]) for one in named] if classes else named))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} cannot be used ({error})", "see examples/detector.py", kind="no_data"
            ) from None
    if not found:
        raise UsageError(f"no image with a JSON beside it in {root}", "see examples/detector.py", kind="no_data")
    return found


def _item(name: str, content: bytes | None, path: Path | None, truth: list[Object]) -> Labelled:
    return Labelled(path, name, f"{len(truth)} object{'s' * (len(truth) != 1)}", content=content, truth=truth)


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _arrays(pairs: Sequence[tuple[np.ndarray, list[Object]]], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, S, S, 3] and targets float32 [N, G, G, 6]: objectness, place in the cell, size, class."""
    targets = np.zeros((len(pairs), GRID, GRID, 6), np.float32)
    for target, (_, objects) in zip(targets, pairs, strict=True):
        for kind, x0, y0, x1, y1 in objects:
            x, y = (x0 + x1) / 2 * GRID, (y0 + y1) / 2 * GRID
            column, row = min(int(x), GRID - 1), min(int(y), GRID - 1)
            target[row, column] = 1, x - column, y - row, x1 - x0, y1 - y0, kind
    return np.stack([image for image, _ in pairs]), targets


def _tensors(arrays: tuple[np.ndarray, ...], chosen: np.ndarray) -> tuple[Tensor, ...]:
    import torch

    return tuple(torch.from_numpy(array[chosen]) for array in arrays)


def _corners(column: float, row: float, x: float, y: float, width: float, height: float) -> tuple[float, ...]:
    x, y = (column + x) / GRID, (row + y) / GRID
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))
