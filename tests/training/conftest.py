"""Small real trainings: folders of coloured shapes, and a runner within the test's process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy  # noqa: F401 - the child that traces a training's memory finds it here, and does not import it anew
from PIL import Image

from engine.config import load_settings
from engine.store.workspace import Workspace
from engine.training.runs import claim_run, find_run

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the train verb does, before torch is loaded

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (210, 50, 40)}
SMALL = (
    "data.val_fraction=0.8",
    "data.img_size=16",
    "training.seed=3",
)  # 279 digits to train on: 8 steps an epoch


def picture(colour: tuple[int, int, int], seed: int, side: int = 40) -> Image.Image:
    stream = np.random.default_rng(seed)
    noise = stream.integers(-40, 40, (side, side, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three class folders of twelve JPEGs."""
    root = tmp_path / "photos"
    for number, (name, colour) in enumerate(COLOURS.items()):
        (root / name).mkdir(parents=True)
        for i in range(12):
            picture(colour, number * 100 + i).save(root / name / f"{i}.jpg")
    return root


@pytest.fixture
def fit(workspace: Workspace) -> Callable[..., dict[str, Any]]:
    """Trains in this process: `fit("training.epochs=1", resume="0001", strict=True)`."""
    return runner(workspace)


def runner(workspace: Workspace) -> Callable[..., dict[str, Any]]:
    """What `fit` is, in any workspace."""
    from engine.training.plan import resumed_settings
    from engine.training.train import train

    def run(*overrides: str, resume: str | None = None, lines: list[str] | None = None, **options: Any) -> Any:
        loaded = load_settings(None, workspace.root, overrides)
        settings = loaded.settings
        if resume:
            folder = find_run(workspace, resume)
            settings = resumed_settings(loaded, folder.read_manifest()["settings"])
        else:
            folder = claim_run(workspace)
        say = lines.append if lines is not None else lambda line: None
        return train(workspace, settings, folder, say=say, **options)

    return run
