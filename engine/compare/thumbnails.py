"""An image small enough for a terminal: decoded and scaled by Pillow to raw RGB bytes. Torch-free."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

_TALLEST = 2  # times the width: a taller image gets narrower instead


def thumbnail(content: bytes, width: int) -> dict[str, Any]:
    """`{width, height, rgb}`: `rgb` is base64 of width * height * 3 bytes, pixels square, rows from the top.

    An image that is more than twice as high as wide comes narrower than `width`; a small one is enlarged in
    whole pixels' look (nearest neighbour), so that it can be seen.

    Raises:
        ImageError: the bytes are no image, a truncated one, or one of too many pixels.
    """
    from PIL import Image

    from engine.tasks.images.preprocess import decode

    image = decode(content, (width, width * _TALLEST))
    scale = min(width / image.width, width * _TALLEST / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if size != image.size:
        smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        image = image.resize(size, smooth)
    return {"width": size[0], "height": size[1], "rgb": base64.b64encode(image.tobytes()).decode()}


def thumbnail_of(path: Path, sha256: str, width: int) -> dict[str, Any]:
    """The thumbnail of a file that must still have this content; else no pixels, and `problem` says why."""
    from engine.tasks.images.preprocess import ImageError

    nothing = {"width": 0, "height": 0, "rgb": ""}
    try:
        content = path.read_bytes()
    except OSError as error:
        return {**nothing, "problem": f"cannot be read any more ({error.strerror})"}
    if hashlib.sha256(content).hexdigest() != sha256:
        return {**nothing, "problem": "the file changed since the comparison"}
    try:
        return thumbnail(content, width)
    except ImageError as error:
        return {**nothing, "problem": str(error)}


def half_blocks(shown: dict[str, Any]) -> list[str]:
    """A thumbnail as lines for a terminal with 24-bit colour: a character holds two pixels, one above the other."""
    pixels, width, height = base64.b64decode(shown["rgb"]), shown["width"], shown["height"]

    def colour(layer: int, row: int, column: int) -> str:
        start = (row * width + column) * 3
        red, green, blue = pixels[start : start + 3]
        return f"\x1b[{layer};2;{red};{green};{blue}m"

    lines = []
    for row in range(0, height, 2):
        cells = [
            colour(38, row, column) + (colour(48, row + 1, column) if row + 1 < height else "\x1b[49m") + "▀"
            for column in range(width)
        ]
        lines.append("".join(cells) + "\x1b[0m")
    return lines
