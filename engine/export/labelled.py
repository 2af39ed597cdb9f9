"""The labelled data of an export: what INT8 is calibrated on, and what every file is judged on."""

from __future__ import annotations

from pathlib import Path

from engine.config import Settings
from engine.errors import UsageError
from engine.export.export import Data, Options, split
from engine.export.subject import Subject


def labelled_data(
    subject: Subject, settings: Settings, options: Options, data: str | None, calibration: str | None
) -> Data:
    """What `--data` and `--calibration` name, else what a comparison of this task would take.

    A single set is divided: a part calibrates, the rest judges, for a range that was measured on the judged
    images would flatter the file.

    Raises:
        UsageError: a folder that was named cannot be used.
    """
    medium, known = subject.medium, set(subject.card["classes"])
    try:
        found = medium.labelled(settings, Path(data).expanduser() if data else None, options.seed)
    except UsageError as error:
        if data:
            raise
        return Data(missing=error.message)
    items = [item for item in found.images if not found.classes or item.label in known]
    if not items:
        raise UsageError(
            f"no class of {found.shown} is known to this model", "name data of its classes: --data DIR"
        )
    own = []
    if calibration:
        own = medium.labelled(settings, Path(calibration).expanduser(), options.seed).images
    return split(items, found.shown, options, own)
