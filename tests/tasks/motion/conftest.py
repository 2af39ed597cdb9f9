"""Small folders of motions in both forms, and the settings of a tiny net."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

TINY = {
    "latent_dim": 16,
    "layers": 1,
    "num_heads": 2,
    "ff_size": 32,
    "frames": 12,
    "diffusion_steps": 20,
    "pos_embed_max_len": 32,
}


def swing(frames: int, features: int, phase: float) -> np.ndarray:
    time, place = np.ogrid[:frames, :features]
    return (np.sin(time * 0.3 + place * phase) + place * 0.1).astype(np.float32)


@pytest.fixture
def humanml(tmp_path: Path) -> Path:
    """Ten motions of 7 values, two held out, with statistics and two texts' embeddings each."""
    root = tmp_path / "humanml"
    for folder in ("new_joint_vecs", "text_embeddings"):
        (root / folder).mkdir(parents=True)
    names = [f"{number:06d}" for number in range(10)]
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        np.save(root / "new_joint_vecs" / f"{name}.npy", swing(9 + number, 7, 0.2 + number / 10))
        np.save(root / "text_embeddings" / f"{name}.npy", rng.standard_normal((2, 5)).astype(np.float32))
    (root / "train.txt").write_text("\n".join(names[:8]))
    (root / "val.txt").write_text("\n".join(names[8:]) + "\n")
    np.save(root / "Mean.npy", np.full(7, 0.3, np.float32))
    np.save(root / "Std.npy", np.full(7, 0.7, np.float32))
    return root


@pytest.fixture
def deepmimic(tmp_path: Path) -> Path:
    """Three clips of two actions, 44 values a frame."""
    root = tmp_path / "deepmimic"
    root.mkdir()
    for number, name in enumerate(("walk", "dance_a", "dance_b")):
        frames = swing(40 + number, 44, 0.1 * (number + 1)).tolist()
        (root / f"humanoid3d_{name}.txt").write_text(json.dumps({"Loop": "wrap", "Frames": frames}))
    (root / "LICENSE").write_text("no motion")
    return root
