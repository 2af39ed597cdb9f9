"""An image in, a distribution over classes out; see `engine.tasks.medium.Medium`."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.tasks.images.pictures import pictures
from engine.tasks.images.preprocess import ImageError, Preprocess
from engine.tasks.medium import Answer, InputError, Limits, Output
from engine.tasks.memory import give_memory_back

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.tasks.labelled import Labelled, LabelledSet

_STATUS = {"not_image": 415, "truncated": 422, "too_large": 413}
_HINTS = {
    "not_image": "send a JPEG, PNG, WebP, GIF, BMP or TIFF as the body or as the multipart field 'file'",
    "truncated": "the file is damaged: send the whole image",
    "too_large": "send a smaller image, or raise servers.max_pixels",
}
_LARGE_PIXELS = 8_000_000


class ImageInput:
    """Encoded images as a net's input: what a classifier shares with any other task on images."""

    media_types: Sequence[str] = ("image/*",)
    noun = "image"
    input_name = "image"

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess
        self.shape: tuple[int, ...] = (3, preprocess.img_size, preprocess.img_size)
        self._large = threading.Lock()

    def decode(self, content: bytes, limits: Limits) -> np.ndarray:
        """float32 [3, S, S]; one large image at a time, and its memory is given back."""
        try:
            try:
                return self.preprocess(content, min(limits.max_pixels, _LARGE_PIXELS))
            except ImageError as error:
                if error.kind != "too_large" or limits.max_pixels <= _LARGE_PIXELS:
                    raise
            with self._large:
                try:
                    return self.preprocess(content, limits.max_pixels)
                finally:
                    give_memory_back()
        except ImageError as error:
            raise InputError(_STATUS[error.kind], error.kind, str(error), _HINTS[error.kind]) from None

    def golden(self) -> np.ndarray:
        return self.preprocess.normalize(golden_pixels(self.preprocess.img_size))

    def probes(self) -> list[bytes]:
        return pictures()


class ImageMedium(ImageInput):
    """Classifies images."""

    output: Output = "probabilities"

    def __init__(self, preprocess: Preprocess, classes: Sequence[str]) -> None:
        super().__init__(preprocess)
        self.answer_schema: dict[str, Any] = {}
        self.output_shape: tuple[int, ...] = (len(classes),)
        self._labels = [json.dumps(name, ensure_ascii=False) for name in classes]

    def answer(self, row: np.ndarray, given: np.ndarray, top_k: int) -> Answer:
        """The best classes; written by hand, for it is in every request."""
        order = np.argsort(-row, kind="stable")[: min(top_k, len(row))].tolist()
        values = row[order].tolist()
        best = [
            f'{{"label":{self._labels[index]},"index":{index},"confidence":{value:.6g}}}'
            for index, value in zip(order, values, strict=True)
        ]
        return Answer(f'{best[0][:-1]},"top_k":[{",".join(best)}]', order[0], values[0])

    def labelled(self, settings: Settings, data: Path | None, seed: int) -> LabelledSet:
        from engine.tasks.images.labelled import labelled_images

        return labelled_images(settings, data)

    def is_right(self, answer: dict[str, Any], item: Labelled) -> bool:
        return bool(answer["label"] == item.label)


def golden_pixels(img_size: int) -> np.ndarray:
    """Six fixed images, uint8 [6, S, S, 3]: black, white, a gradient, noise, blocks and soft spots."""
    generator = np.random.default_rng(20260206)
    ramp = np.linspace(0, 255, img_size)
    gradient = np.stack(
        [np.add.outer(ramp, ramp) / 2, np.tile(ramp, (img_size, 1)), ramp[::-1, None] + 0 * ramp], -1
    )
    noise = generator.integers(0, 256, (img_size, img_size, 3))
    coarse = generator.integers(0, 256, (4, 4, 3))
    cell = np.minimum(np.arange(img_size) * 4 // img_size, 3)
    blocks = coarse[cell][:, cell]
    wave = np.sin(np.linspace(0, 3 * np.pi, img_size))
    spots = (127.5 + 127.5 * np.multiply.outer(wave, wave))[..., None] * np.array([1.0, 0.6, 0.3])
    black, white = np.zeros_like(noise), np.full_like(noise, 255)
    return np.stack([black, white, gradient, noise, blocks, spots]).astype(np.uint8)
