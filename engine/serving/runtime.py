"""A loaded release: an engine with its preprocessing. Imported by the worker alone."""

from __future__ import annotations

import ctypes
import io
import json
import sys
import threading
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from engine.errors import Failed
from engine.release.bundle import Release
from engine.serving.engines import Runtime, build_engine, first_line
from engine.tasks.images.preprocess import ImageError, Preprocess

_STATUS = {"not_image": 415, "truncated": 422, "too_large": 413}
_HINTS = {
    "not_image": "send a JPEG, PNG, WebP, GIF, BMP or TIFF as the body or as the multipart field 'file'",
    "truncated": "the file is damaged: send the whole image",
    "too_large": "send a smaller image, or raise servers.max_pixels",
}
_RUNS_OUTSIDE_PROGRAMS = ("EPS", "WMF", "FITS")
_WARM_RUNS = 6
_LARGE_PIXELS = 8_000_000
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None


def give_memory_back() -> None:
    """Return what the C library keeps of freed memory to the system (glibc; others do so by themselves)."""
    if _TRIM is not None:
        _TRIM(0)


class Refusal(Exception):
    """An input that the net cannot take: `status` is the HTTP status of the answer."""

    def __init__(self, status: int, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.hint = status, kind, message, hint


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
        runtime, device, window_s: as `engines.build_engine`.

    Raises:
        Failed: the net does not load, or does not give finite probabilities, one a class.
    """

    def __init__(
        self,
        release: Release,
        max_pixels: int,
        *,
        runtime: Runtime = "onnx",
        device: str = "auto",
        window_s: float = 0.0,
    ) -> None:
        self.release = release
        self.manifest = release.manifest
        self.max_pixels = max_pixels
        self.classes = self.manifest.classes
        self._large = threading.Lock()
        self.preprocess = Preprocess.from_dict(self.manifest.preprocess)
        self._engine = build_engine(release, runtime, device, window_s)
        self.shape = [3, self.preprocess.img_size, self.preprocess.img_size]
        self._labels = [json.dumps(name, ensure_ascii=False) for name in self.classes]
        self._release_field = json.dumps(release.id)

    def warm_up(self) -> None:
        """Answer some images the whole way, so that no client pays for the first one.

        Raises:
            Failed: the net gives something else than one finite probability a class.
        """
        side = max(self.preprocess.img_size, 64)
        noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(noise).save(encoded, "JPEG")
        for turn in range(_WARM_RUNS):
            try:
                batch = self.preprocess(encoded.getvalue())[None]
                found = self.probabilities(batch, alone=turn % 2 == 0)
            except Exception as error:  # noqa: BLE001 - as above
                raise Failed(
                    f"release {self.release.id[:8]} fails on a first image ({first_line(error)})",
                    "deploy another",
                    kind="unloadable",
                ) from None
            if found.shape != (1, len(self.classes)) or not np.isfinite(found).all():
                raise Failed(
                    f"release {self.release.id[:8]} gives {list(found.shape)} for {len(self.classes)} classes, "
                    "or values that are not finite",
                    "deploy another",
                    kind="unloadable",
                )

    @property
    def in_flight(self) -> int:
        """How many requests the engine wants at once; 0: as many as there are cores."""
        return self._engine.in_flight

    def probabilities(self, batch: np.ndarray, *, alone: bool = False) -> np.ndarray:
        """float32 [N, 3, S, S] to float32 [N, classes], rows summing to 1."""
        return self._engine(batch, alone=alone)

    def predict(self, content: bytes, top_k: int, *, alone: bool = False) -> Prediction:
        """Answer an encoded image.

        Args:
            alone: nothing else is asked at the moment.

        Raises:
            Refusal: not an image, truncated, too large.
        """
        try:
            batch = self._input_of(content)[None]
        except ImageError as error:
            raise Refusal(_STATUS[error.kind], error.kind, str(error), _HINTS[error.kind]) from None
        row = self.probabilities(batch, alone=alone)[0]
        order = np.argsort(-row, kind="stable")[: min(top_k, len(row))].tolist()
        values = row[order].tolist()
        best = [
            f'{{"label":{self._labels[index]},"index":{index},"confidence":{value:.6g}}}'
            for index, value in zip(order, values, strict=True)
        ]
        text = f'{best[0][:-1]},"top_k":[{",".join(best)}],"release":{self._release_field}'
        return Prediction(text.encode(), order[0], values[0])

    def _input_of(self, content: bytes) -> np.ndarray:
        """The net's input; one large image at a time, and its memory is given back."""
        try:
            return self.preprocess(content, min(self.max_pixels, _LARGE_PIXELS))
        except ImageError as error:
            if error.kind != "too_large" or self.max_pixels <= _LARGE_PIXELS:
                raise
        with self._large:
            try:
                return self.preprocess(content, self.max_pixels)
            finally:
                give_memory_back()

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
            "architecture": self.manifest.architecture["name"],
            "precision": self._engine.precision,
            "runtime": self._engine.name,
            "classes": self.classes,
            "input": {**self.manifest.input, "preprocess": self.manifest.preprocess},
        }
