"""The embedded data set: scikit-learn's 1,797 handwritten digits, in three parts.

400 of them (40 a class, chosen once and for ever) are the test part, which no training or validation
ever sees; the rest is split by the training's seed. Torch-free; scikit-learn is imported when called.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from engine.store.files import fsync_folder

CLASSES = tuple("0123456789")
SIDE = 32
TEST_A_CLASS = 40
_TEST_SEED = 1797


@cache
def _load() -> tuple[list[Image.Image], np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.clip(bunch.images * (255 / 16), 0, 255).round().astype(np.uint8)
    # 8x8 as they come; enlarged once here, so that training, A/B and a person see the same picture
    images = [Image.fromarray(array).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for array in grey]
    return images, bunch.target.astype(np.int64)


@cache
def _parts() -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rest and of the test part, sorted."""
    _, labels = _load()
    stream = np.random.Generator(np.random.Philox(_TEST_SEED))
    chosen = [stream.permutation(np.flatnonzero(labels == c))[:TEST_A_CLASS] for c in range(len(CLASSES))]
    test = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), test), test


def training_digits() -> tuple[list[Image.Image], np.ndarray, list[str]]:
    """What training may see: grey images of 32x32 px, labels int64, and names (`digit-0042`)."""
    images, labels = _load()
    rest, _ = _parts()
    return [images[i] for i in rest], labels[rest], [f"digit-{i:04d}" for i in rest]


def heldout_digits(folder: Path) -> Path:
    """Write the test part into `folder` as class folders of PNG, once, and return `folder`.

    Written beside and renamed, so the folder is whole or not there; the bytes are the same everywhere.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    images, labels = _load()
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for i in _parts()[1]:
            place = scratch / CLASSES[labels[i]]
            place.mkdir(exist_ok=True)
            images[i].save(place / f"digit-{i:04d}.png")
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker, with the same bytes
                raise
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
