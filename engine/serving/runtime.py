"""A loaded release: an ONNX Runtime session with its preprocessing. Imported by the worker alone."""

from __future__ import annotations

import ctypes
import io
import json
import os
import sys
import threading
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from PIL import Image

from engine.errors import Failed
from engine.release.bundle import Release
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
_MOST_ROWS = 8  # more in one run is no faster on a CPU, and ONNX Runtime keeps the memory of its largest run


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


def _shrinking() -> ort.RunOptions:
    """For a run of many rows: the arena gives its memory back afterwards."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


_SHRINKING = _shrinking()


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

    Raises:
        Failed: the net does not load, or does not give finite probabilities, one a class.
    """

    def __init__(self, release: Release, max_pixels: int) -> None:
        self.release = release
        self.manifest = release.manifest
        self.max_pixels = max_pixels
        self.classes = self.manifest.classes
        self._large = threading.Lock()
        self.preprocess = Preprocess.from_dict(self.manifest.preprocess)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        try:
            net = release.onnx()
            self._session = _session(net, 1)
            self._wide = _session(net, cores) if cores > 1 else None
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no base class
            raise Failed(
                f"release {release.id[:8]} does not load ({_first_line(error)})",
                "deploy another",
                kind="unloadable",
            ) from None
        self._input = self._session.get_inputs()[0].name
        output = self._session.get_outputs()[0].name
        self._outputs, self._gives_logits = [output], output != "probabilities"
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
                    f"release {self.release.id[:8]} fails on a first image ({_first_line(error)})",
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

    def probabilities(self, batch: np.ndarray, *, alone: bool = False) -> np.ndarray:
        """float32 [N, 3, S, S] to float32 [N, classes], rows summing to 1."""
        session = self._wide if alone and self._wide is not None else self._session
        how = _SHRINKING if len(batch) > 1 else None
        runs = [
            session.run(self._outputs, {self._input: batch[start : start + _MOST_ROWS]}, how)[0]
            for start in range(0, len(batch), _MOST_ROWS)
        ]
        found = runs[0] if len(runs) == 1 else np.concatenate(runs)
        if self._gives_logits:
            found = np.exp(found - found.max(axis=-1, keepdims=True))
            found /= found.sum(axis=-1, keepdims=True)
        return found.astype(np.float32, copy=False)

    def predict(self, content: bytes | bytearray, top_k: int, *, alone: bool = False) -> Prediction:
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
            "precision": self.manifest.precision,
            "classes": self.classes,
            "input": {**self.manifest.input, "preprocess": self.manifest.preprocess},
        }


def _session(net: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(net, options, providers=["CPUExecutionProvider"])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
