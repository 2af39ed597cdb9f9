"""What is asked of an export. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.config.schema import Export as ExportSettings
from engine.errors import UsageError, nearest

ORDER = ("onnx", "pt2", "torchscript", "fp16", "int8", "triton")
REPORT = "export.json"
TOO_MUCH = 0.01  # an INT8 file that loses more of the accuracy is an error unless allowed


@dataclass(frozen=True)
class Options:
    """What the person asked for.

    Attributes:
        threads: of each measured model.
        budget_s: of measuring latencies.
        max_loss: INT8 may lose this much accuracy, a fraction, before layers are left in fp32.
        allow_worse: an INT8 file that is slower than fp32, or loses more than a point, is no error.
        images: at most so many labelled requests are judged.
        calibration: so many are measured for INT8's ranges.
    """

    formats: Sequence[str]
    threads: int = 1
    budget_s: float = 16.0
    max_loss: float = 0.005
    allow_worse: bool = False
    images: int = 1000
    calibration: int = 256
    seed: int = 0


def wanted_formats(named: Sequence[str], settings: ExportSettings) -> list[str]:
    """The formats that were named, `all` being all of them, else those of the settings; in the order of writing.

    Raises:
        UsageError: there is no such format.
    """
    wanted = list(named) or [*settings.formats, *([settings.dtype] if settings.quantization else [])]
    if "all" in wanted:
        return list(ORDER)
    for name in wanted:
        if name not in ORDER:
            raise UsageError(f"there is no format '{name}'", nearest(name, ORDER), kind="bad_config")
    if not wanted:
        raise UsageError("no format is wanted", "set export.formats, or name one with --format", kind="bad_config")
    return [name for name in ORDER if name in wanted]
