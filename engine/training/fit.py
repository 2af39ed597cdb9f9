"""Will a training fit into memory? The forecast, its cache, and the nearest setting that fits. Torch-free at import.

A forecast adds up, for one step of the net (`engine.training.fit_trace` follows it without numbers):

- the weights, their optimiser's states, the moving average: they stay;
- what lives at the step's peak: activations saved for backward, gradients, augmentation's copies;
- what the device's allocator makes of that. On a CPU its settings are fixed (`engine.training.allocator`) and three
  steps are played on a model of its heap (`engine.training.fit_heap`), which keeps its greatest size, holes and all;
- the code that is read in and compiled on the way, the decoded images in memory, the batches ahead.

The trace is kept in the workspace's cache by everything that it depends on; asking again imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.errors import UsageError
from engine.store.files import write_json
from engine.training.allocator import MAPPED_FROM
from engine.training.fit_parts import Facts, Tracer, parts_of

FORMAT = 4
ROOM = 0.9  # of what is free: up to here it fits, up to all of it is the edge
KEPT = 400  # traces in the cache

SIZES = (1024, 768, 640, 512, 448, 384, 320, 256, 224, 192, 160, 128, 96, 64, 32)
SMALLER = ("convnext_base", "swin_base_384", "deit_base_384", "efficientnet_b4", "resnet50", "resnet34",
           "litecnn_pro", "litecnn")  # fmt: skip
FIXED_SIDE = ("swin_", "deit_", "vit_", "beit")


class NotTraced(LookupError):
    """The cache does not hold what a forecast needs."""


@dataclass(frozen=True)
class Forecast:
    """`predicted_bytes` is what `train` will report as `peak_memory_bytes`; `suggestion` are overrides, or None."""

    device: str
    precision: str
    batch_size: int
    micro_batch: int
    predicted_bytes: int
    available_bytes: int
    verdict: str  # fits, edge, cannot
    suggestion: str | None = None
    biggest_batch: int | None = None
    breakdown: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def brief(self) -> dict[str, Any]:
        """What a run's manifest keeps."""
        return {name: getattr(self, name) for name in ("predicted_bytes", "available_bytes", "verdict")}


def forecast(
    settings: Settings, facts: Facts, device: str, precision: str, available: int, tracer: Tracer
) -> Forecast:
    """The forecast for one training.

    Args:
        device: `cpu`, `cuda`, `mps` or `xpu`.
        precision: as it will be, not `auto`.
        available: bytes that the training may take.
        tracer: gives a trace, from the cache or anew; may raise NotTraced.

    Raises:
        UsageError: the model cannot be built.
    """
    batch = min(settings.training.batch_size or 1, max(facts.samples, 1))
    if not settings.training.batch_size:
        batch = _automatic(settings, facts, device, precision, available, tracer)
        settings = _with(settings, batch_size=batch)
    micro = min(settings.training.micro_batch or batch, batch)
    parts = parts_of(settings, facts, device, precision, batch, micro, tracer)
    predicted = sum(parts.values())
    verdict = _verdict(predicted, available)
    biggest = _biggest(settings, facts, device, precision, available, tracer)
    suggestion = None
    if verdict != "fits":
        suggestion = _suggestion(settings, facts, device, precision, available, tracer, batch, micro)
    return Forecast(
        device, precision, batch, micro, predicted, available, verdict, suggestion, biggest, breakdown=parts
    )


def _verdict(predicted: int, available: int) -> str:
    if predicted <= available * ROOM:
        return "fits"
    return "edge" if predicted <= available else "cannot"


def _total(*arguments: Any) -> int:
    return sum(parts_of(*arguments).values())


def _biggest(
    settings: Settings, facts: Facts, device: str, precision: str, available: int, tracer: Tracer
) -> int | None:
    """The biggest batch that fits at once, None where not even one sample does.

    A step's memory is a straight line in the batch: one trace more, of half or twice the samples, gives its slope.
    """
    batch = settings.training.batch_size
    few, many = (batch // 2, batch) if batch > 3 else (batch, 2 * batch)
    low, high = (_total(settings, facts, device, precision, size, size, tracer) for size in (few, many))
    slope = max(1.0, (high - low) / (many - few))
    found = int((available * ROOM - (low - slope * few)) / slope)
    return found if found >= 1 else None


def _automatic(
    settings: Settings, facts: Facts, device: str, precision: str, available: int, tracer: Tracer
) -> int:
    """The biggest sensible batch: a power of two that fits, at most 64 on a CPU and 256 on a GPU, and small
    enough that an epoch has twenty steps; but eight where there are so many, for batch norms learn little of fewer."""
    most = min(64 if device == "cpu" else 256, max(8, facts.samples // 20), max(2, facts.samples))
    biggest = _biggest(_with(settings, batch_size=16), facts, device, precision, available, tracer) or 1
    size = 1
    while size * 2 <= min(most, biggest):
        size *= 2
    return size


def _suggestion(
    settings: Settings,
    facts: Facts,
    device: str,
    precision: str,
    available: int,
    tracer: Tracer,
    batch: int,
    micro: int,
) -> str | None:
    """The nearest setting that fits: fewer samples at a time, then a smaller image, then a smaller net."""

    def fits(wanted: Settings, size: int) -> bool:
        try:
            return _total(wanted, facts, device, precision, batch, size, tracer) <= available * ROOM
        except UsageError:  # no net of that size, or none that learns from so few
            return False

    smaller = micro // 2
    while smaller >= 1:
        if fits(settings, smaller):
            return f"training.micro_batch={smaller}"
        smaller //= 2
    if not settings.model.name.startswith(FIXED_SIDE):
        for side in SIZES:
            if side < settings.data.img_size and fits(_sized(settings, side), 1):
                return f"data.img_size={side} training.micro_batch=1"
    names = [name for name in SMALLER if not name.startswith(FIXED_SIDE)]
    chosen = settings.defaults.model
    for name in names[names.index(chosen) + 1 if chosen in names else 2 :]:
        other = settings.model_copy(deep=True)
        other.model.name, other.model.settings = name, {}
        if fits(other, 1):
            return f"model={name} training.micro_batch=1"
    return None


def _with(settings: Settings, **training: Any) -> Settings:
    copy = settings.model_copy(deep=True)
    for name, value in training.items():
        setattr(copy.training, name, value)
    return copy


def _sized(settings: Settings, side: int) -> Settings:
    copy = settings.model_copy(deep=True)
    copy.data.img_size = side
    return copy


# the cache --------------------------------------------------------------------------------------------


class TraceCache:
    """Traces in the workspace, by everything that they depend on.

    Args:
        anew: makes a trace that is not there; None raises NotTraced instead.
    """

    def __init__(self, folder: Path, anew: Tracer | None) -> None:
        self._path, self._anew = folder / "fit.json", anew
        self._held = self._read()

    def __call__(
        self, settings: Settings, classes: int, batch: int, whole: int, precision: str, device: str
    ) -> dict[str, int]:
        key = _key(settings, classes, batch, whole, precision, device)
        if key not in self._held:
            if self._anew is None:
                raise NotTraced(key)
            traced = self._anew(settings, classes, batch, whole, precision, device)
            self._held = {**self._read(), key: traced}
            while len(self._held) > KEPT:
                del self._held[next(iter(self._held))]
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, self._held)
        return self._held[key]

    def _read(self) -> dict[str, dict[str, int]]:
        try:
            held = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return held if isinstance(held, dict) else {}


class Extrapolated:
    """Traces of any batch from those of four and eight samples: each figure is a straight line in the batch.

    For tables of many batches; within some percent of the trace itself (the heap's holes are no straight line).
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __call__(
        self, settings: Settings, classes: int, batch: int, whole: int, precision: str, device: str
    ) -> dict[str, int]:
        few, many = (self._tracer(settings, classes, size, size, precision, device) for size in (4, 8))

        def at(name: str, size: int) -> int:
            return few[name] + (many[name] - few[name]) * (size - 4) // 4

        return {name: at(name, batch) for name in few}


def _key(settings: Settings, classes: int, batch: int, whole: int, precision: str, device: str) -> str:
    data, training = settings.data, settings.training
    parts = {
        "format": FORMAT,
        "versions": [_version(name) for name in ("torch", "timm", "understudy")],
        "model": [settings.model.name, settings.model.settings],
        "data": [data.img_size, data.augment, data.train_size],
        "step": training.model_dump(mode="json", include=set(_SHAPING)),
        "run": [classes, batch, whole, precision, device],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


_SHAPING = (
    "optimizer",
    "momentum",
    "ema_decay",
    "label_smoothing",
    "freeze",
    "mixup",
    "cutmix",
    "mix_share",
    "randaugment",
    "erasing",
)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def trace_here(
    settings: Settings, classes: int, batch: int, whole: int, precision: str, device: str
) -> dict[str, int]:
    """Trace in this process.

    Raises:
        UsageError: the model cannot be built, or cannot learn from so few samples at a time.
    """
    from engine.training.fit_trace import trace
    from engine.training.shortage import spoils_norms, too_few

    try:
        return asdict(trace(settings, classes, batch, whole, precision, device, MAPPED_FROM))
    except ValueError as error:
        if not spoils_norms(error):
            raise
        raise too_few(settings.training, whole, settings.training.processes or 1) from None


# the host ---------------------------------------------------------------------------------------------


def available_bytes(settings: Settings, device: str) -> int:
    """What a training may take on a device now: what is free, and no more than `device.NAME.memory_limit_gb`."""
    if device == "cuda":
        import torch

        free = int(torch.cuda.mem_get_info()[0])
    elif device == "mps":
        import torch

        free = int(torch.mps.recommended_max_memory())
    else:
        import psutil

        free = min(int(psutil.virtual_memory().available), _control_group_bytes())
    limits = getattr(settings.device, device, None)
    limit = getattr(limits, "memory_limit_gb", None)
    return min(free, int(limit * 1024**3)) if limit else free


def _control_group_bytes() -> int:
    """What this process's control group has left (a container's limit), or no limit."""
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        return 1 << 62 if most == "max" else max(0, int(most) - used)
    except (OSError, ValueError):
        return 1 << 62


def facts_of(settings: Settings) -> Facts:
    """The data's figures from its names alone; without data, those of the manual's set (17 classes)."""
    if settings.data.kind == "digits":
        side = settings.data.img_size
        return Facts(10, 1438, 1797 * side * side * 3)
    root = settings.data.root
    if root is None or not os.path.lexists(root):
        return Facts(17, 1 << 20)
    from engine.tasks.images.listing import list_images

    entries = list_images(root).entries
    labels = {entry.label for entry in entries}
    return Facts(max(2, len(labels)), max(1, round(len(entries) * (1 - settings.data.val_fraction))))
