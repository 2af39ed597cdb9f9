"""The labelled data of an export: what INT8 is calibrated on, and what every file is judged on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.compare.images import draw, fingerprint, known_to_both, take
from engine.config import Settings
from engine.errors import UsageError
from engine.export.options import Options
from engine.export.proof import decoded
from engine.export.session import Inputs
from engine.export.subject import Subject
from engine.tasks.labelled import Labelled
from engine.tasks.medium import Limits

_BATCH = 8


@dataclass(frozen=True)
class Data:
    """Labelled requests: those that INT8 is calibrated on, and others that every file is judged on.

    `missing` says why one of the two has none, where it has none.
    """

    calibration: list[Labelled] = field(default_factory=list)
    judged: list[Labelled] = field(default_factory=list)
    shown: str = ""
    missing: str = "no labelled data was named"

    def key(self) -> dict[str, str]:
        """The exact contents, for what depends on them."""
        return {"calibration": fingerprint(self.calibration), "judged": fingerprint(self.judged)}

    def batches(self, subject: Subject, limits: Limits) -> Iterator[Inputs]:
        """The calibration requests as inputs of the net, a few at a time; what cannot be read is left out."""
        for start in range(0, len(self.calibration), _BATCH):
            _, inputs = decoded(subject.medium, self.calibration[start : start + _BATCH], limits)
            if len(inputs):
                yield {subject.medium.input_name: inputs}


def labelled_data(
    subject: Subject, settings: Settings, options: Options, data: str | None = None, calibration: str | None = None
) -> Data:
    """What `--data` and `--calibration` name, else what a comparison of this task would take.

    Drawn by the seed, every class in proportion, no content twice. A single set is divided: a part calibrates, the
    rest judges, for a range that was measured on the judged images would flatter the file.

    Raises:
        UsageError: a folder that was named cannot be used.
    """
    wanted = options.calibration + options.images
    missing = ""
    try:
        found, shown = _drawn(subject, settings, options, data, wanted)
    except UsageError as error:
        if data:
            raise
        found, shown, missing = [], "", error.message
    if calibration:
        own, _ = _drawn(subject, settings, options, calibration, options.calibration)
        seen = {item.sha256 for item in own}
        judged = [item for item in found if item.sha256 not in seen][: options.images]
        return Data(own, judged, shown, missing or f"all of {shown} is calibrated on")
    count = options.calibration if len(found) == wanted else min(options.calibration, len(found) // 4)
    missing = missing or f"{shown} has {len(found)}, at least 4 are needed"
    return Data(found[:count], found[count : count + options.images], shown, missing)


def _drawn(
    subject: Subject, settings: Settings, options: Options, data: str | None, count: int
) -> tuple[list[Labelled], str]:
    path = Path(data).expanduser() if data else None
    classes = subject.card["classes"]
    found = known_to_both(subject.medium.labelled(settings, path, options.seed), classes, classes)
    return take(draw(found.images, options.seed, stratified=True), count), found.shown
