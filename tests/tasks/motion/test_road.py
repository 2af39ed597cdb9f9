"""A motion net from training to sampling (its admission and export: tests/test_notebook.py), and a published one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import load_settings
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.medium import InputError, Limits, whole
from engine.tasks.motion.medium import MotionMedium
from engine.tasks.motion.net import Mdm
from engine.tasks.motion.shape import Shape
from engine.tasks.task import load_medium
from engine.training.inference import load_for_inference
from engine.training.motion import Wanted, sample_motions, take_over
from engine.training.runs import claim_run
from engine.training.train import train
from tests.tasks.motion.conftest import TINY

WORDS = [f"model.settings.{key}={value}" for key, value in TINY.items()]


@pytest.fixture
def fit(workspace: Workspace) -> Callable[..., Any]:
    def run(root: Path, *more: str, lines: list[str] | None = None) -> dict[str, Any]:
        words = ["task=motion", f"data.root={root}", *WORDS, "training.batch_size=4", *more]
        settings = load_settings(None, workspace.root, words).settings
        say = lines.append if lines is not None else lambda line: None
        return train(workspace, settings, claim_run(workspace), task="motion", say=say)

    return run


def test_it_trains_and_samples(
    fit: Callable[..., Any], deepmimic: Path, workspace: Workspace, tmp_path: Path
) -> None:
    lines: list[str] = []
    result = fit(deepmimic, "training.epochs=3", "training.learning_rate=0.01", lines=lines)
    assert (result["status"], result["unit"]) == ("completed", "motions")
    assert 0 <= result["best"]["accuracy"] <= 1
    assert any("2 actions" in line for line in lines)

    settings = load_settings(None, workspace.root).settings
    loaded = load_for_inference(workspace, settings, str(result["checkpoint"]))
    wanted = Wanted(steps=5, count=2, frames=9, action="walk", guidance=2.0)
    motions, said = sample_motions(loaded, wanted)
    assert (motions.shape, motions.dtype, said["sampler"]) == ((2, 9, 44), np.float32, "ddim")
    assert np.array_equal(motions, sample_motions(loaded, wanted)[0])
    assert sample_motions(loaded, Wanted())[1]["sampler"] == "ddpm"
    for wrong in (Wanted(steps=21), Wanted(frames=13), Wanted(action="swim"), Wanted(text=tmp_path / "text.npy")):
        with pytest.raises(UsageError):
            sample_motions(loaded, wrong)
    found = loaded.medium.labelled(settings, deepmimic, 0)
    assert [item.label for item in found.images] == ["dance", "dance", "walk"]
    given = loaded.medium.decode(found.images[0].read(), Limits())
    answer = whole(loaded.medium.answer(loaded.run(given[None])[0], given, 5))
    assert 0 <= answer["confidence"] <= 1


def test_a_published_checkpoint_is_taken_over_and_fine_tuned(
    fit: Callable[..., Any], humanml: Path, deepmimic: Path, workspace: Workspace, tmp_path: Path
) -> None:
    """A bare state dict with args.json beside it, as the authors publish them; new ends for other data are said."""
    sizes = {"latent_dim": 16, "layers": 1, "diffusion_steps": 20}
    torch.manual_seed(0)
    published = Mdm(Shape(features=7, condition_width=5, ff_size=32, pos_embed_max_len=300, **sizes))  # type: ignore[arg-type]
    path = tmp_path / "published" / "model000475000.pt"
    path.parent.mkdir()
    torch.save(published.state_dict(), path)
    args = {
        "arch": "trans_enc",
        "dataset": "humanml",
        "noise_schedule": "cosine",
        "pos_embed_max_len": 300,
        **sizes,
    }
    (path.parent / "args.json").write_text(json.dumps(args))

    facts, notes = take_over(path, humanml, tmp_path / "mdm.pth")
    assert (facts["parameters"], facts["unused"], notes) == (
        sum(p.numel() for p in published.parameters()),
        [],
        [],
    )
    settings = load_settings(None, workspace.root).settings
    loaded = load_for_inference(workspace, settings, str(tmp_path / "mdm.pth"))
    assert isinstance(loaded.medium, MotionMedium)
    rows = loaded.medium.golden()[:2]
    with torch.inference_mode():
        assert np.allclose(loaded.run(rows), published.eval()(torch.from_numpy(rows)).numpy(), atol=1e-6)
    np.save(tmp_path / "text.npy", np.ones((1, 5), np.float32))
    motions, _ = sample_motions(loaded, Wanted(steps=2, text=tmp_path / "text.npy"))
    assert motions.shape == (1, 196, 7)

    lines: list[str] = []
    own = ("training.epochs=1", f"model.pretrained={path}", "model.settings.num_heads=4",
           "model.settings.pos_embed_max_len=300")  # fmt: skip
    fit(humanml, *own, lines=lines)
    assert any("took 24 of 24 tensors (100.0%" in line for line in lines), lines
    lines.clear()
    fit(deepmimic, *own, lines=lines)
    assert any("newly initialised: input_process.poseEmbedding.weight [16, 44] (the file's is [16, 7])" in line
               for line in lines)  # fmt: skip


def test_requests_that_are_no_motions_are_told_why() -> None:
    shape = Shape(features=7, condition="none", condition_width=0, **TINY)  # type: ignore[arg-type]
    card = {"task": "motion", "architecture": {"name": "mdm", "settings": shape.as_dict()}, "classes": [],
            "preprocess": {"form": "", "mean": [0.0] * 7, "std": [1.0] * 7}}  # fmt: skip
    medium = load_medium(card, "images")
    body = medium.probes()[0]
    for content, status in ((b"GIF89a", 415), (body[:-4], 422), (b'{"Loop": 1}', 422), (b"{", 422),
                            (body.replace(b"(12, 7)", b"(7, 12)"), 422)):  # fmt: skip
        with pytest.raises(InputError) as refused:
            medium.decode(content, Limits())
        assert refused.value.status == status
    given = medium.decode(body, Limits())
    assert isinstance(medium, MotionMedium)
    x0 = medium._swing(0)
    assert whole(medium.answer(x0, given, 5))["explained"] == pytest.approx(1, abs=1e-3)
    assert whole(medium.answer(x0 * 0, given, 5)) == pytest.approx(
        {"label": "lost", "index": -1, "confidence": 0.0, "explained": 0.0, "timestep": round(given[-1] * 20)}
    )
    for broken in ({"classes": [], "preprocess": {}}, {"architecture": {"name": "mdm", "settings": {"frames": -1}}},
                   {"architecture": {"name": "mdm", "settings": {"layers": 10**9}}}):  # fmt: skip
        with pytest.raises((ValueError, KeyError, TypeError)):
            load_medium(card | broken, "images")
