"""A loaded release: an engine with its preprocessing. Imported by the worker alone."""

from __future__ import annotations

import io
import json
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.errors import Failed
from engine.release.bundle import Release
from engine.serving.engines import Runtime, build_engine
from engine.serving.onnx_engine import first_line
from engine.tasks.medium import Limits
from engine.tasks.task import load_kind

_RUNS_OUTSIDE_PROGRAMS = ("EPS", "WMF", "FITS")
_WARM_RUNS = 6


def prepare_decoders() -> None:
    """Import Pillow's formats now rather than in the first request, without those that start programs."""
    Image.init()
    for name in _RUNS_OUTSIDE_PROGRAMS:
        if Image.OPEN.pop(name, None):
            Image.ID.remove(name)


class Prediction(NamedTuple):
    """`body` is the answer's JSON without its closing brace: the front adds the latency."""

    body: bytes
    top: int
    confidence: float


class Model:
    """One release ready to answer; safe to call from several threads at once.

    Args:
        release: opened with its content checked.
        max_pixels: the most pixels an image may have in its header.
        trusted: code of one's own that the release may name as its task.
        runtime, device, window_s: as `engines.build_engine`.

    Raises:
        UsageError: its task is not trusted here, or cannot be imported.
        Failed: the net does not load, or does not give finite rows of the shape that its manifest says.
    """

    def __init__(
        self,
        release: Release,
        max_pixels: int,
        *,
        trusted: str = "images",
        runtime: Runtime = "onnx",
        device: str = "auto",
        window_s: float = 0.0,
    ) -> None:
        self.release = release
        self.manifest = release.manifest
        self.classes = self.manifest.classes
        self._limits = Limits(max_pixels)
        card = self.manifest.model_dump(include={"architecture", "classes", "preprocess"})
        self._medium = load_kind(self.manifest.task, trusted).medium(card)
        self._engine = build_engine(release, runtime, device, window_s, trusted=trusted)
        self.input: dict[str, Any] = self.manifest.input
        self.output = self.manifest.outputs()
        self._last_field = f',"release":{json.dumps(release.id)}'

    def warm_up(self) -> None:
        """Answer some requests the whole way, so that no client pays for the first one.

        Raises:
            Failed: the net gives something else than finite rows of the right shape.
        """
        noun, bodies = self._medium.noun, self._warm_bodies()
        for turn in range(_WARM_RUNS):
            try:
                given = self._medium.decode(bodies[turn % len(bodies)], self._limits)
                found = self.run(given[None], alone=turn % 2 == 0)
            except Exception as error:  # noqa: BLE001 - as above
                raise Failed(
                    f"release {self.release.id[:8]} fails on a first {noun} ({first_line(error)})",
                    "deploy another",
                    kind="unloadable",
                ) from None
            if list(found.shape[1:]) != self.output["shape"][1:] or not np.isfinite(found).all():
                raise Failed(
                    f"release {self.release.id[:8]} gives {list(found.shape)} for {len(self.classes)} classes, "
                    "or values that are not finite",
                    "deploy another",
                    kind="unloadable",
                )
            self._medium.answer(found[0], given, 5)

    def _warm_bodies(self) -> list[bytes]:
        """Requests as clients send them: for images a JPEG, whose decoder should be warm too."""
        if self._medium.noun != "image":
            return self._medium.probes()
        side = max(self._medium.shape[-1], 64)
        noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(noise).save(encoded, "JPEG")
        return [encoded.getvalue()]

    @property
    def in_flight(self) -> int:
        """How many requests the engine wants at once; 0: as many as there are cores."""
        return self._engine.in_flight

    def run(self, batch: np.ndarray, *, alone: bool = False) -> np.ndarray:
        """float32 [N, *input] to float32 [N, *output], as the manifest has both."""
        return self._engine(batch, alone=alone)

    def predict(self, content: bytes, top_k: int, *, alone: bool = False) -> Prediction:
        """Answer a body of the task's media type.

        Args:
            alone: nothing else is asked at the moment.

        Raises:
            InputError: another kind of file, truncated, too large.
        """
        given = self._medium.decode(content, self._limits)
        fields, top, confidence = self._medium.answer(self._engine(given[None], alone=alone)[0], given, top_k)
        return Prediction((fields + self._last_field).encode(), top, confidence)

    def card(self) -> dict[str, Any]:
        """What `/model` says of the release, beside the slot's own fields."""
        origin = self.manifest.checkpoint
        return {
            "release": self.release.id,
            "sha256": origin.sha256,
            "md5": origin.md5,
            "cycle": origin.cycle,
            "epoch": origin.epoch,
            "accuracy": origin.accuracy,
            "task": self.manifest.task,
            "architecture": self.manifest.architecture["name"],
            "precision": self._engine.precision,
            "runtime": self._engine.name,
            "classes": self.classes,
            "input": {
                **self.manifest.input,
                "preprocess": self.manifest.preprocess,
                "noun": self._medium.noun,
                "media_types": list(self._medium.media_types),
            },
            "output": self.output,
            "answer_schema": self._medium.answer_schema,
        }
