"""From an encoded image to a net's input: the one path that training, admission and serving share.

Torch-free. Decoding uses JPEG's own scaling (PIL `draft`), so an image is decoded no larger than needed.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# once for all threads: `catch_warnings` changes the process's filters, and threads would put back one another's
warnings.filterwarnings("ignore", module=r"PIL\.")
Image.MAX_IMAGE_PIXELS = None  # `decode` checks the size in the header before any pixel is decoded
_EXIF_ORIENTATION = 0x0112


class ImageError(ValueError):
    """Bytes that cannot be used as an image. `kind` is `not_image`, `truncated` or `too_large`."""

    def __init__(self, kind: Literal["not_image", "truncated", "too_large"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a float32 array [3, img_size, img_size].

    Attributes:
        img_size: side of the square input, pixels.
        resize: `crop` (shorter side to img_size, centre crop), `squash` (both sides to img_size) or
            `pad` (longer side to img_size, grey borders).
        mean, std: per RGB channel, of values scaled to 0..1.
    """

    img_size: int
    resize: Literal["crop", "squash", "pad"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocess:
        return cls(int(fields["img_size"]), fields["resize"], tuple(fields["mean"]), tuple(fields["std"]))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    def pixels(self, content: bytes, max_pixels: int = 50_000_000) -> np.ndarray:
        """Decoded, resized RGB pixels, uint8 [img_size, img_size, 3].

        Raises:
            ImageError: not an image, truncated, or more than `max_pixels` in its header.
        """
        return self.fit(decode(content, (self.img_size, self.img_size), max_pixels))

    def fit(self, image: Image.Image) -> np.ndarray:
        """An RGB image resized to uint8 [img_size, img_size, 3]."""
        side = (self.img_size, self.img_size)
        if image.size != side:
            if self.resize == "crop":
                image = ImageOps.fit(image, side, Image.Resampling.BILINEAR)
            elif self.resize == "pad":
                image = ImageOps.pad(image, side, Image.Resampling.BILINEAR, color=(128, 128, 128))
            else:
                image = image.resize(side, Image.Resampling.BILINEAR)
        return np.asarray(image)

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [..., H, W, 3] to float32 [..., 3, H, W], scaled to 0..1, minus mean, over std."""
        scale = np.float32(1 / 255) / np.asarray(self.std, np.float32)
        shift = np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        planes = np.empty((*pixels.shape[:-3], 3, *pixels.shape[-3:-1]), np.float32)
        for channel in range(3):  # a plane at a time is several times faster than a transposed copy
            plane = planes[..., channel, :, :]
            np.multiply(pixels[..., channel], scale[channel], out=plane)
            plane -= shift[channel]
        return planes

    def __call__(self, content: bytes, max_pixels: int = 50_000_000) -> np.ndarray:
        """An encoded image to the net's input, float32 [3, img_size, img_size]."""
        return self.normalize(self.pixels(content, max_pixels))


def decode(content: bytes, wanted: tuple[int, int], max_pixels: int = 50_000_000) -> Image.Image:
    """Decode to an upright RGB image, a JPEG at the smallest of its scales that is no less than `wanted`.

    Raises:
        ImageError: as `Preprocess.pixels`.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise ImageError("not_image", "these bytes are not an image that Pillow knows") from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise ImageError("truncated", f"the image's header is damaged ({error})") from None
    if image.width * image.height > max_pixels:
        raise ImageError("too_large", f"{image.width}x{image.height} pixels are more than {max_pixels:,}")
    try:
        image.draft("RGB", wanted)
        image.load()
        if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode in ("I;16", "I;16B", "I;16L", "I"):
            image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
            rgba = image.convert("RGBA")
            image = Image.new("RGB", rgba.size, (255, 255, 255))
            image.paste(rgba, mask=rgba.getchannel("A"))
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise ImageError("truncated", f"the image is truncated or damaged ({error})") from None
